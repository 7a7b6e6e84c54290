"""All kinds of tasks by name."""

import difflib

from bertjax.errors import UserError
from bertjax.tasks.kinds import (
    choice,
    classification,
    multi_label,
    pair_classification,
    regression,
    retrieval,
    similarity,
    span,
    tagging,
)
from bertjax.tasks.kinds.base import TaskKind

_CLASSES = (
    *(classification.Classification, multi_label.MultiLabel, regression.Regression, choice.Choice, tagging.Tagging),
    *(span.Span, similarity.Similarity, pair_classification.PairClassification, retrieval.Retrieval),
)
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
