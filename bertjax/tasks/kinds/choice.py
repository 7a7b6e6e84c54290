"""One of several continuations of a text is right."""

from typing import Any

import jax
import numpy as np

from bertjax.objectives.distillation import divergence
from bertjax.objectives.terms import cross_entropy
from bertjax.tasks.encoding import EncodedExample, ExampleEncoder
from bertjax.tasks.examples import ChoiceExample
from bertjax.tasks.kinds.base import Arrays, Prediction, Scored, TaskKind, softmax
from bertjax.tasks.metadata import TaskMetadata, TokenLimits
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

    def losses(self, logits: jax.Array, batch: Arrays) -> jax.Array:
        """The cross-entropy of the right choice."""
        return cross_entropy(_by_example(logits, batch), batch["labels"])[0]

    def soft_losses(self, student: jax.Array, teacher: jax.Array, batch: Arrays, temperature: float) -> jax.Array:
        """The divergence of the teacher's choices."""
        return divergence(_by_example(student, batch), _by_example(teacher, batch), temperature)

    def decide(self, example: Any, scored: Scored, limits: TokenLimits) -> Prediction:
        """The likeliest choice."""
        logits = np.array([score[0] for _, score in scored])
        return Prediction(int(np.argmax(logits)), softmax(logits))

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


def _by_example(logits: jax.Array, batch: Arrays) -> jax.Array:
    """Logits as [units, choices]."""
    return logits.reshape(*batch["labels"].shape, -1)
