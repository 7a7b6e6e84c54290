"""Encoding of texts as sequences of ids: [CLS] A [SEP], or [CLS] A [SEP] B [SEP] (RoBERTa: two [SEP] in the middle).

Most examples are one sequence. An example with several choices has a sequence per choice; a long passage or sentence is
split into several windows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from bertjax.data.batch import MODEL_INPUTS, HostBatch
from bertjax.errors import UserError
from bertjax.tasks.examples import Example, Label, TextExample
from bertjax.tasks.metadata import TokenLimits
from bertjax.text.text_counts import TextCounts
from bertjax.text.tokenizer import Tokenizer

# A longer text is a mistake in its file, such as an unclosed quotation mark.
MAX_CHARACTERS = 200_000


@dataclass(frozen=True)
class EncodedExample:
    """One sequence: an example, or a part of one.

    The kind of task defines `token_positions`: for tagging the first token of each word, for span the tokens of the
    passage.
    """

    example: int  # index of the example
    input_ids: list[int]
    segment_b: int  # position of segment B; the length if there is none
    label: Label | None = None  # in the form that the kind of task writes to batches; tagging: one per token position
    token_positions: tuple[int, ...] = ()
    words: tuple[int, ...] = ()  # tagging: index of the word at each token position
    char_spans: tuple[tuple[int, int], ...] = ()  # span: characters of the passage at each token position
    answer_range: tuple[int, int] = (0, 0)  # span: [first, last + 1) token positions where an answer may begin
    truncated: bool = False  # tokens were cut off that no window of the example contains
    # Outputs of a frozen encoder, f32 [layers, hidden] or [length, layers, hidden]; the head reads them instead of ids.
    features: np.ndarray | None = field(default=None, compare=False)

    def write(self, inputs: HostBatch, row: int, begin: int = 0, number: int = 1) -> None:
        """Writes the ids into `inputs` of `empty_inputs`, with `number` in their part of `attention_mask`."""
        end = begin + len(self.input_ids)
        inputs["input_ids"][row, begin:end] = self.input_ids
        inputs["token_type_ids"][row, begin + self.segment_b : end] = 1
        inputs["attention_mask"][row, begin:end] = number


@dataclass(frozen=True)
class ExampleEncoder:
    """The tokenizer and the token limits with which the kinds encode examples."""

    tokenizer: Tokenizer
    limits: TokenLimits
    labels: int = 0  # number of classes

    def join(self, index: int, ids_a: list[int], ids_b: list[int] | None, label: Label | None) -> EncodedExample:
        """Returns the sequence of one or two tokenized texts; the longer one is truncated first, at its end."""
        tokenizer, length = self.tokenizer, self.limits.length
        if ids_b is None:
            ids = [tokenizer.cls_id, *ids_a[: length - 2], tokenizer.sep_id]
            return EncodedExample(index, ids, len(ids), label, truncated=len(ids_a) > length - 2)
        separators = [tokenizer.sep_id] * tokenizer.pair_separators
        room = length - 2 - len(separators)
        length_b = min(len(ids_b), max(room - len(ids_a), room // 2))
        length_a = min(len(ids_a), room - length_b)
        ids = [tokenizer.cls_id, *ids_a[:length_a], *separators, *ids_b[:length_b], tokenizer.sep_id]
        truncated = len(ids_a) + len(ids_b) > room
        return EncodedExample(index, ids, length_a + 1 + len(separators), label, truncated=truncated)

    def join_texts(self, index: int, example: TextExample, label: Label | None) -> EncodedExample:
        """Returns the sequence of an example of one or two texts."""
        ids_b = None if example.text_pair is None else self.tokenizer.encode(example.text_pair)
        return self.join(index, self.tokenizer.encode(example.text), ids_b, label)


def count_texts(sequences: Sequence[EncodedExample], tokenizer: Tokenizer) -> TextCounts:
    """Counts tokens and examples; text repeated in several sequences, such as a question, counts in each."""
    special = {tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id}
    lists = [sequence.input_ids for sequence in sequences]
    return TextCounts(
        tokens=sum(map(len, lists)) - sum(ids.count(index) for index in special for ids in lists),
        unknown=sum(ids.count(tokenizer.unk_id) for ids in lists),
        examples=len({sequence.example for sequence in sequences}),
        truncated=len({sequence.example for sequence in sequences if sequence.truncated}),
    )


def check_lengths(examples: Sequence[Example]) -> None:
    """Checks that no example is so long that it must be a mistake.

    Raises:
      UserError: an example is too long; the message gives its file and place.
    """
    for example in examples:
        for value in vars(example).values():
            texts = [value] if isinstance(value, str) else value if isinstance(value, tuple) else ()
            size = sum(len(text) for text in texts if isinstance(text, str))
            if size > MAX_CHARACTERS:
                raise UserError(
                    f"{example.where}: the text has {size:,} characters, more than the limit of {MAX_CHARACTERS:,} "
                    "per example; close its quotation mark if one is open, else shorten it"
                )


def empty_inputs(shape: tuple[int, int], pad_id: int) -> HostBatch:
    """Returns a model's inputs [rows, length] filled with padding."""
    return {array.name: array.empty(shape, pad_id) for array in MODEL_INPUTS}


def padded_inputs(sequences: Sequence[EncodedExample], shape: tuple[int, int], pad_id: int) -> HostBatch:
    """Returns a model's inputs [rows, length] with one sequence per row; features, if any, replace the ids."""
    inputs = empty_inputs(shape, pad_id)
    inputs["attention_mask"][:, 0] = 1  # a row of padding needs at least one token to attend to
    for row, sequence in enumerate(sequences):
        sequence.write(inputs, row)
    if (first := sequences[0].features) is None:
        return inputs
    features = np.zeros((*shape[: first.ndim - 1], *first.shape[-2:]), np.float32)
    for row, sequence in enumerate(sequences):
        if sequence.features is not None:
            features[(row, *map(slice, sequence.features.shape))] = sequence.features
    return {"features": features, "attention_mask": inputs["attention_mask"]}
