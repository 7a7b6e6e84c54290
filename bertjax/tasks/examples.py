"""What a downstream task is: examples by split, and how predictions are scored.

Adding a task means saying how its files are read and which scores count; everything else follows from its kind
(`bertjax/tasks/kinds/`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bertjax.tasks.kinds.base import TaskKind


@dataclass(frozen=True)
class Example:
    """Something to answer. Labels are None where they are not known, as in test files."""

    id: str  # as predictions and submissions name it
    where: str  # file and row, for messages: "dev.tsv, row 17"


@dataclass(frozen=True)
class TextExample(Example):
    """One text or two."""

    text: str
    text_pair: str | None = None
    label: int | float | tuple[int, ...] | None = None  # as predictions of the kind are


@dataclass(frozen=True)
class ChoiceExample(Example):
    """A text and its possible continuations, of which one is right; for retrieval the first one."""

    text: str
    choices: tuple[str, ...]
    label: int | None = None


@dataclass(frozen=True)
class WordsExample(Example):
    """A sentence of words, each with a label."""

    words: tuple[str, ...]
    labels: tuple[int, ...] | None = None


@dataclass(frozen=True)
class QuestionExample(Example):
    """A question whose answer is a stretch of the passage, or nowhere in it."""

    question: str
    passage: str
    answers: tuple[str, ...] | None = None  # all that are right; (): it cannot be answered
    starts: tuple[int, ...] = ()  # of each answer: its first character in the passage


@dataclass(frozen=True)
class Answer:
    """What a model answers: the likeliest text that is not empty, and by how much no answer is likelier than it."""

    text: str
    null_odds: float = 0.0  # score of no answer minus score of `text`


@dataclass(frozen=True)
class TaskExamples:
    """A task bound to its data."""

    name: str
    kind: "TaskKind"
    labels: tuple[str, ...]  # the classes, in the order of a model's outputs; () where there are none
    read: Callable[[str], list[Any]]  # split → its examples; UserError for what is wrong with a file, with its row
    score: Callable[[Sequence[Any], Sequence[Any]], dict[str, float]]  # (examples, predictions) → by name, in per cent
    metric: str  # the score that chooses among runs
    dev: tuple[str, ...] = ("dev",)  # the splits that are scored; the first one chooses
    test: tuple[str, ...] = ("test",)  # those to predict for a submission; may be without labels
    choices: int = 1  # rows per example: the number of choices, or of texts that are encoded on their own
