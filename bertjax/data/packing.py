"""Several sequences a row: which examples share one, and the batch that comes of it.

Which lengths go together is decided for the histogram of an epoch's lengths, the longest first and each where it leaves
the least room (Krell et al. 2021, arXiv:2107.02027, "shortest-pack-first histogram packing"); which examples of a
length these are, by chance. What room is left in a row then gets one more example of exactly that size, cut from
anywhere in the corpus: so nearly nothing is padding, for a few tokens that come twice in an epoch.
"""

import collections
import dataclasses

import numpy as np

from bertjax.config.data import Sequencing
from bertjax.corpus.format import Corpus
from bertjax.data import rng
from bertjax.data.batch import Batch, BatchShape
from bertjax.data.masking import Predictions
from bertjax.data.sequences import Sequences
from bertjax.data.spans import EXAMPLE, cut, example_sizes

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
    sizes = example_sizes(examples, sequencing)
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
    wanted = length - example_sizes(rows, sequencing).sum(axis=1) - sequencing.special_tokens
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


def widths(examples: np.ndarray, length: int, sequencing: Sequencing) -> np.ndarray:
    """The length to which each example is padded while it is read and masked: a power of two, at most `length`.

    Its own size alone decides, so that its masks do not depend on what stands beside it.
    """
    return np.minimum(1 << np.ceil(np.log2(example_sizes(examples, sequencing))).astype(np.int64), length)


@dataclasses.dataclass(frozen=True)
class Part:
    """Masked sequences of one width, and their places among all of the batch."""

    places: np.ndarray
    sequences: Sequences
    input_ids: np.ndarray  # int32 [sequences, width], masked
    predictions: Predictions


def joined(parts: list[Part], rows: np.ndarray, shape: BatchShape, pad_id: int) -> Batch:
    """The batch of all sequences in their rows.

    Args:
      parts: together all sequences of the batch.
      rows: int64 [sequences], the row of each, rising.
      shape: of the batch; what is beyond its prediction slots is not predicted.
      pad_id: fills the rest.
    """
    sizes, labels = np.zeros((2, len(rows)), np.int64)
    for part in parts:
        sizes[part.places], labels[part.places] = part.sequences.sizes, part.sequences.negative
    number = _count_within(rows)
    begins = np.cumsum(sizes) - sizes
    begins -= begins[np.searchsorted(rows, rows)]  # the first of each row stands at 0
    batch = shape.empty(pad_id)
    for part in parts:
        sequence, column = np.nonzero(part.sequences.attention_mask())
        own = part.places[sequence]
        place = rows[own], begins[own] + column
        batch["input_ids"][place] = part.input_ids[sequence, column]
        batch["token_type_ids"][place] = part.sequences.token_types()[sequence, column]
        batch["attention_mask"][place] = number[own] + 1
        batch["position_ids"][place] = column
    _write_predictions(batch, parts, rows, begins)
    if shape.pairs:
        batch["cls_positions"][rows, number] = begins
        batch[f"{shape.pairs}_labels"][rows, number] = labels
        batch["sequence_weights"][rows, number] = 1
    return batch


def _write_predictions(batch: Batch, parts: list[Part], rows: np.ndarray, begins: np.ndarray) -> None:
    """Fills `masked_lm_…` [rows, slots], the positions of a row rising."""
    found = []
    for part in parts:
        sequence, slot = np.nonzero(part.predictions.weights)
        own = part.places[sequence]
        positions = begins[own] + part.predictions.positions[sequence, slot]
        found.append((rows[own], positions, part.predictions.ids[sequence, slot]))
    row, positions, ids = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.lexsort((positions, row))
    row, positions, ids = row[order], positions[order], ids[order]
    within = _count_within(row)
    kept = within < batch["masked_lm_ids"].shape[1]
    place = row[kept], within[kept]
    batch["masked_lm_positions"][place] = positions[kept]
    batch["masked_lm_ids"][place] = ids[kept]
    batch["masked_lm_weights"][place] = 1


def _count_within(groups: np.ndarray) -> np.ndarray:
    """How many of the same group stand before each: groups int64, rising."""
    return np.arange(len(groups)) - np.searchsorted(groups, groups)
