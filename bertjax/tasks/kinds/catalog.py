"""All kinds of tasks by name."""

import difflib

from bertjax.errors import UserError
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
KINDS: dict[str, TaskKind] = {kind.name: kind() for kind in _CLASSES}


def kind_named(name: str) -> TaskKind:
    """The kind of a name.

    Raises:
      UserError: there is none; the nearest one is named.
    """
    if name not in KINDS:
        nearest = difflib.get_close_matches(name, KINDS, n=1, cutoff=0)
        raise UserError(f"unknown kind of task {name!r}; did you mean {nearest[0]!r}? There are: {', '.join(KINDS)}")
    return KINDS[name]


def bi_encoder_of(kind: TaskKind) -> TaskKind | None:
    """The kind for the same examples that encodes each text on its own; None where there is none."""
    if kind.bi_encoder:
        return kind
    return next((other for other in KINDS.values() if other.data_kind == kind.name), None)
