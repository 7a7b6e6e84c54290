"""Packing of several sequences into each row.

Packing is decided on the histogram of the sequence lengths of an epoch: the longest first, each into the fullest row
that has room (Krell et al. 2021, arXiv:2107.02027, "shortest-pack-first histogram packing"). Examples of one length are
assigned at random. The room left in a row is then filled with one more example of exactly that size, cut from a random
place in the corpus: almost no padding remains, at the price of a few tokens that occur twice in an epoch.
"""

import collections
import dataclasses

import numpy as np

from bertjax.config.data import Sequencing
from bertjax.corpus.format import Corpus
from bertjax.data import rng
from bertjax.data.batch import BatchShape, HostBatch
from bertjax.data.masking import Predictions
from bertjax.data.sequences import Sequences
from bertjax.data.spans import EXAMPLE, cut_at, example_sizes

_MIN_FILL = 4  # minimum text tokens of an example that fills up a row
_DRAWS = 16  # attempts to draw a place from which to cut it


def pack_examples(
    corpus: Corpus, examples: np.ndarray, length: int, key: np.uint64, sequencing: Sequencing
) -> np.ndarray:
    """Returns the examples of an epoch in rows: EXAMPLE [rows, sequencing.packing]; `length_a` is 0 in unused slots.

    Args:
      corpus: the split that the examples were cut from.
      examples: EXAMPLE [examples].
      length: tokens per row, special tokens included.
      key: the key of all random draws.
      sequencing: how the examples were cut; `packing` is the maximum number of sequences per row.
    """
    sizes = example_sizes(examples, sequencing)
    order = np.argsort(rng.bits(key, np.arange(len(examples))))
    order = order[np.argsort(sizes[order], kind="stable")]  # by size, at random within a size
    counts = np.bincount(sizes, minlength=length + 1)
    cursor = np.cumsum(counts) - counts  # for each size, the index in `order` of its next example
    blocks = []
    for number, pack in packing_strategy(counts, length, sequencing.packing):
        rows = np.zeros((number, sequencing.packing), EXAMPLE)
        for slot, size in enumerate(pack):
            rows[:, slot] = examples[order[cursor[size] : cursor[size] + number]]
            cursor[size] += number
        blocks.append(rows)
    rows = np.concatenate(blocks)
    _fill(corpus, rows, length, rng.bits(key, len(examples))[0], sequencing)
    return rows


def packing_strategy(counts: np.ndarray, length: int, max_sequences: int) -> list[tuple[int, tuple[int, ...]]]:
    """Packs `counts` [length + 1] sequences of each size, at most `max_sequences` per row.

    Returns:
      (number of rows, sizes of the sequences in each of them) for every combination of sizes.
    """
    open_rows: dict[int, collections.Counter] = collections.defaultdict(collections.Counter)  # by the room left
    full: collections.Counter = collections.Counter()

    def put(room: int, pack: tuple[int, ...], number: int) -> None:
        if number:
            (full if len(pack) == max_sequences else open_rows[room])[pack] += number

    for size in np.flatnonzero(counts)[::-1].tolist():
        left = int(counts[size])
        while left:
            room = next((room for room in range(size, length) if open_rows[room]), None)
            if room is None:  # open new rows, each with as many sequences of this size as fit
                several = min(max_sequences, length // size)
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
    """Adds one more example to every row with room for it, if a long enough document is drawn."""
    wanted = length - example_sizes(rows, sequencing).sum(axis=1) - sequencing.special_tokens
    slots = np.count_nonzero(rows["length_a"], axis=1)
    pending = np.flatnonzero((wanted >= _MIN_FILL) & (slots < sequencing.packing))
    keys = rng.bits(key, np.arange(len(rows)))
    for draw in range(_DRAWS):
        token = rng.integers(rng.bits(keys[pending], draw), corpus.tokens)
        document = np.searchsorted(corpus.document_tokens, token, side="right") - 1
        begin, end = corpus.document_tokens[document], corpus.document_tokens[document + 1]
        fits = end - begin >= wanted[pending]
        filled = pending[fits]
        starts = np.minimum(token[fits], end[fits] - wanted[filled])
        rows[filled, slots[filled]] = cut_at(corpus, starts, wanted[filled], rng.bits(keys[filled], _DRAWS), sequencing)
        pending = pending[~fits]
        if not len(pending):
            break


def packed_widths(examples: np.ndarray, length: int, sequencing: Sequencing) -> np.ndarray:
    """Returns the width to which each example is padded for reading and masking: a power of two, at most `length`.

    It depends on the size of the example alone, which makes its masks independent of the rest of the row.
    """
    return np.minimum(1 << np.ceil(np.log2(example_sizes(examples, sequencing))).astype(np.int64), length)


@dataclasses.dataclass(frozen=True)
class Part:
    """Masked sequences of one width, and their indices among the sequences of the batch."""

    index: np.ndarray
    sequences: Sequences
    input_ids: np.ndarray  # int32 [sequences, width], masked
    predictions: Predictions


def join_parts(parts: list[Part], rows: np.ndarray, shape: BatchShape, pad_id: int) -> HostBatch:
    """Returns the batch with all sequences in their rows.

    Args:
      parts: all sequences of the batch.
      rows: int64 [sequences], the row of each sequence, ascending.
      shape: the shape of the batch; predictions beyond its slots are dropped.
      pad_id: the id of padding.
    """
    sizes, labels = np.zeros((2, len(rows)), np.int64)
    for part in parts:
        sizes[part.index], labels[part.index] = part.sequences.sizes, part.sequences.negative
    slot = _index_within_group(rows)
    begins = np.cumsum(sizes) - sizes
    begins -= begins[np.searchsorted(rows, rows)]  # the first sequence of each row begins at 0
    batch = shape.empty(pad_id)
    for part in parts:
        sequence, column = np.nonzero(part.sequences.attention_mask())
        index = part.index[sequence]
        target = rows[index], begins[index] + column
        batch["input_ids"][target] = part.input_ids[sequence, column]
        batch["token_type_ids"][target] = part.sequences.token_types()[sequence, column]
        batch["attention_mask"][target] = slot[index] + 1
        batch["position_ids"][target] = column
    _write_predictions(batch, parts, rows, begins)
    if shape.pairs:
        batch["cls_positions"][rows, slot] = begins
        batch[f"{shape.pairs}_labels"][rows, slot] = labels
        batch["sequence_weights"][rows, slot] = 1
    return batch


def _write_predictions(batch: HostBatch, parts: list[Part], rows: np.ndarray, begins: np.ndarray) -> None:
    """Fills `masked_lm_…` [rows, slots], with ascending positions in each row."""
    predictions = []
    for part in parts:
        sequence, slot = np.nonzero(part.predictions.weights)
        index = part.index[sequence]
        positions = begins[index] + part.predictions.positions[sequence, slot]
        predictions.append((rows[index], positions, part.predictions.ids[sequence, slot]))
    row, positions, ids = (np.concatenate(column) for column in zip(*predictions, strict=True))
    order = np.lexsort((positions, row))
    row, positions, ids = row[order], positions[order], ids[order]
    slot = _index_within_group(row)
    fits = slot < batch["masked_lm_ids"].shape[1]
    target = row[fits], slot[fits]
    batch["masked_lm_positions"][target] = positions[fits]
    batch["masked_lm_ids"][target] = ids[fits]
    batch["masked_lm_weights"][target] = 1


def _index_within_group(groups: np.ndarray) -> np.ndarray:
    """Returns the index of each element within its group; `groups` is int64, ascending."""
    return np.arange(len(groups)) - np.searchsorted(groups, groups)
