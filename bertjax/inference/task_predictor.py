"""What a fine-tuned model says of inputs of its task."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from bertjax.checkpoints.pretrained import Pretrained
from bertjax.inference.inputs import asked, examples, rounded
from bertjax.inference.model_limits import model_limits
from bertjax.inference.runner import Options, Runner, computation
from bertjax.model.finetuning import FinetuningModel
from bertjax.tasks.inputs import rows
from bertjax.tasks.outputs import Prediction, predictions
from bertjax.tasks.squad_scores import decide


class TaskPredictor:
    """Predictions of a fine-tuned model, by name and with their probabilities."""

    def __init__(self, source: Pretrained, options: Options) -> None:
        task = source.task
        self._kind, self._labels = task.kind, task.labels
        self._tokenizer, self._limits, self._top = source.tokenizer, model_limits(source), options.top
        # By how much no answer must be likelier than any to be given; SQuAD v1.1 has an answer to everything.
        unanswerable = task.name == "squad/v2.0"
        self._threshold = (0.0 if unanswerable else math.inf) if task.threshold is None else task.threshold
        size = len(source.params["task_head"]["bias"])
        model = FinetuningModel(source.config.model, self._kind, size, computation(source, options), task.features)

        def logits(params: Any, batch: Mapping[str, jax.Array]) -> jax.Array:
            return model.apply({"params": params}, batch)["logits"]

        self._run = Runner(logits, source, options)
        self._record = self._recorders()[self._kind]

    def __call__(self, inputs: Sequence[Any], where: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """A dict an input: what was asked, and what is predicted."""
        asked_for = examples(self._kind, inputs, where)
        made = rows(self._kind, asked_for, self._tokenizer, self._limits, len(self._labels))
        found = predictions(self._kind, asked_for, made, self._run(made), self._limits)
        return [asked(example) | self._record(one) for example, one in zip(asked_for, found, strict=True)]

    def _recorders(self) -> dict[str, Callable[[Prediction], dict[str, Any]]]:
        return {
            "classification": self._label,
            "multi_label": self._some_labels,
            "regression": lambda found: {"score": rounded(found.value)},
            "choice": self._choice,
            "tagging": self._word_labels,
            "span": self._answer,
        }

    def _named(self, found: Prediction) -> dict[str, float]:
        return dict(zip(self._labels, rounded(found.probabilities), strict=True))

    def _label(self, found: Prediction) -> dict[str, Any]:
        probability = rounded(found.probabilities[found.value])
        return {
            "label": self._labels[found.value],
            "probability": probability,
            "probabilities": self._named(found),
        }

    def _some_labels(self, found: Prediction) -> dict[str, Any]:
        return {"labels": [self._labels[label] for label in found.value], "probabilities": self._named(found)}

    def _choice(self, found: Prediction) -> dict[str, Any]:
        probabilities = rounded(found.probabilities)
        return {"choice": found.value, "probability": probabilities[found.value], "probabilities": probabilities}

    def _word_labels(self, found: Prediction) -> dict[str, Any]:
        labels = [self._labels[label] for label in found.value]
        return {"labels": labels, "probabilities": rounded(found.probabilities.max(axis=-1))}

    def _answer(self, found: Prediction) -> dict[str, Any]:
        answer = decide(found.value, self._threshold)
        best = [{"answer": text, "probability": rounded(value)} for text, value in found.best[: self._top]]
        return {"answer": answer, "probability": rounded(dict(found.best)[answer]), "best": best}
