"""Dynamic masking: which tokens are predicted, and what stands in their place.

Every draw is a hash of the row's key, so that a row is masked anew each time that it comes, and always the same way
for the same place in training.
"""

import dataclasses

import numpy as np

from bertjax.config.data import MaskingConfig
from bertjax.data import rng
from bertjax.data.sequences import Sequences
from bertjax.data.token_info import Vocabulary


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The masked positions of a batch; unused slots are position 0, id 0, weight 0.

    Attributes:
      positions: int32 [batch, predictions], rising.
      ids: int32 [batch, predictions], the original tokens.
      weights: float32 [batch, predictions], 1 for a prediction.
    """

    positions: np.ndarray
    ids: np.ndarray
    weights: np.ndarray


def mask(
    sequences: Sequences, keys: np.ndarray, vocabulary: Vocabulary, masking: MaskingConfig
) -> tuple[np.ndarray, Predictions]:
    """Masks a batch.

    A row of n tokens, special ones counted, gets min(slots, max(1, round(rate * n))) predictions, as in BERT. Whole
    words and spans may fall short of it by what fits no more.

    Args:
      sequences: the batch.
      keys: uint64 [batch], a key for each row's draws.
      vocabulary: [MASK], the ids to draw random ones from, and where words begin.
      masking: rate, shares, slots and unit.

    Returns:
      The masked input_ids, int32 [batch, length], and the predictions.
    """
    length = sequences.input_ids.shape[1]
    slots = masking.predictions(length)
    special = sequences.special()
    wanted = np.clip(np.rint(masking.rate * sequences.sizes), 1, slots).astype(np.int64)
    wanted = np.minimum(wanted, (~special).sum(axis=1))  # full sentences hold special tokens within their segments
    choices = rng.bits(keys, 0)
    if masking.unit == "token":
        positions = _tokens(special, wanted, choices, slots)
        units = positions
    else:
        words = _words(sequences.input_ids, special, vocabulary)
        chosen = _spans(words, special, wanted, choices, masking.max_span if masking.unit == "span" else 1)
        positions = _places(chosen != 0, slots)
        units = np.take_along_axis(chosen, np.minimum(positions, length - 1), axis=1)
    return _replace(sequences.input_ids, positions, units, keys, vocabulary, masking)


def _tokens(special: np.ndarray, wanted: np.ndarray, keys: np.ndarray, slots: int) -> np.ndarray:
    """Draws `wanted` [batch] tokens a row; int32 [batch, slots], rising, the length where a slot is unused."""
    length = special.shape[1]
    # A draw's two halves serve two columns. Random bits above, the column below: sorting gives columns in random order.
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


def _places(chosen: np.ndarray, slots: int) -> np.ndarray:
    """The columns that are True in bool [batch, length], in the form of `_tokens`."""
    length = chosen.shape[1]
    columns = np.where(chosen, np.arange(length, dtype=np.int32), np.int32(length))
    columns.sort(axis=1)
    return _widen(columns[:, :slots], slots, length)


def _widen(positions: np.ndarray, slots: int, unused: int) -> np.ndarray:
    """More slots than columns: the rest is unused."""
    return np.pad(positions, ((0, 0), (0, slots - positions.shape[1])), constant_values=unused)


def _words(input_ids: np.ndarray, special: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """int64 [batch, length]: the word of each token, from 0 in each row; special tokens are words of their own."""
    starts = vocabulary.word_starts[input_ids] | special
    # A segment may begin inside a word.
    starts[:, 1:] |= special[:, :-1]
    return np.cumsum(starts, axis=1) - 1


def _spans(words: np.ndarray, special: np.ndarray, wanted: np.ndarray, keys: np.ndarray, longest: int) -> np.ndarray:
    """Draws spans of 1 to `longest` whole words, P(n) ∝ 1/n, until `wanted` [batch] tokens are chosen.

    Words come in random order as beginnings of spans. A span that meets a chosen word or a special token, or is too
    large for what is left, is shortened until it fits, to nothing if need be (ALBERT, arXiv:1909.11942, section 4.1).

    Returns:
      int64 [batch, length]: 0, or for a chosen token the number of its span's first word + 1.
    """
    rows, length = words.shape
    every_row = np.arange(rows)
    # The first column of each word, and of what comes behind the last one.
    bounds = np.full((rows, length + longest + 1), length)
    columns = np.flatnonzero(np.diff(words, axis=1, prepend=-1))
    bounds[columns // length, words.reshape(-1)[columns]] = columns % length
    free = np.zeros((rows, length + longest + 1), bool)
    free[every_row[:, None], words] = ~special
    order = rng.bits(keys[:, None], np.arange(length))
    order[~free[:, :length]] = np.iinfo(np.uint64).max
    order = np.argsort(order, axis=1)
    shares = 1 / np.arange(1, longest + 1)
    limits = np.cumsum(shares) / shares.sum()
    chosen = np.zeros((rows, length), np.int64)
    left = wanted.copy()
    for turn in range(free.sum(axis=1).max()):
        word = order[:, turn]
        size = 1 + np.searchsorted(limits[:-1], rng.uniform(rng.bits(rng.bits(keys, length), word)), side="right")
        fits = np.ones(rows, bool)
        begin = bounds[every_row, word]
        end = begin.copy()
        for step in range(longest):
            further = bounds[every_row, word + step + 1]
            fits &= (step < size) & free[every_row, word + step] & (further - begin <= left)
            end = np.where(fits, further, end)
        taken = np.flatnonzero(end > begin)
        if len(taken):
            row, column = _between(taken, begin, end, length)
            chosen[row, column] = word[row] + 1
            free[row, words[row, column]] = False
            left -= end - begin
        if not left.any():
            break
    return chosen


def _between(rows: np.ndarray, begin: np.ndarray, end: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """(row, column) of the tokens [begin, end) of `rows`, each int64 [tokens]."""
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
    """Puts [MASK], a random token or the token itself at `positions`, one draw a unit."""
    used = positions < input_ids.shape[1]
    positions = np.where(used, positions, 0)
    # Places in the flattened batch.
    places = positions + np.arange(0, input_ids.size, input_ids.shape[1])[:, None]
    original = input_ids.reshape(-1)[places]
    draw = rng.uniform(rng.bits(rng.bits(keys, 1)[:, None], units))
    masked = input_ids.copy()
    masked.reshape(-1)[places[used & (draw < masking.mask_prob)]] = vocabulary.mask_id
    row, slot = np.nonzero(used & (draw >= masking.mask_prob) & (draw < masking.mask_prob + masking.random_prob))
    random = rng.integers(rng.bits(rng.bits(keys, 2)[row], positions[row, slot]), len(vocabulary.ordinary_ids))
    masked.reshape(-1)[places[row, slot]] = vocabulary.ordinary_ids[random]
    return masked, Predictions(positions, np.where(used, original, 0), used.astype(np.float32))
