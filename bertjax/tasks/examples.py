"""Examples of downstream tasks."""

from dataclasses import dataclass
from typing import TypeAlias

# A class index, a number, or the class indices of several labels or words.
Label: TypeAlias = int | float | tuple[int, ...]


@dataclass(frozen=True)
class Example:
    """An input with its label; the label is None if unknown, as in test files."""

    id: str  # in predictions and submissions
    where: str  # location for messages: "dev.tsv, line 17"


@dataclass(frozen=True)
class TextExample(Example):
    """One text or a pair of texts."""

    text: str
    text_pair: str | None = None
    label: Label | None = None  # in the form of the kind's predictions


@dataclass(frozen=True)
class ChoiceExample(Example):
    """A text and its possible continuations, one of which is right; for retrieval the first."""

    text: str
    choices: tuple[str, ...]
    label: int | None = None


@dataclass(frozen=True)
class WordsExample(Example):
    """A sentence as words, each with a label."""

    words: tuple[str, ...]
    labels: tuple[int, ...] | None = None


@dataclass(frozen=True)
class QuestionExample(Example):
    """A question about a passage; its answer is a span of the passage, or absent."""

    question: str
    passage: str
    answers: tuple[str, ...] | None = None  # all right answers; (): unanswerable
    starts: tuple[int, ...] = ()  # character offset of each answer in the passage


@dataclass(frozen=True)
class Answer:
    """A predicted answer: the likeliest non-empty text, and the odds against any answer."""

    text: str
    null_odds: float = 0.0  # score of no answer minus score of `text`
