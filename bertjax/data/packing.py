"""Several sequences a row: which examples share one, and the batch that comes of it.

Which lengths go together is decided for the histogram of an epoch's lengths, the longest first and each where it leaves
the least room (Krell et al. 2021, arXiv:2107.02027, "shortest-pack-first histogram packing"); which examples of a
length these are, by chance. What room is left in a row then gets one more example of exactly that size, cut from
anywhere in the corpus: so nearly nothing is padding, for a few tokens that come twice in an epoch.
"""

import collections

import numpy as np

from bertjax.config import Sequencing
from bertjax.data import rng
from bertjax.data.corpus import Corpus
from bertjax.data.examples import EXAMPLE, cut
from bertjax.data.masks import Predictions
from bertjax.data.pairs import Sequences

Batch = dict[str, np.ndarray]

_SMALLEST = 4  # tokens of text of an example that fills a row up
_DRAWS = 16  # of a place to cut it from


def packed(corpus: Corpus, examples: np.ndarray, length: int, key: np.uint64, sequencing: Sequencing) -> np.ndarray:
    """The examples of an epoch in rows: EXAMPLE [rows, sequencing.packing]; `first` is 0 where there is none.

    Args:
      corpus: that they were cut from.
      examples: EXAMPLE [examples].
      length: tokens of a row, special ones included.
      key: of the draws.
      sequencing: as they were cut; `packing` is the most a row holds.
    """
    sizes = examples["first"].astype(np.int64) + examples["second"] + sequencing.special_tokens
    order = np.argsort(rng.bits(key, np.arange(len(examples))))
    order = order[np.argsort(sizes[order], kind="stable")]  # by size, and within a size by chance
    counts = np.bincount(sizes, minlength=length + 1)
    taken = np.cumsum(counts) - counts  # of each size, where its next example stands in `order`
    result = []
    for number, pack in strategy(counts, length, sequencing.packing):
        rows = np.zeros((number, sequencing.packing), EXAMPLE)
        for slot, size in enumerate(pack):
            rows[:, slot] = examples[order[taken[size] : taken[size] + number]]
            taken[size] += number
        result.append(rows)
    rows = np.concatenate(result)
    _fill(corpus, rows, length, rng.bits(key, len(examples))[0], sequencing)
    return rows


def strategy(counts: np.ndarray, length: int, most: int) -> list[tuple[int, tuple[int, ...]]]:
    """[(how many rows, the sizes in each of them)]: counts [length + 1] sequences of each size, `most` a row."""
    open_rows: dict[int, collections.Counter] = collections.defaultdict(collections.Counter)  # by the room left
    full: collections.Counter = collections.Counter()

    def put(room: int, pack: tuple[int, ...], number: int) -> None:
        if number:
            (full if len(pack) == most else open_rows[room])[pack] += number

    for size in np.flatnonzero(counts)[::-1].tolist():
        left = int(counts[size])
        while left:
            room = next((room for room in range(size, length) if open_rows[room]), None)
            if room is None:  # new rows, with as many of this size as they hold
                several = min(most, length // size)
                put(length - several * size, (size,) * several, left // several)
                put(length - left % several * size, (size,) * (left % several), int(left % several > 0))
                break
            pack, number = open_rows[room].popitem()
            used = min(number, left)
            put(room, pack, number - used)
            put(room - size, (*pack, size), used)
            left -= used
    return [(number, pack) for packs in (full, *open_rows.values()) for pack, number in packs.items()]


def _fill(corpus: Corpus, rows: np.ndarray, length: int, key: np.uint64, sequencing: Sequencing) -> None:
    """Puts one more example into every row that has room for it, where a document is long enough."""
    used = (rows["first"].astype(np.int64) + rows["second"] + sequencing.special_tokens) * (rows["first"] > 0)
    wanted = length - used.sum(axis=1) - sequencing.special_tokens
    slots = np.count_nonzero(rows["first"], axis=1)
    pending = np.flatnonzero((wanted >= _SMALLEST) & (slots < sequencing.packing))
    keys = rng.bits(key, np.arange(len(rows)))
    for draw in range(_DRAWS):
        token = rng.integers(rng.bits(keys[pending], draw), corpus.tokens)
        document = np.searchsorted(corpus.document_tokens, token, side="right") - 1
        begin, end = corpus.document_tokens[document], corpus.document_tokens[document + 1]
        fits = end - begin >= wanted[pending]
        chosen = pending[fits]
        starts = np.minimum(token[fits], end[fits] - wanted[chosen])
        rows[chosen, slots[chosen]] = cut(corpus, starts, wanted[chosen], rng.bits(keys[chosen], _DRAWS), sequencing)
        pending = pending[~fits]
        if not len(pending):
            break


def joined(
    sequences: Sequences, predictions: Predictions, input_ids: np.ndarray, rows: np.ndarray, shape: tuple[int, int, int]
) -> Batch:
    """The batch of masked sequences in their rows.

    Args:
      sequences: all sequences of the batch, row by row.
      predictions: of each sequence.
      input_ids: int32 [sequences, length], masked.
      rows: int64 [sequences], the row of each, rising.
      shape: (rows, tokens a row, prediction slots a row); what is beyond the slots is not predicted.

    Returns:
      `input_ids`, `token_type_ids`, `attention_mask` (which numbers a row's sequences from 1) and `position_ids`
      (which restart with each), [rows, length], and `masked_lm_…` [rows, slots].
    """
    count, length, slots = shape
    sizes = sequences.sizes.astype(np.int64)
    number = _count_within(rows)
    begins = np.cumsum(sizes) - sizes
    begins -= begins[np.searchsorted(rows, rows)]  # the first of each row stands at 0
    real = np.arange(input_ids.shape[1]) < sizes[:, None]
    sequence, column = np.nonzero(real)
    place = rows[sequence] * length + begins[sequence] + column
    batch = {}
    for name, values in (
        ("input_ids", input_ids),
        ("token_type_ids", sequences.token_types()),
        ("attention_mask", np.broadcast_to(number[:, None] + 1, real.shape)),
        ("position_ids", np.broadcast_to(np.arange(real.shape[1]), real.shape)),
    ):
        batch[name] = np.zeros(count * length, np.int32)
        batch[name][place] = values[sequence, column]
        batch[name] = batch[name].reshape(count, length)
    return batch | _predictions(predictions, rows, begins, (count, slots))


def _predictions(predictions: Predictions, rows: np.ndarray, begins: np.ndarray, shape: tuple[int, int]) -> Batch:
    sequence, slot = np.nonzero(predictions.weights)
    row = rows[sequence]
    within = _count_within(row)
    kept = within < shape[1]
    sequence, slot, row, within = sequence[kept], slot[kept], row[kept], within[kept]
    batch = {
        "masked_lm_positions": np.zeros(shape, np.int32),
        "masked_lm_ids": np.zeros(shape, np.int32),
        "masked_lm_weights": np.zeros(shape, np.float32),
    }
    batch["masked_lm_positions"][row, within] = begins[sequence] + predictions.positions[sequence, slot]
    batch["masked_lm_ids"][row, within] = predictions.ids[sequence, slot]
    batch["masked_lm_weights"][row, within] = 1
    return batch


def _count_within(groups: np.ndarray) -> np.ndarray:
    """How many of the same group stand before each: groups int64, rising."""
    return np.arange(len(groups)) - np.searchsorted(groups, groups)


def per_sequence(values: np.ndarray, rows: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """One number a sequence as [rows, sequences a row], 0 where there is none."""
    result = np.zeros(shape, values.dtype)
    result[rows, _count_within(rows)] = values
    return result
