"""Regression: predicts a number for one text or two."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from bertjax.arrays.types import Batch
from bertjax.tasks import scores, table_records, user_io
from bertjax.tasks.examples import TextExample
from bertjax.tasks.kinds.base import Prediction, ScoredSequences, TaskKind
from bertjax.tasks.metadata import TaskMetadata, TokenLimits


class Regression(TaskKind[TextExample]):
    """Predicts a float; `labels` are float [units]."""

    name = "regression"
    pooled = True
    has_table_task = True
    problem_type = "regression"
    label_dtype = np.float32

    def losses(self, outputs: Batch, batch: Batch) -> jax.Array:
        """Returns the squared error."""
        return jnp.square(outputs["logits"][..., 0] - batch["labels"])

    def soft_losses(self, student: jax.Array, teacher: jax.Array, batch: Batch, temperature: float) -> jax.Array:
        """Returns the squared difference; the temperature does not apply to numbers."""
        return jnp.square(student[..., 0] - teacher[..., 0])

    def decide(self, example: TextExample, scored: ScoredSequences, limits: TokenLimits) -> Prediction[float]:
        """Predicts the output of the head."""
        return Prediction(float(self.example_scores(scored)[0]))

    def record(self, prediction: Prediction[float], task: TaskMetadata, top: int) -> dict[str, object]:
        """Returns the number."""
        return {"score": user_io.rounded(prediction.value)}

    def table_label(self, record: table_records.TableRecord, numbers: Mapping[str, int]) -> float:
        """Returns the number."""
        return table_records.finite_number(record.label, record.where)

    def default_score(self, labels: Sequence[str]) -> tuple[scores.Score, str]:
        """Correlations; selects by Pearson's."""
        return scores.label_score(scores.correlations), "pearson"
