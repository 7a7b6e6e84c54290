"""Dynamic masking: selection of the tokens to predict, and their replacement.

Every draw is a hash of the key of the row: an example gets new masks in each epoch, and a given row of the stream
always gets the same masks.
"""

import dataclasses
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from bertjax.config.data import MaskingConfig
from bertjax.config.registry import Registry
from bertjax.data import rng
from bertjax.data.sequences import Sequences
from bertjax.data.token_info import Vocabulary


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The masked positions of a batch; unused slots are position 0, id 0, weight 0.

    Attributes:
      positions: int32 [batch, predictions], ascending.
      ids: int32 [batch, predictions], the original tokens.
      weights: float32 [batch, predictions], 1 for a prediction.
    """

    positions: np.ndarray
    ids: np.ndarray
    weights: np.ndarray


def word_numbers(input_ids: np.ndarray, special: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """Returns the number of each token's word within its row, int64 [batch, length]."""
    del special
    return np.cumsum(vocabulary.word_starts[input_ids], axis=1)


def token_numbers(input_ids: np.ndarray, special: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """Returns the position of each token, int64 [batch, length]."""
    del special, vocabulary
    return np.broadcast_to(np.arange(input_ids.shape[1]), input_ids.shape)


# (input_ids [batch, length], special tokens bool [batch, length], vocabulary) → the number of each token's unit within
# its row, integers [batch, length] that never decrease along the row.
MaskingUnit: TypeAlias = Callable[[np.ndarray, np.ndarray, Vocabulary], np.ndarray]

UNITS: Registry[MaskingUnit] = Registry(
    "masking unit", {"token": token_numbers, "word": word_numbers, "span": word_numbers}
)


def _separate_special(numbers: np.ndarray, special: np.ndarray) -> np.ndarray:
    """Returns `numbers` as consecutive numbers from 0, with a number of its own for each special token."""
    starts = special.copy()
    starts[:, 0] = True
    starts[:, 1:] |= (numbers[:, 1:] != numbers[:, :-1]) | special[:, :-1]  # a segment may begin inside a word
    return np.cumsum(starts, axis=1) - 1


def mask_tokens(
    sequences: Sequences, keys: np.ndarray, vocabulary: Vocabulary, masking: MaskingConfig
) -> tuple[np.ndarray, Predictions]:
    """Masks a batch.

    A sequence of n tokens, special tokens included, gets min(slots, max(1, round(rate * n))) predictions, as in BERT.
    Whole words and spans may give fewer, if no remaining word fits.

    Args:
      sequences: the batch.
      keys: uint64 [batch], the key of each row's draws.
      vocabulary: the id of [MASK], the ids of random tokens, and the ids that begin a word.
      masking: rate, probabilities, slots and unit.

    Returns:
      The masked input_ids, int32 [batch, length], and the predictions.
    """
    length = sequences.input_ids.shape[1]
    slots = masking.predictions(length)
    special = sequences.special()
    wanted = np.clip(np.rint(masking.rate * sequences.sizes), 1, slots).astype(np.int64)
    wanted = np.minimum(wanted, (~special).sum(axis=1))  # full sentences contain special tokens
    selection_keys = rng.bits(keys, 0)
    if masking.unit == "token":
        positions = _draw_tokens(special, wanted, selection_keys, slots)
        units = positions
    else:
        numbers = UNITS.get(masking.unit, "config.masking.unit")(sequences.input_ids, special, vocabulary)
        max_span = masking.max_span if masking.unit == "span" else 1
        spans = _draw_spans(_separate_special(numbers, special), special, wanted, selection_keys, max_span)
        positions = _selected_positions(spans != 0, slots)
        units = np.take_along_axis(spans, np.minimum(positions, length - 1), axis=1)
    return _replace(sequences.input_ids, positions, units, keys, vocabulary, masking)


def _draw_tokens(special: np.ndarray, wanted: np.ndarray, keys: np.ndarray, slots: int) -> np.ndarray:
    """Draws `wanted` [batch] tokens per row.

    Returns:
      Their positions, int32 [batch, slots], ascending; the length of the row in unused slots.
    """
    length = special.shape[1]
    # Each draw gives 32 bits for two columns. With random upper bits and the column number in the lower bits, sorting
    # puts the columns in random order.
    order = rng.bits(keys[:, None], np.arange(-(-length // 2))).view(np.uint32)[:, :length]
    column_bits = (1 << (length - 1).bit_length()) - 1
    order &= np.uint32(~column_bits & 0xFFFFFFFF)
    order |= np.arange(length, dtype=np.uint32)
    order[special] = 0xFFFFFFFF
    order.sort(axis=1)
    positions = (order[:, :slots] & np.uint32(column_bits)).astype(np.int32)
    positions[np.arange(positions.shape[1]) >= wanted[:, None]] = length
    positions.sort(axis=1)
    return _widen(positions, slots, length)


def _selected_positions(selected: np.ndarray, slots: int) -> np.ndarray:
    """Returns the positions that are True in bool [batch, length], in the format of `_draw_tokens`."""
    length = selected.shape[1]
    columns = np.where(selected, np.arange(length, dtype=np.int32), np.int32(length))
    columns.sort(axis=1)
    return _widen(columns[:, :slots], slots, length)


def _widen(positions: np.ndarray, slots: int, unused: int) -> np.ndarray:
    """Appends unused slots if there are more slots than columns."""
    return np.pad(positions, ((0, 0), (0, slots - positions.shape[1])), constant_values=unused)


def _draw_spans(
    words: np.ndarray, special: np.ndarray, wanted: np.ndarray, keys: np.ndarray, max_span: int
) -> np.ndarray:
    """Draws spans of 1 to `max_span` whole words, P(n) ∝ 1/n, until `wanted` [batch] tokens are selected.

    Spans begin at words in random order. A span that meets a selected word or a special token, or exceeds the
    remaining number of tokens, is shortened until it fits, possibly to nothing (ALBERT, arXiv:1909.11942, section 4.1).

    Returns:
      int64 [batch, length]: for a selected token the number of its span's first word + 1, otherwise 0.
    """
    rows, length = words.shape
    every_row = np.arange(rows)
    # The first column of each word; after the last word, the length.
    bounds = np.full((rows, length + max_span + 1), length)
    columns = np.flatnonzero(np.diff(words, axis=1, prepend=-1))
    bounds[columns // length, words.reshape(-1)[columns]] = columns % length
    free = np.zeros((rows, length + max_span + 1), bool)
    free[every_row[:, None], words] = ~special
    order = rng.bits(keys[:, None], np.arange(length))
    order[~free[:, :length]] = np.iinfo(np.uint64).max
    order = np.argsort(order, axis=1)
    probabilities = 1 / np.arange(1, max_span + 1)
    limits = np.cumsum(probabilities) / probabilities.sum()
    spans = np.zeros((rows, length), np.int64)
    left = wanted.copy()
    for turn in range(free.sum(axis=1).max()):
        word = order[:, turn]
        size = 1 + np.searchsorted(limits[:-1], rng.uniform(rng.bits(rng.bits(keys, length), word)), side="right")
        fits = np.ones(rows, bool)
        begin = bounds[every_row, word]
        end = begin.copy()
        for offset in range(max_span):
            next_end = bounds[every_row, word + offset + 1]
            fits &= (offset < size) & free[every_row, word + offset] & (next_end - begin <= left)
            end = np.where(fits, next_end, end)
        nonempty = np.flatnonzero(end > begin)
        if len(nonempty):
            row, column = _between(nonempty, begin, end, length)
            spans[row, column] = word[row] + 1
            free[row, words[row, column]] = False
            left -= end - begin
        if not left.any():
            break
    return spans


def _between(rows: np.ndarray, begin: np.ndarray, end: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (row, column) of the tokens [begin, end) of `rows`, each int64 [tokens]."""
    columns = np.arange(length)
    row, column = np.nonzero((columns >= begin[rows, None]) & (columns < end[rows, None]))
    return rows[row], column


def _replace(
    input_ids: np.ndarray,
    positions: np.ndarray,
    units: np.ndarray,
    keys: np.ndarray,
    vocabulary: Vocabulary,
    masking: MaskingConfig,
) -> tuple[np.ndarray, Predictions]:
    """Replaces the tokens at `positions` with [MASK], a random token or themselves, with one draw per unit."""
    used = positions < input_ids.shape[1]
    positions = np.where(used, positions, 0)
    flat = positions + np.arange(0, input_ids.size, input_ids.shape[1])[:, None]
    original = input_ids.reshape(-1)[flat]
    draw = rng.uniform(rng.bits(rng.bits(keys, 1)[:, None], units))
    masked = input_ids.copy()
    masked.reshape(-1)[flat[used & (draw < masking.mask_prob)]] = vocabulary.mask_id
    row, slot = np.nonzero(used & (draw >= masking.mask_prob) & (draw < masking.mask_prob + masking.random_prob))
    random = rng.integers(rng.bits(rng.bits(keys, 2)[row], positions[row, slot]), len(vocabulary.ordinary_ids))
    masked.reshape(-1)[flat[row, slot]] = vocabulary.ordinary_ids[random]
    return masked, Predictions(positions, np.where(used, original, 0), used.astype(np.float32))
