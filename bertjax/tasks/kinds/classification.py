"""One text or two have one of several classes."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from bertjax.objectives.distillation import divergence
from bertjax.objectives.terms import cross_entropy
from bertjax.tasks import scores, table_records, user_io
from bertjax.tasks.encoding import EncodedExample, ExampleEncoder
from bertjax.tasks.examples import TextExample
from bertjax.tasks.kinds.base import Arrays, Prediction, Scored, TaskKind, softmax
from bertjax.tasks.metadata import TaskMetadata, TokenLimits


class Classification(TaskKind):
    """Predicts the index of the class; a batch's labels are int [units]."""

    name = "classification"
    predict_mode = "classify"
    pooled = True
    has_classes = True
    confusion_matrix = True
    own_table = True
    transformers_class = "ForSequenceClassification"
    problem_type = "single_label_classification"

    def encode(self, number: int, example: TextExample, encoder: ExampleEncoder) -> list[EncodedExample]:
        """One row."""
        return [encoder.join_texts(number, example, example.label)]

    def losses(self, logits: jax.Array, batch: Arrays) -> jax.Array:
        """The cross-entropy of the class."""
        return cross_entropy(logits, batch["labels"])[0]

    def soft_losses(self, student: jax.Array, teacher: jax.Array, batch: Arrays, temperature: float) -> jax.Array:
        """The divergence of the teacher's classes."""
        return divergence(student, teacher, temperature)

    def decide(self, example: Any, scored: Scored, limits: TokenLimits) -> Prediction:
        """The likeliest class."""
        (_, logits), *_ = scored
        return Prediction(int(np.argmax(logits)), softmax(logits))

    def read_input(self, value: Any, where: str) -> TextExample:
        """A text or a pair of texts."""
        return user_io.read_text(value, where)

    def record(self, prediction: Prediction, task: TaskMetadata, top: int) -> dict[str, Any]:
        """The class, and the probabilities of all."""
        probabilities = user_io.rounded(prediction.probabilities)
        return {
            "label": task.labels[prediction.value],
            "probability": probabilities[prediction.value],
            "probabilities": dict(zip(task.labels, probabilities, strict=True)),
        }

    def table_classes(self, record: table_records.Record) -> list[str] | None:
        """The one class."""
        return None if record.label is None else [table_records.class_name(record.label, record.where)]

    def table_example(self, identity: str, record: table_records.Record, numbers: Mapping[str, int]) -> TextExample:
        """One text or two with their class."""
        found = table_records.class_numbers(self.table_classes(record), numbers, record.where)
        return table_records.text_example(identity, record, found and found[0])

    def table_score(self, labels: Sequence[str]) -> tuple[scores.Score, str]:
        """Accuracy chooses."""
        return scores.of_labels(scores.accuracy_and_macro_f1), "accuracy"
