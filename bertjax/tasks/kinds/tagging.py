"""Tagging: each word of a sentence belongs to one of several classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec
import numpy as np

from bertjax.data.batch import HostBatch
from bertjax.errors import UserError
from bertjax.tasks import scores, table_records
from bertjax.tasks.encoding import EncodedExample, ExampleEncoder
from bertjax.tasks.examples import WordsExample
from bertjax.tasks.kinds.base import Prediction, ScoredSequences, TaskKind, UnitIndex, softmax
from bertjax.tasks.metadata import TaskMetadata, TokenLimits
from bertjax.tasks.user_io import checked_text, convert_input, rounded

_Words = str | Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]


@dataclass(frozen=True)
class _Sentence:
    """An input with one of the two fields."""

    words: _Words | None = None
    text: _Words | None = None


class Tagging(TaskKind[WordsExample]):
    """Predicts a tuple with the class index of each word; `labels` are int [rows, length].

    Only the first token of each word has a weight.
    """

    name = "tagging"
    predict_mode = "tag"
    has_classes = True
    has_table_task = True
    label_per_token = True
    table_text_type = str | list[str]
    table_label_type = str | list[table_records.LabelCell]
    transformers_class = "ForTokenClassification"

    def encode(self, index: int, example: WordsExample, encoder: ExampleEncoder) -> list[EncodedExample]:
        """Returns a sequence per window; a sentence that is too long is split into windows between words."""
        tokenizer, room = encoder.tokenizer, encoder.limits.length - 2
        words = tokenizer.encode_words(example.words)
        # A word needs a token even if the tokenizer drops all its characters.
        pieces = [ids[:room] or [tokenizer.unk_id] for ids in words]
        sequences = []
        for window in _windows(pieces, room):
            ids, positions = [tokenizer.cls_id], []
            for word in window:
                positions.append(len(ids))
                ids += pieces[word]
            ids.append(tokenizer.sep_id)
            label = None if example.labels is None else tuple(example.labels[word] for word in window)
            truncated = any(len(words[word]) > room for word in window)
            sequences.append(
                EncodedExample(index, ids, len(ids), label, tuple(positions), tuple(window), truncated=truncated)
            )
        return sequences

    def write_target(self, targets: HostBatch, sequence: EncodedExample, unit: UnitIndex, begin: int) -> None:
        """Writes the label of each word at its first token."""
        row = unit[0] if isinstance(unit, tuple) else unit
        positions = [begin + position for position in sequence.token_positions]
        targets["labels"][row, positions], targets["weights"][row, positions] = sequence.label, 1

    def decide(
        self, example: WordsExample, scored: ScoredSequences, limits: TokenLimits
    ) -> Prediction[tuple[int, ...]]:
        """Predicts the likeliest class of each word."""
        logits = np.concatenate([score[list(sequence.token_positions)] for sequence, score in scored])
        return Prediction(tuple(np.argmax(logits, axis=-1).tolist()), softmax(logits))

    def read_input(self, value: object, where: str) -> WordsExample:
        """Reads a list of words, or a text that is split at white space."""
        expected = 'a text, a list of words, or an object {"words": […]}'
        typed: str | tuple[str, ...] | _Sentence = convert_input(value, _Words | _Sentence, where, expected)
        if isinstance(typed, _Sentence):
            words = typed.text if typed.words is None else typed.words
            words = convert_input(words, _Words, where, expected)
        else:
            words = typed
        if isinstance(words, str):
            words = tuple(checked_text(words, where).split())
        return WordsExample(where, where, tuple(checked_text(word, where) for word in words))

    def record(self, prediction: Prediction[tuple[int, ...]], task: TaskMetadata, top: int) -> dict[str, object]:
        """Returns the class of each word with its probability."""
        labels = [task.labels[label] for label in prediction.value]
        return {"labels": labels, "probabilities": rounded(prediction.probabilities.max(axis=-1))}

    def table_classes(self, record: table_records.TableRecord) -> list[str]:
        """Returns the class of each word."""
        return [table_records.class_name(label, record.where) for label in table_records.words(record.label)]

    def table_example(
        self, identity: str, record: table_records.TableRecord, numbers: Mapping[str, int]
    ) -> WordsExample:
        """Returns the words with their classes."""
        words = tuple(
            table_records.required_text(word, "a word", record.where) for word in table_records.words(record.text)
        )
        if not words:
            raise UserError(f"{record.where}: no words; add some or remove the example")
        if record.label is None:
            return WordsExample(identity, record.where, words)
        labels = table_records.class_numbers(self.table_classes(record), numbers, record.where)
        if len(labels) != len(words):
            raise UserError(f"{record.where}: {len(words)} words but {len(labels)} labels; give one label per word")
        return WordsExample(identity, record.where, words, tuple(labels))

    def default_score(self, labels: Sequence[str]) -> tuple[scores.Score, str]:
        """Accuracy over words; for IOB2 labels also F1 over entities, which then selects."""
        entities = all(label == "O" or label[:2] in ("B-", "I-") for label in labels)
        return scores.word_labels(labels, entities), "f1" if entities else "accuracy"


def _windows(pieces: Sequence[Sequence[int]], room: int) -> list[list[int]]:
    """Splits words into windows of at most `room` tokens each, and returns their indices; no word is longer."""
    windows: list[list[int]] = [[]]
    filled = 0
    for word, ids in enumerate(pieces):
        if windows[-1] and filled + len(ids) > room:
            windows.append([])
            filled = 0
        windows[-1].append(word)
        filled += len(ids)
    return windows
