"""Examples of downstream tasks."""

from dataclasses import dataclass


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
