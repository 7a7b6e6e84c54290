"""The vectors of two texts have one of several classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax

from bertjax.objectives.terms import cross_entropy
from bertjax.tasks.kinds.base import Arrays
from bertjax.tasks.kinds.bi_encoder import BiEncoder


@dataclass(frozen=True)
class PairClassification(BiEncoder):
    """Predicts the index of the class; a batch's labels are int [units]."""

    name = "pair_classification"
    data_kind = "classification"
    has_classes = True
    confusion_matrix = True

    def outputs(self, labels: Sequence[str]) -> int:
        """A head over both vectors and their difference."""
        return len(labels)

    def example_losses(self, outputs: Arrays, labels: jax.Array, weights: jax.Array) -> jax.Array:
        """The cross-entropy of the class."""
        return cross_entropy(self.example_logits(outputs), labels)[0]
