"""From texts to rows of ids, as BERT reads them: [CLS] A [SEP], or [CLS] A [SEP] B [SEP] (RoBERTa: two [SEP]).

A row is what the model reads at once. Most examples are one row; an example with several choices has a row per choice,
and a long passage or sentence is cut into several windows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bertjax.data.batch import MODEL_INPUTS
from bertjax.errors import UserError
from bertjax.tasks.examples import TextExample
from bertjax.tasks.metadata import TokenLimits
from bertjax.text.text_counts import TextCounts
from bertjax.text.tokenizer import Tokenizer

# A longer text is a mistake in its file, such as a quotation mark that is never closed.
MAX_CHARACTERS = 200_000


@dataclass(frozen=True)
class EncodedExample:
    """One row of a batch: an example, or a part of one.

    `token_positions` are positions of the row that mean something to the kind of task: for tagging the first piece of
    each word, for span the tokens of the passage.
    """

    example: int  # its number among the examples
    input_ids: list[int]
    segment_b: int  # where the second segment begins; the length where there is none
    label: Any = None  # as the kind of task lays it out; for tagging one per token position
    token_positions: tuple[int, ...] = ()
    words: tuple[int, ...] = ()  # tagging: the number of the word at each token position
    char_spans: tuple[tuple[int, int], ...] = ()  # span: the characters of the passage at each token position
    answer_range: tuple[int, int] = (0, 0)  # span: [first, last + 1) token positions where an answer may begin
    truncated: bool = False  # the texts lost tokens; other windows of the example do not have them either
    # Of a frozen encoder, f32 [layers, hidden] or [length, layers, hidden]; the head reads them instead of the ids.
    features: np.ndarray | None = field(default=None, compare=False)

    def write(self, inputs: dict[str, np.ndarray], row: int, begin: int = 0, number: int = 1) -> None:
        """Writes the ids into `inputs` of `empty_inputs`; `number` fills their part of `attention_mask`."""
        end = begin + len(self.input_ids)
        inputs["input_ids"][row, begin:end] = self.input_ids
        inputs["token_type_ids"][row, begin + self.segment_b : end] = 1
        inputs["attention_mask"][row, begin:end] = number


@dataclass(frozen=True)
class ExampleEncoder:
    """What turns the texts of a task's examples into rows."""

    tokenizer: Tokenizer
    limits: TokenLimits
    labels: int = 0  # number of classes

    def join(self, number: int, first: list[int], second: list[int] | None, label: Any) -> EncodedExample:
        """One row of one text or two, as ids; too long a text loses its end, of two texts the longer one first."""
        tokenizer, length = self.tokenizer, self.limits.length
        if second is None:
            ids = [tokenizer.cls_id, *first[: length - 2], tokenizer.sep_id]
            return EncodedExample(number, ids, len(ids), label, truncated=len(first) > length - 2)
        between = [tokenizer.sep_id] * tokenizer.pair_separators
        room = length - 2 - len(between)
        keep_second = min(len(second), max(room - len(first), room // 2))
        keep_first = min(len(first), room - keep_second)
        ids = [tokenizer.cls_id, *first[:keep_first], *between, *second[:keep_second], tokenizer.sep_id]
        truncated = len(first) + len(second) > room
        return EncodedExample(number, ids, keep_first + 1 + len(between), label, truncated=truncated)

    def join_texts(self, number: int, example: TextExample, label: Any) -> EncodedExample:
        """The row of an example of one text or two."""
        second = None if example.text_pair is None else self.tokenizer.encode(example.text_pair)
        return self.join(number, self.tokenizer.encode(example.text), second, label)


def count_texts(rows: Sequence[EncodedExample], tokenizer: Tokenizer) -> TextCounts:
    """The counts of rows; what several rows of an example share, as the question of all windows, counts in each."""
    special = {tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id}
    lists = [row.input_ids for row in rows]
    return TextCounts(
        tokens=sum(map(len, lists)) - sum(ids.count(index) for index in special for ids in lists),
        unknown=sum(ids.count(tokenizer.unk_id) for ids in lists),
        examples=len({row.example for row in rows}),
        truncated=len({row.example for row in rows if row.truncated}),
    )


def check_lengths(examples: Sequence[Any]) -> None:
    """Refuses texts that are far too long to be meant.

    Raises:
      UserError: there is one, with its file and row.
    """
    for example in examples:
        for value in vars(example).values():
            texts = [value] if isinstance(value, str) else value if isinstance(value, tuple) else ()
            size = sum(len(text) for text in texts if isinstance(text, str))
            if size > MAX_CHARACTERS:
                raise UserError(
                    f"{example.where}: the text has {size:,} characters, at most {MAX_CHARACTERS:,} make sense for "
                    "one example; is a quotation mark not closed? Else cut it"
                )


def empty_inputs(shape: tuple[int, int], pad_id: int) -> dict[str, np.ndarray]:
    """A model's inputs [rows, length], nothing but padding."""
    return {array.name: array.empty(shape, pad_id) for array in MODEL_INPUTS}


def padded_inputs(rows: Sequence[EncodedExample], shape: tuple[int, int], pad_id: int) -> dict[str, np.ndarray]:
    """A model's inputs [rows, length] with one encoded example per row; with features these replace the ids."""
    inputs = empty_inputs(shape, pad_id)
    inputs["attention_mask"][:, 0] = 1  # a row of padding still attends to something
    for number, row in enumerate(rows):
        row.write(inputs, number)
    if (first := rows[0].features) is None:
        return inputs
    features = np.zeros((*shape[: first.ndim - 1], *first.shape[-2:]), np.float32)
    for number, row in enumerate(rows):
        features[(number, *map(slice, row.features.shape))] = row.features
    return {"features": features, "attention_mask": inputs["attention_mask"]}
