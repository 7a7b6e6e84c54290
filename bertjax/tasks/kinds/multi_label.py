"""Classification of one text or two into any number of classes."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from bertjax import decoding
from bertjax.arrays.types import Batch
from bertjax.objectives.distillation import divergence
from bertjax.tasks import scores, table_records, user_io
from bertjax.tasks.encoding import EncodedExample, ExampleEncoder
from bertjax.tasks.examples import TextExample
from bertjax.tasks.kinds.base import Prediction, ScoredSequences, TaskKind
from bertjax.tasks.metadata import TaskMetadata, TokenLimits


class MultiLabel(TaskKind[TextExample]):
    """Predicts a tuple of class indices in increasing order; `labels` are int [units, classes], 0 or 1."""

    name = "multi_label"
    pooled = True
    has_classes = True
    exclusive = False
    has_table_task = True
    table_label_type = table_records.LabelCell | list[table_records.LabelCell]
    problem_type = "multi_label_classification"

    def encode(self, index: int, example: TextExample, encoder: ExampleEncoder) -> list[EncodedExample]:
        """Returns one sequence, whose label is a vector of 0 and 1."""
        label = example.label
        if isinstance(label, tuple):
            label = tuple(int(number in label) for number in range(encoder.labels))
        return [encoder.join_texts(index, example, label)]

    def label_shape(self, labels: int) -> tuple[int, ...]:
        """Returns [classes]."""
        return (labels,)

    def losses(self, outputs: Batch, batch: Batch) -> jax.Array:
        """Returns the binary cross-entropy, averaged over the classes."""
        logits, labels = outputs["logits"], batch["labels"].astype(jnp.float32)
        return jnp.mean(jax.nn.softplus(logits) - labels * logits, axis=-1)

    def soft_losses(self, student: jax.Array, teacher: jax.Array, batch: Batch, temperature: float) -> jax.Array:
        """Returns the divergence of the two-way distribution of each class, averaged over the classes."""
        student, teacher = (jnp.stack([logits, jnp.zeros_like(logits)], axis=-1) for logits in (student, teacher))
        return jnp.mean(divergence(student, teacher, temperature), axis=-1)

    def decide(self, example: TextExample, scored: ScoredSequences, limits: TokenLimits) -> Prediction[tuple[int, ...]]:
        """Predicts the classes with a probability above 1/2."""
        logits = self.example_scores(scored)
        return Prediction(tuple(np.flatnonzero(logits > 0).tolist()), 1 / (1 + np.exp(-logits)))

    def record(self, prediction: Prediction[tuple[int, ...]], task: TaskMetadata, top: int) -> dict[str, object]:
        """Returns the predicted classes, and the probabilities of all classes."""
        probabilities = dict(zip(task.labels, user_io.rounded(prediction.probabilities), strict=True))
        return {"labels": [task.labels[label] for label in prediction.value], "probabilities": probabilities}

    def table_classes(self, record: table_records.TableRecord) -> list[str]:
        """Reads the classes from a JSON list, or from names separated by |."""
        value = record.label
        if isinstance(value, str) and value.lstrip().startswith("["):
            where, remedy = f"{record.where}, the labels", "write a JSON list, or names separated by |"
            value = decoding.convert(decoding.parse(value, where, remedy), list[table_records.LabelCell], where, remedy)
        if isinstance(value, str):
            value = [part.strip() for part in value.split("|") if part.strip()]
        names = value if isinstance(value, list) else [value]
        return [table_records.class_name(name, record.where) for name in names]

    def table_label(self, record: table_records.TableRecord, numbers: Mapping[str, int]) -> tuple[int, ...]:
        """Returns the class indices in increasing order."""
        return tuple(sorted(set(table_records.class_numbers(self.table_classes(record), numbers, record.where))))

    def default_score(self, labels: Sequence[str]) -> tuple[scores.Score, str]:
        """Micro and macro F1 and accuracy; selects by micro F1."""
        return scores.label_score(scores.label_sets(len(labels))), "f1_micro"
