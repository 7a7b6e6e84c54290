"""One of several continuations of a text is right."""

from typing import Any

import jax
import numpy as np

from bertjax.tasks.encoding import EncodedExample, ExampleEncoder
from bertjax.tasks.examples import ChoiceExample
from bertjax.tasks.kinds.base import Arrays, Prediction, Scored, TaskKind
from bertjax.tasks.metadata import TaskMetadata
from bertjax.tasks.user_io import not_expected, rounded, string


class Choice(TaskKind):
    """Predicts the number of the choice; a batch's labels are int [units], and a unit's rows are its choices."""

    name = "choice"
    predict_mode = "choose"
    pooled = True
    transformers_class = "ForMultipleChoice"

    def encode(self, number: int, example: ChoiceExample, encoder: ExampleEncoder) -> list[EncodedExample]:
        """A row per choice."""
        text = encoder.tokenizer.encode(example.text)
        choices = [encoder.tokenizer.encode(choice) for choice in example.choices]
        return [encoder.join(number, text, choice, example.label) for choice in choices]

    def class_logits(self, logits: jax.Array, batch: Arrays) -> jax.Array:
        """[units, choices]."""
        return logits.reshape(*batch["labels"].shape, -1)

    def example_scores(self, scored: Scored) -> np.ndarray:
        """A score per row."""
        return np.array([score[0] for _, score in scored])

    def read_input(self, value: Any, where: str) -> ChoiceExample:
        """A dict of a text and its choices."""
        choices = value.get("choices") if isinstance(value, dict) and "text" in value else None
        if not (isinstance(choices, list | tuple) and choices):
            raise not_expected(where, value, 'an object {"text": …, "choices": […]}')
        choices = tuple(string(choice, where) for choice in choices)
        return ChoiceExample(where, where, string(value["text"], where), choices)

    def record(self, prediction: Prediction, task: TaskMetadata, top: int) -> dict[str, Any]:
        """The number of the choice, and the probabilities of all."""
        probabilities = rounded(prediction.probabilities)
        return {
            "choice": prediction.value,
            "probability": probabilities[prediction.value],
            "probabilities": probabilities,
        }

    def transformers_inputs(self, array: np.ndarray) -> np.ndarray:
        """[examples, choices, length], each row an example of its own."""
        return array[:, None]
