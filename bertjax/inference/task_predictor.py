"""What a fine-tuned model says of inputs of its task."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from bertjax.checkpoints.pretrained import Pretrained
from bertjax.inference.input_counts import InputCounts
from bertjax.inference.inputs import answers, read_inputs
from bertjax.inference.runner import Options, bind, computation, model_limits
from bertjax.tasks.encoding import ExampleEncoder
from bertjax.tasks.kinds.catalog import kind_named


class TaskPredictor:
    """Predictions of a fine-tuned model, by name and with their probabilities."""

    def __init__(self, source: Pretrained, options: Options) -> None:
        self._task, self._top = source.task, options.top
        self._kind = kind_named(source.task.kind)
        self.counts = InputCounts(source, self._kind.length_limit)
        self._encoder = ExampleEncoder(source.tokenizer, model_limits(source), len(source.task.labels))
        model = self._kind.model(source.config.model, source.task.labels)
        model = model.clone(features=source.task.features, computation=computation(source, options))

        def scores(params: Any, batch: Mapping[str, jax.Array]) -> jax.Array:
            return self._kind.row_scores(model.apply({"params": params}, batch))

        self._run = bind(scores, source, options)

    def __call__(self, inputs: Sequence[Any], where: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """A dict an input: what was asked, and what is predicted."""
        examples = read_inputs(self._kind.read_input, inputs, where)
        rows = self._kind.encode_all(examples, self._encoder)
        self.counts.add(rows)
        found = self._kind.predictions(examples, rows, self._run(rows), self._encoder.limits)
        return answers(examples, (self._kind.record(prediction, self._task, self._top) for prediction in found))
