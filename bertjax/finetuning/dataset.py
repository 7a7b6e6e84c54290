"""Batches of encoded examples with little padding.

A unit is a group of rows that must share a batch: the choices of an example, the texts of a bi-encoder example, or else
a single row. Training draws units in random order and packs the units of a batch into few rows. Sorting by length would
make packing unnecessary, but batches that hold only short or only long texts train worse: 189 steps of POS tagging
reach 90.8 instead of 91.8 percent, in PyTorch as well. Units that cannot be packed take one row each, padded to one of
a few lengths to limit the number of compiled programs.
"""

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Sequence

import numpy as np

from bertjax.data import rng
from bertjax.data.batch import HostBatch
from bertjax.tasks.encoding import EncodedExample, empty_inputs, padded_inputs
from bertjax.tasks.kinds.base import TaskKind

LENGTH_MULTIPLE = 4  # tokens; padded lengths are multiples of it
_MAX_LENGTHS = 8  # padded lengths of a data set; each one is a compiled program
_TOLERANCE = 1.03  # accepted ratio of padded tokens to those with _MAX_LENGTHS lengths
_MIN_WIDTH = 64  # tokens per packed row
_MAX_BI_ENCODER_WIDTH = 512  # tokens per packed row; wider units of a bi-encoder are padded instead
_WIDTH_MULTIPLE = 8  # tokens
_PADDING_SAMPLE = 50  # batches from which the share of padding is measured


@dataclasses.dataclass(frozen=True)
class BatchLayout:
    """Properties that all batches of a task share."""

    batch: int  # units
    pad_id: int
    labels: int = 0  # number of classes
    choices: int = 1  # rows per unit
    row_multiple: int = 1  # packed batches have a multiple of this many rows, to be split over devices and accumulation


