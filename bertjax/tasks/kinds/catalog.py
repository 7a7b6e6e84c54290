"""All kinds of tasks by name."""

from bertjax.config.registry import Registry
from bertjax.tasks.kinds.base import TaskKind
from bertjax.tasks.kinds.choice import Choice
from bertjax.tasks.kinds.classification import Classification
from bertjax.tasks.kinds.multi_label import MultiLabel
from bertjax.tasks.kinds.pair_classification import PairClassification
from bertjax.tasks.kinds.regression import Regression
from bertjax.tasks.kinds.retrieval import Retrieval
from bertjax.tasks.kinds.similarity import Similarity
from bertjax.tasks.kinds.span import Span
from bertjax.tasks.kinds.tagging import Tagging

_CLASSES = (Classification, MultiLabel, Regression, Choice, Tagging, Span, Similarity, PairClassification, Retrieval)
KINDS: Registry[TaskKind] = Registry("task kind", {kind.name: kind() for kind in _CLASSES})


def kind_named(name: str) -> TaskKind:
    """Returns the kind with this name.

    Raises:
      UserError: there is no such kind; the message suggests the closest name.
    """
    return KINDS.get(name)


def bi_encoder_of(kind: TaskKind) -> TaskKind | None:
    """Returns the bi-encoder kind for the same examples, or None."""
    if kind.bi_encoder:
        return kind
    return next((other for other in KINDS.values() if other.data_kind == kind.name), None)
