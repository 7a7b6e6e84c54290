"""What a downstream task is: examples by split, and how predictions are scored.

Adding a task means saying how its files are read and which scores count; everything else follows from its kind.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

# What is predicted for an example, and what `score` gets for each:
#   classification  one of `labels`: its index
#   multi_label     any of `labels`: the indices of those that hold, rising, as a tuple
#   regression      a number
#   choice          the number of the choice
#   tagging         one of `labels` for each word: their indices, as a tuple
#   span            a passage's stretch: an Answer
# Of texts that are read apart, each to a vector of its own (Sentence-BERT):
#   similarity      a number: the cosine of two vectors, on the scale of the labels
#   comparison      one of `labels` for two vectors: its index
#   retrieval       the rank, from 1, of the right text among all the texts of the split
KINDS = ("classification", "multi_label", "regression", "choice", "tagging", "span")
APART = ("similarity", "comparison", "retrieval")


@dataclass(frozen=True)
class Example:
    """Something to answer. Labels are None where they are not known, as in test files."""

    id: str  # as predictions and submissions name it
    where: str  # file and row, for messages: "dev.tsv, row 17"


@dataclass(frozen=True)
class TextExample(Example):
    """One text or two; for classification, multi_label and regression."""

    text: str
    second: str | None = None
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
class Task:
    """A task bound to its data."""

    name: str
    kind: str  # one of KINDS
    labels: tuple[str, ...]  # the classes, in the order of a model's outputs; () where there are none
    read: Callable[[str], list[Any]]  # split → its examples; UserError for what is wrong with a file, with its row
    score: Callable[[Sequence[Any], Sequence[Any]], dict[str, float]]  # (examples, predictions) → by name, in per cent
    metric: str  # the score that chooses among runs
    dev: tuple[str, ...] = ("dev",)  # the splits that are scored; the first one chooses
    test: tuple[str, ...] = ("test",)  # those to predict for a submission; may be without labels
    choices: int = 1  # rows that an example takes: the number of choices, or of texts that are read apart
