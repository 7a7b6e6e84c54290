"""One text or two have any number of several classes."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bertjax import decoding
from bertjax.objectives.distillation import divergence
from bertjax.tasks import scores, table_records, user_io
from bertjax.tasks.encoding import EncodedExample, ExampleEncoder
from bertjax.tasks.examples import TextExample
from bertjax.tasks.kinds.base import Arrays, Prediction, Scored, TaskKind
from bertjax.tasks.metadata import TaskMetadata, TokenLimits


class MultiLabel(TaskKind):
    """Predicts the indices of the classes that hold, rising; a batch's labels are 0 or 1 [units, labels]."""

    name = "multi_label"
    pooled = True
    has_classes = True
    exclusive = False
    own_table = True
    table_label_type = table_records.Label | list[table_records.Label]
    problem_type = "multi_label_classification"

    def encode(self, number: int, example: TextExample, encoder: ExampleEncoder) -> list[EncodedExample]:
        """One row, whose label is a vector."""
        label = example.label
        if label is not None:
            label = tuple(int(index in label) for index in range(encoder.labels))
        return [encoder.join_texts(number, example, label)]

    def label_shape(self, labels: int) -> tuple[int, ...]:
        """A number for each class."""
        return (labels,)

    def losses(self, outputs: Arrays, batch: Arrays) -> jax.Array:
        """Binary cross-entropy, the mean over the classes."""
        logits, labels = outputs["logits"], batch["labels"].astype(jnp.float32)
        return jnp.mean(jax.nn.softplus(logits) - labels * logits, axis=-1)

    def soft_losses(self, student: jax.Array, teacher: jax.Array, batch: Arrays, temperature: float) -> jax.Array:
        """The divergence of each class, which holds or does not, the mean over the classes."""
        pairs = [jnp.stack([logits, jnp.zeros_like(logits)], axis=-1) for logits in (student, teacher)]
        return jnp.mean(divergence(*pairs, temperature), axis=-1)

    def decide(self, example: Any, scored: Scored, limits: TokenLimits) -> Prediction:
        """The classes that are likelier than not."""
        logits = self.example_scores(scored)
        return Prediction(tuple(np.flatnonzero(logits > 0).tolist()), 1 / (1 + np.exp(-logits)))

    def record(self, prediction: Prediction, task: TaskMetadata, top: int) -> dict[str, Any]:
        """The classes that hold, and the probabilities of all."""
        probabilities = dict(zip(task.labels, user_io.rounded(prediction.probabilities), strict=True))
        return {"labels": [task.labels[label] for label in prediction.value], "probabilities": probabilities}

    def table_classes(self, record: table_records.Record) -> list[str]:
        """Those of a JSON list, or of names with | between them."""
        value = record.label
        if isinstance(value, str) and value.lstrip().startswith("["):
            where, cure = f"{record.where}, the labels", "write a JSON list, or names with | between them"
            value = decoding.convert(decoding.parse(value, where, cure), list[table_records.Label], where, cure)
        if isinstance(value, str):
            value = [part.strip() for part in value.split("|") if part.strip()]
        names = value if isinstance(value, list) else [value]
        return [table_records.class_name(name, record.where) for name in names]

    def table_label(self, record: table_records.Record, numbers: Mapping[str, int]) -> tuple[int, ...]:
        """The numbers of the classes, rising."""
        return tuple(sorted(set(table_records.class_numbers(self.table_classes(record), numbers, record.where))))

    def default_score(self, labels: Sequence[str]) -> tuple[scores.Score, str]:
        """Micro F1 chooses."""
        return scores.of_labels(scores.label_sets(len(labels))), "f1_micro"
