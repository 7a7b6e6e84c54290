"""Each word of a sentence has one of several classes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bertjax.errors import UserError
from bertjax.tasks import scores, table_records
from bertjax.tasks.encoding import EncodedExample, ExampleEncoder
from bertjax.tasks.examples import WordsExample
from bertjax.tasks.kinds.base import Prediction, Scored, TaskKind, softmax
from bertjax.tasks.metadata import TaskMetadata, TokenLimits
from bertjax.tasks.user_io import not_expected, rounded, string


class Tagging(TaskKind):
    """Predicts the indices of the words' classes, as a tuple; a batch's labels are int [rows, length].

    Those of the first piece of each word count.
    """

    name = "tagging"
    predict_mode = "tag"
    has_classes = True
    own_table = True
    label_per_token = True
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
        if isinstance(value, dict):
            value = value.get("words", value.get("text"))
        words = string(value, where).split() if isinstance(value, str) else value
        if not (isinstance(words, list | tuple) and words):
            raise not_expected(where, value, 'a text, a list of words, or an object {"words": […]}')
        return WordsExample(where, where, tuple(string(word, where) for word in words))

    def record(self, prediction: Prediction, task: TaskMetadata, top: int) -> dict[str, Any]:
        """The class of each word with its probability."""
        labels = [task.labels[label] for label in prediction.value]
        return {"labels": labels, "probabilities": rounded(prediction.probabilities.max(axis=-1))}

    def table_classes(self, record: table_records.Record) -> list[str]:
        """The class of each word."""
        labels = table_records.words(record.label, record.where)
        return [table_records.class_name(label, record.where) for label in labels]

    def table_example(self, identity: str, record: table_records.Record, numbers: Mapping[str, int]) -> WordsExample:
        """Words with their classes."""
        words = table_records.words(record.text, record.where)
        words = tuple(table_records.text(word, "a word", record.where) for word in words)
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
