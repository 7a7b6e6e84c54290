"""The vectors of two texts have one of several classes."""

from dataclasses import dataclass

from bertjax.tasks.kinds.bi_encoder import BiEncoder


@dataclass(frozen=True)
class PairClassification(BiEncoder):
    """Predicts the index of the class, by a head over both vectors and their difference.

    A batch's labels are int [units].
    """

    name = "pair_classification"
    data_kind = "classification"
    has_classes = True
    confusion_matrix = True
