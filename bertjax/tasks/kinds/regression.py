"""One text or two have a number."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bertjax.tasks import scores, table_records, user_io
from bertjax.tasks.kinds.base import Arrays, Prediction, Scored, TaskKind
from bertjax.tasks.metadata import TaskMetadata, TokenLimits


class Regression(TaskKind):
    """Predicts a number; a batch's labels are float [units]."""

    name = "regression"
    pooled = True
    own_table = True
    problem_type = "regression"
    label_dtype = np.float32

    def losses(self, outputs: Arrays, batch: Arrays) -> jax.Array:
        """The squared error."""
        return jnp.square(outputs["logits"][..., 0] - batch["labels"])

    def soft_losses(self, student: jax.Array, teacher: jax.Array, batch: Arrays, temperature: float) -> jax.Array:
        """The squared difference; a number has no temperature."""
        return jnp.square(student[..., 0] - teacher[..., 0])

    def decide(self, example: Any, scored: Scored, limits: TokenLimits) -> Prediction:
        """The one output."""
        return Prediction(float(self.example_scores(scored)[0]))

    def record(self, prediction: Prediction, task: TaskMetadata, top: int) -> dict[str, Any]:
        """The number."""
        return {"score": user_io.rounded(prediction.value)}

    def table_label(self, record: table_records.Record, numbers: Mapping[str, int]) -> float:
        """The number."""
        return table_records.number(record.label, record.where)

    def default_score(self, labels: Sequence[str]) -> tuple[scores.Score, str]:
        """Pearson's coefficient chooses."""
        return scores.of_labels(scores.correlations), "pearson"