class Batches:
    """The batches of a set of rows; an incomplete batch is filled with units of weight 0."""

    def __init__(self, kind: TaskKind, rows: Sequence[EncodedExample], layout: BatchLayout):
        self.kind, self.rows, self.layout = kind, rows, layout
        batch, choices, multiple = layout.batch, layout.choices, layout.row_multiple
        lengths = np.array([len(row.input_ids) for row in rows]).reshape(-1, choices)
        self.units = len(lengths)
        self.steps = -(-self.units // batch)  # batches per epoch
        # Sorted by length; the last batch is filled up with the longest.
        by_length = np.pad(np.sort(lengths.max(axis=1)), (0, self.steps * batch - self.units), mode="edge")
        self.lengths = choose_lengths(by_length[batch - 1 :: batch])
        self._sizes = lengths.sum(axis=1)  # tokens per unit when packed
        self.width = _WIDTH_MULTIPLE * math.ceil(max(_MIN_WIDTH, self._sizes.max()) / _WIDTH_MULTIPLE)
        # Features cannot be packed. One long bi-encoder unit would widen all rows, and attention is quadratic in width.
        self.packed = rows[0].features is None and (not kind.bi_encoder or self.width <= _MAX_BI_ENCODER_WIDTH)
        mean = self._sizes.mean()
        self._slots = min(batch, math.ceil(2 * self.width / mean))
        # Row counts are rounded up to multiples of about 1/8 of the usual count, which limits the compiled programs.
        self._row_step = multiple * max(1, round(batch * mean / self.width / 8 / multiple))

    def order(self, seed: int, epoch: int) -> list[np.ndarray]:
        """Returns the units of each training batch of an epoch, in random order."""
        order = np.argsort(rng.bits(rng.key(seed, "fine-tuning", epoch), np.arange(self.units)), kind="stable")
        return np.split(order, range(self.layout.batch, self.units, self.layout.batch))

    def epoch(self, seed: int, epoch: int) -> Iterator[HostBatch]:
        """Yields the training batches of an epoch."""
        return map(self.packed_batch if self.packed else self.padded_batch, self.order(seed, epoch))

    def example(self) -> HostBatch:
        """Returns a training batch, for its shapes."""
        return next(self.epoch(0, 0))

    def digest(self) -> str:
        """Returns a digest of the ids, segments and labels of all rows, in order."""
        content = hashlib.sha256()
        for row in self.rows:
            content.update(np.array(row.input_ids, np.int32).tobytes())
            content.update(repr((row.example, row.segment_b, row.label)).encode())
        return content.hexdigest()

    def padding(self) -> float:
        """Returns the share of padding in a sample of training batches."""
        masks = [batch["attention_mask"] for batch, _ in zip(self.epoch(0, 0), range(_PADDING_SAMPLE), strict=False)]
        return 1 - sum(np.sum(mask > 0) for mask in masks) / sum(mask.size for mask in masks)

    def padded_batch(self, units: Sequence[int] | np.ndarray) -> HostBatch:
        """Returns the batch of at most `layout.batch` units with one encoded example per row."""
        rows = [self.rows[number] for number in self._row_numbers(units)]
        longest = max(len(row.input_ids) for row in rows)
        length = next(length for length in self.lengths if length >= longest)
        batch, choices = self.layout.batch, self.layout.choices
        shape = (batch * choices, length)
        targets = self.kind.empty_targets((batch,), shape, self.layout.labels)
        for unit, row in enumerate(rows[::choices]):
            if row.label is not None:
                self.kind.write_target(targets, row, unit, 0)
        return padded_inputs(rows, shape, self.layout.pad_id) | targets

    def packed_batch(self, units: Sequence[int] | np.ndarray) -> HostBatch:
        """Returns the batch of these units in packed rows, as `FinetuningModel` reads them."""
        bins = first_fit([int(self._sizes[unit]) for unit in units], self.width, self._slots)
        row_count = self._row_step * math.ceil(len(bins) / self._row_step)
        shape, choices = (row_count, self.width), self.layout.choices
        inputs, position_ids = empty_inputs(shape, self.layout.pad_id), np.zeros(shape, np.int32)
        cls_positions = np.zeros((row_count, self._slots * choices), np.int32)
        targets = self.kind.empty_targets((row_count, self._slots), shape, self.layout.labels)
        for row, members in enumerate(bins):
            begin = 0
            for slot, member in enumerate(members):
                for choice, number in enumerate(self._row_numbers([units[member]])):
                    example, sequence = self.rows[number], slot * choices + choice
                    size = len(example.input_ids)
                    example.write(inputs, row, begin, sequence + 1)
                    position_ids[row, begin : begin + size] = np.arange(size)
                    cls_positions[row, sequence] = begin
                    if choice == 0 and example.label is not None:
                        self.kind.write_target(targets, example, (row, slot), begin)
                    begin += size
        return inputs | {"position_ids": position_ids, "cls_positions": cls_positions} | targets

    def _row_numbers(self, units: Sequence[int] | np.ndarray) -> list[int]:
        choices = self.layout.choices
        return [int(unit) * choices + choice for unit in units for choice in range(choices)]


def first_fit(sizes: Sequence[int], width: int, slots: int) -> list[list[int]]:
    """Packs items of these sizes into bins of `width` and at most `slots` items: first fit, largest item first.

    Returns the indices of the items of each bin.
    """
    bins: list[list[int]] = []
    free: list[int] = []
    for number in sorted(range(len(sizes)), key=lambda number: -sizes[number]):
        fits = (i for i, room in enumerate(free) if room >= sizes[number] and len(bins[i]) < slots)
        target = next(fits, None)
        if target is None:
            bins.append([number])
            free.append(width - sizes[number])
        else:
            bins[target].append(number)
            free[target] -= sizes[number]
    return bins


def choose_lengths(longest: np.ndarray) -> tuple[int, ...]:
    """Returns the few lengths, ascending, that minimize the padding of batches with these longest rows."""
    sizes, counts = np.unique(-(-longest // LENGTH_MULTIPLE) * LENGTH_MULTIPLE, return_counts=True)
    sizes, totals = sizes.tolist(), np.cumsum(counts).tolist()
    # best[k - 1][j]: (tokens, lengths) of the batches up to size j with at most k lengths, the last of them size j.
    best: list[list[tuple[int, tuple[int, ...]]]] = [
        [(size * total, (size,)) for size, total in zip(sizes, totals, strict=True)]
    ]
    for _ in range(1, min(_MAX_LENGTHS, len(sizes))):
        longer = []
        for j, size in enumerate(sizes):
            shorter = zip(best[-1][:j], totals, strict=False)
            options = [(tokens + size * (totals[j] - total), (*lengths, size)) for (tokens, lengths), total in shorter]
            longer.append(min(options, key=lambda option: option[0], default=best[-1][j]))
        best.append(longer)
    # An additional length must save enough padding to justify another compiled program.
    return next(lengths for tokens, lengths in (row[-1] for row in best) if tokens <= _TOLERANCE * best[-1][-1][0])


def describe_padding(batches: Batches) -> str:
    """Describes the shapes and the padding of training batches, as logged at the start of a run."""
    shape = "packed into rows of" if batches.packed else "padded to"
    tokens = batches.width if batches.packed else " or ".join(map(str, batches.lengths))
    return f"{batches.steps:,} steps per epoch, {shape} {tokens} tokens, {float(batches.padding()):.2%} padding"
