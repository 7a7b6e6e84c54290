"""One of several continuations of a text is right."""

from dataclasses import dataclass
from typing import Annotated, Any

import jax
import msgspec
import numpy as np

from bertjax.tasks.encoding import EncodedExample, ExampleEncoder
from bertjax.tasks.examples import ChoiceExample
from bertjax.tasks.kinds.base import Arrays, Prediction, Scored, TaskKind
from bertjax.tasks.metadata import TaskMetadata
from bertjax.tasks.user_io import rounded, string, typed


@dataclass(frozen=True)
class _TextWithChoices:
    """What a user types."""

    text: str
    choices: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]


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
        asked = typed(value, _TextWithChoices, where, 'an object {"text": …, "choices": […]}')
        choices = tuple(string(choice, where) for choice in asked.choices)
        return ChoiceExample(where, where, string(asked.text, where), choices)

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
