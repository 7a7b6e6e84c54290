"""One text or two have a number."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bertjax.tasks import scores, table_records, user_io
from bertjax.tasks.encoding import EncodedExample, ExampleEncoder
from bertjax.tasks.examples import TextExample
from bertjax.tasks.kinds.base import Arrays, Prediction, Scored, TaskKind, new_targets
from bertjax.tasks.metadata import TaskMetadata, TokenLimits


class Regression(TaskKind):
    """Predicts a number; a batch's labels are float [units]."""

    name = "regression"
    predict_mode = "classify"
    pooled = True
    own_table = True
    transformers_class = "ForSequenceClassification"
    problem_type = "regression"

    def encode(self, number: int, example: TextExample, encoder: ExampleEncoder) -> list[EncodedExample]:
        """One row."""
        return [encoder.join_texts(number, example, example.label)]

    def empty_targets(self, units: tuple[int, ...], tokens: tuple[int, ...], labels: int) -> dict[str, np.ndarray]:
        """Floats."""
        return new_targets(units, dtype=np.float32)

    def losses(self, logits: jax.Array, batch: Arrays) -> jax.Array:
        """The squared error."""
        return jnp.square(logits[..., 0] - batch["labels"])

    def soft_losses(self, student: jax.Array, teacher: jax.Array, batch: Arrays, temperature: float) -> jax.Array:
        """The squared difference; a number has no temperature."""
        return jnp.square(student[..., 0] - teacher[..., 0])

    def decide(self, example: Any, scored: Scored, limits: TokenLimits) -> Prediction:
        """The one output."""
        return Prediction(float(scored[0][1][0]))

    def read_input(self, value: Any, where: str) -> TextExample:
        """A text or a pair of texts."""
        return user_io.read_text(value, where)

    def record(self, prediction: Prediction, task: TaskMetadata, top: int) -> dict[str, Any]:
        """The number."""
        return {"score": user_io.rounded(prediction.value)}

    def table_example(self, identity: str, record: table_records.Record, numbers: Mapping[str, int]) -> TextExample:
        """One text or two with their number."""
        label = None if record.label is None else table_records.number(record.label, record.where)
        return table_records.text_example(identity, record, label)

    def table_score(self, labels: Sequence[str]) -> tuple[scores.Score, str]:
        """Pearson's coefficient chooses."""
        return scores.of_labels(scores.correlations), "pearson"
