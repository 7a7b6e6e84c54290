"""Predictions of a fine-tuned model for inputs of its task."""

from collections.abc import Sequence

import jax

from bertjax.arrays.types import Batch, Params
from bertjax.checkpoints.pretrained import Pretrained
from bertjax.errors import UserError
from bertjax.inference.input_counts import InputCounts
from bertjax.inference.inputs import Record, make_records, read_inputs
from bertjax.inference.runner import PredictOptions, apply_module, bind_params, computation, model_limits
from bertjax.tasks.encoding import ExampleEncoder
from bertjax.tasks.kinds.catalog import kind_named


class TaskPredictor:
    """Predicts by name of class, with probabilities."""

    def __init__(self, source: Pretrained, options: PredictOptions) -> None:
        """Loads the parameters of a fine-tuned model.

        Raises:
          UserError: the model is not fine-tuned.
        """
        if source.task is None:
            raise UserError(f"{source.path}: the model is not fine-tuned; run python -m bertjax.finetune first")
        self._task, self._top = source.task, options.top
        self._kind = kind_named(source.task.kind)
        self.counts = InputCounts(source, self._kind.length_limit)
        self._encoder = ExampleEncoder(source.tokenizer, model_limits(source), len(source.task.labels))
        model = self._kind.model(source.config.model, source.task.labels)
        model = model.clone(features=source.task.features, computation=computation(source, options))

        def scores(params: Params, batch: Batch) -> jax.Array:
            return self._kind.row_scores(apply_module(model, params, batch))

        self._run = bind_params(scores, source, options)

    def __call__(self, inputs: Sequence[object], where: Sequence[str] | None = None) -> list[Record]:
        """Returns a record of the inputs and the prediction for each input."""
        examples = read_inputs(self._kind.read_input, inputs, where)
        rows = self._kind.encode_all(examples, self._encoder)
        self.counts.add(rows)
        predictions = self._kind.predictions(examples, rows, self._run(rows), self._encoder.limits)
        records = (self._kind.record(prediction, self._task, self._top) for prediction in predictions)
        return make_records(examples, records)
