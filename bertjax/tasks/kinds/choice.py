"""Multiple choice: one of several continuations of a text is right."""

from dataclasses import dataclass
from typing import Annotated

import jax
import msgspec
import numpy as np

from bertjax.arrays.types import Batch
from bertjax.tasks.encoding import EncodedExample, ExampleEncoder
from bertjax.tasks.examples import ChoiceExample
from bertjax.tasks.kinds.base import Prediction, ScoredSequences, TaskKind
from bertjax.tasks.metadata import TaskMetadata
from bertjax.tasks.user_io import checked_text, convert_input, rounded


@dataclass(frozen=True)
class _TextWithChoices:
    text: str
    choices: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]


class Choice(TaskKind[ChoiceExample]):
    """Predicts the index of the choice, an int; `labels` are int [units], and the choices of an example are a unit."""

    name = "choice"
    predict_mode = "choose"
    pooled = True
    transformers_class = "ForMultipleChoice"

    def encode(self, index: int, example: ChoiceExample, encoder: ExampleEncoder) -> list[EncodedExample]:
        """Returns a sequence per choice."""
        text = encoder.tokenizer.encode(example.text)
        choices = [encoder.tokenizer.encode(choice) for choice in example.choices]
        return [encoder.join(index, text, choice, example.label) for choice in choices]

    def class_logits(self, logits: jax.Array, batch: Batch) -> jax.Array:
        """Returns [units, choices]."""
        return logits.reshape(*batch["labels"].shape, -1)

    def example_scores(self, scored: ScoredSequences) -> np.ndarray:
        """Returns [choices]."""
        return np.array([score[0] for _, score in scored])

    def read_input(self, value: object, where: str) -> ChoiceExample:
        """Reads an object with a text and its choices."""
        typed = convert_input(value, _TextWithChoices, where, 'an object {"text": …, "choices": […]}')
        choices = tuple(checked_text(choice, where) for choice in typed.choices)
        return ChoiceExample(where, where, checked_text(typed.text, where), choices)

    def record(self, prediction: Prediction[int], task: TaskMetadata, top: int) -> dict[str, object]:
        """Returns the index of the choice, and the probabilities of all choices."""
        probabilities = rounded(prediction.probabilities)
        return {
            "choice": prediction.value,
            "probability": probabilities[prediction.value],
            "probabilities": probabilities,
        }

    def transformers_inputs(self, array: np.ndarray) -> np.ndarray:
        """Returns [examples, choices, length] with one choice per example."""
        return array[:, None]
