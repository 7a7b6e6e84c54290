"""Each word of a sentence has one of several classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np

from bertjax.errors import UserError
from bertjax.tasks import scores, table_records
from bertjax.tasks.encoding import EncodedExample, ExampleEncoder
from bertjax.tasks.examples import WordsExample
from bertjax.tasks.kinds.base import Prediction, Scored, TaskKind, softmax
from bertjax.tasks.metadata import TaskMetadata, TokenLimits
from bertjax.tasks.user_io import rounded, string, typed

_Words = str | Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]


@dataclass(frozen=True)
class _Sentence:
    """What a user may type; one of the two."""

    words: _Words | None = None
    text: _Words | None = None


class Tagging(TaskKind):
    """Predicts the indices of the words' classes, as a tuple; a batch's labels are int [rows, length].

    Those of the first piece of each word count.
    """

    name = "tagging"
    predict_mode = "tag"
    has_classes = True
    own_table = True
    label_per_token = True
    table_text_type = str | list[str]
    table_label_type = str | list[table_records.Label]
    transformers_class = "ForTokenClassification"

    def encode(self, number: int, example: WordsExample, encoder: ExampleEncoder) -> list[EncodedExample]:
        """A sentence, cut between words into windows where it is too long."""
        tokenizer, room = encoder.tokenizer, encoder.limits.length - 2
        words = tokenizer.encode_words(example.words)
        # A word of characters that the tokenizer drops still needs a token.
        pieces = [ids[:room] or [tokenizer.unk_id] for ids in words]
        rows = []
        for window in _windows(pieces, room):
            ids, positions = [tokenizer.cls_id], []
            for word in window:
                positions.append(len(ids))
                ids += pieces[word]
            ids.append(tokenizer.sep_id)
            label = None if example.labels is None else tuple(example.labels[word] for word in window)
            truncated = any(len(words[word]) > room for word in window)
            rows.append(
                EncodedExample(number, ids, len(ids), label, tuple(positions), tuple(window), truncated=truncated)
            )
        return rows

    def write_target(self, targets: dict[str, np.ndarray], row: EncodedExample, unit: Any, begin: int) -> None:
        """At the first piece of each word."""
        line = unit[0] if isinstance(unit, tuple) else unit
        super().write_target(targets, row, (line, [begin + position for position in row.token_positions]), begin)

    def decide(self, example: Any, scored: Scored, limits: TokenLimits) -> Prediction:
        """The likeliest class of each word."""
        logits = np.concatenate([score[list(row.token_positions)] for row, score in scored])
        return Prediction(tuple(np.argmax(logits, axis=-1).tolist()), softmax(logits))

    def read_input(self, value: Any, where: str) -> WordsExample:
        """A list of words, or a text that is split at white space."""
        expected = 'a text, a list of words, or an object {"words": […]}'
        words = typed(value, _Words | _Sentence, where, expected)
        if isinstance(words, _Sentence):
            words = typed(words.text if words.words is None else words.words, _Words, where, expected)
        if isinstance(words, str):
            words = string(words, where).split()
        return WordsExample(where, where, tuple(string(word, where) for word in words))

    def record(self, prediction: Prediction, task: TaskMetadata, top: int) -> dict[str, Any]:
        """The class of each word with its probability."""
        labels = [task.labels[label] for label in prediction.value]
        return {"labels": labels, "probabilities": rounded(prediction.probabilities.max(axis=-1))}

    def table_classes(self, record: table_records.Record) -> list[str]:
        """The class of each word."""
        return [table_records.class_name(label, record.where) for label in table_records.words(record.label)]

    def table_example(self, identity: str, record: table_records.Record, numbers: Mapping[str, int]) -> WordsExample:
        """Words with their classes."""
        words = tuple(table_records.text(word, "a word", record.where) for word in table_records.words(record.text))
        if not words:
            raise UserError(f"{record.where}: there are no words; give the row some, or take it out")
        if record.label is None:
            return WordsExample(identity, record.where, words)
        labels = table_records.class_numbers(self.table_classes(record), numbers, record.where)
        if len(labels) != len(words):
            raise UserError(f"{record.where}: {len(words)} words but {len(labels)} labels; put the row right")
        return WordsExample(identity, record.where, words, tuple(labels))

    def default_score(self, labels: Sequence[str]) -> tuple[scores.Score, str]:
        """F1 over entities chooses where the labels are IOB2, else accuracy."""
        entities = all(label == "O" or label[:2] in ("B-", "I-") for label in labels)
        return scores.word_labels(labels, entities), "f1" if entities else "accuracy"


def _windows(pieces: Sequence[Sequence[int]], room: int) -> list[list[int]]:
    """The numbers of the words in windows of at most `room` pieces; no word has more."""
    windows: list[list[int]] = [[]]
    filled = 0
    for word, ids in enumerate(pieces):
        if windows[-1] and filled + len(ids) > room:
            windows.append([])
            filled = 0
        windows[-1].append(word)
        filled += len(ids)
    return windows
