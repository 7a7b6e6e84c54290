"""Classification of two separately encoded texts into one of several classes."""

from dataclasses import dataclass

from bertjax.tasks.examples import TextExample
from bertjax.tasks.kinds.bi_encoder import BiEncoder


@dataclass(frozen=True)
class PairClassification(BiEncoder[TextExample]):
    """Predicts the index of the class, an int, with a head over both vectors and their difference.

    `labels` are int [units].
    """

    name = "pair_classification"
    data_kind = "classification"
    has_classes = True
    confusion_matrix = True
