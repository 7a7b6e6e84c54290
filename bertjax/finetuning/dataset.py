"""From rows to batches with little padding.

A unit is what must stay together: the rows of an example of choices or of texts that are read apart, else one row.
Training takes units in a random order and packs those of a batch into few rows. Sorted by length they would need no
packing, but batches of which some hold short texts and some hold long ones train worse: 189 steps of POS tagging end at
90.8 instead of 91.8 per cent, in PyTorch as well. For predictions the order does not matter; there units of about the
same length make a batch, a row each, padded up to one of a few lengths, so that little is compiled.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bertjax.data import rng
from bertjax.tasks.examples import APART
from bertjax.tasks.inputs import Row, empty_inputs
from bertjax.text.tokenizer import Tokenizer

_LENGTHS = 8  # compiled programs of a prediction
MULTIPLE = 4  # of tokens
_WORTH = 1.03  # times the padded tokens of the most lengths are as good
_NARROWEST = 64  # tokens of a row into which units are packed
_WIDEST = 512  # where they are texts that are read apart
_WIDTH_MULTIPLE = 8  # of its tokens
_LOOKED_AT = 50  # batches, to tell of the padding


class Batches:
    """The batches of one set of rows, each `batch` units; what is missing at the end is filled up with weight 0."""

    def __init__(
        self,
        kind: str,
        rows: Sequence[Row],
        tokenizer: Tokenizer,
        batch: int,
        choices: int,
        labels: int,
        features: Sequence[np.ndarray] | None = None,
        multiple: int = 1,
    ):
        """`choices`: rows a unit; `labels`: number of classes; `features`: of each row, in place of its ids.

        They are [layers, hidden], or one such for each token. Packed batches have a `multiple` of rows.
        """
        self.kind, self.rows, self.batch, self.choices, self._features = kind, rows, batch, choices, features
        self._pad, self._labels = tokenizer.pad_id, labels
        lengths = np.array([len(row.input_ids) for row in rows]).reshape(-1, choices)
        self._unit_lengths = lengths.max(axis=1)
        self.lengths = chosen_lengths(_in_batches(np.sort(self._unit_lengths), batch).max(axis=1))
        self._sizes = lengths.sum(axis=1)  # of units in packed rows
        self.width = _WIDTH_MULTIPLE * math.ceil(max(_NARROWEST, self._sizes.max()) / _WIDTH_MULTIPLE)
        # Features are no ids. One long example of several whole texts would make all rows wide; attention is quadratic.
        self.packed = features is None and (kind not in APART or self.width <= _WIDEST)
        mean = self._sizes.mean()
        self._slots = min(batch, math.ceil(2 * self.width / mean))
        # A few numbers of rows, and so of programs, that are an eighth of the usual one apart.
        self._row_step = multiple * max(1, round(batch * mean / self.width / 8 / multiple))

    @property
    def units(self) -> int:
        """How many units there are."""
        return len(self._unit_lengths)

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return -(-self.units // self.batch)

    def order(self, seed: int, epoch: int) -> list[np.ndarray]:
        """The units of each of an epoch's batches for training, in an order of its own."""
        order = np.argsort(rng.bits(rng.key(seed, "fine-tuning", epoch), np.arange(self.units)), kind="stable")
        return [order[at : at + self.batch] for at in range(0, self.units, self.batch)]

    def epoch(self, seed: int, epoch: int) -> Iterator[dict[str, np.ndarray]]:
        """An epoch's batches for training."""
        return map(self.together if self.packed else self.apart, self.order(seed, epoch))

    def sorted(self) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """(numbers of the units, their batch), every unit once, by length: for predictions."""
        order = np.argsort(self._unit_lengths, kind="stable")
        for at in range(0, self.units, self.batch):
            chosen = order[at : at + self.batch]
            yield chosen, self.apart(chosen)

    def example(self) -> dict[str, np.ndarray]:
        """Some batch for training, for its shapes."""
        return next(self.epoch(0, 0))

    def digest(self) -> str:
        """Differs where rows do, in their ids, labels or order."""
        content = hashlib.sha256()
        for row in self.rows:
            content.update(np.array(row.input_ids, np.int32).tobytes())
            content.update(repr((row.example, row.second, row.label)).encode())
        return content.hexdigest()

    def padding(self) -> float:
        """The share of padding in some of the batches for training."""
        masks = [batch["attention_mask"] for batch, _ in zip(self.epoch(0, 0), range(_LOOKED_AT), strict=False)]
        return 1 - sum(np.sum(mask > 0) for mask in masks) / sum(mask.size for mask in masks)

    def apart(self, units: Sequence[int]) -> dict[str, np.ndarray]:
        """The batch of these units, at most `batch`, a row for each of theirs."""
        numbers = self._numbers(units)
        rows = [self.rows[number] for number in numbers]
        longest = max(len(row.input_ids) for row in rows)
        length = next(length for length in self.lengths if length >= longest)
        shape = (self.batch * self.choices, length)
        inputs = empty_inputs(shape, self._pad)
        inputs["attention_mask"][:, 0] = 1  # a row of padding still attends to something
        for place, row in enumerate(rows):
            row.write(inputs, place)
        targets = self._empty_targets((self.batch,), shape)
        for place, row in enumerate(rows[:: self.choices]):
            self._aim(targets, row, place, 0)
        if self._features is not None:
            features = self._padded([self._features[number] for number in numbers], shape)
            inputs = {"features": features, "attention_mask": inputs["attention_mask"]}
        return inputs | targets

    def together(self, units: Sequence[int]) -> dict[str, np.ndarray]:
        """The batch of these units, packed into rows as `FinetuningModel` reads them."""
        bins = first_fit([int(self._sizes[unit]) for unit in units], self.width, self._slots)
        count = self._row_step * math.ceil(len(bins) / self._row_step)
        shape = (count, self.width)
        inputs, positions = empty_inputs(shape, self._pad), np.zeros(shape, np.int32)
        begins = np.zeros((count, self._slots * self.choices), np.int32)
        targets = self._empty_targets((count, self._slots), shape)
        for line, members in enumerate(bins):
            at = 0
            for slot, member in enumerate(members):
                for choice, number in enumerate(self._numbers([units[member]])):
                    row, place = self.rows[number], slot * self.choices + choice
                    size = len(row.input_ids)
                    row.write(inputs, line, at, place + 1)
                    positions[line, at : at + size] = np.arange(size)
                    begins[line, place] = at
                    if choice == 0:
                        self._aim(targets, row, (line, slot), at)
                    at += size
        return inputs | {"position_ids": positions, "cls_positions": begins} | targets

    def _numbers(self, units: Sequence[int]) -> list[int]:
        return [int(unit) * self.choices + choice for unit in units for choice in range(self.choices)]

    def _empty_targets(self, units: tuple[int, ...], tokens: tuple[int, ...]) -> dict[str, np.ndarray]:
        """`labels` and `weights` as objectives/finetuning.py describes them; what is not labelled weighs 0."""
        shape = tokens if self.kind == "tagging" else units
        columns = {"multi_label": (self._labels,), "span": (2,)}.get(self.kind, ())
        dtype = np.float32 if self.kind in ("regression", "similarity") else np.int32
        return {"labels": np.zeros((*shape, *columns), dtype), "weights": np.zeros(shape, np.float32)}

    def _aim(self, targets: dict[str, np.ndarray], row: Row, unit: Any, begin: int) -> None:
        """Writes a row's label where its unit stands; its tokens begin at `begin`."""
        if row.label is None:
            return
        line = unit[0] if isinstance(unit, tuple) else unit
        place = (line, [begin + at for at in row.places]) if self.kind == "tagging" else unit
        # What answers is told by its places in the whole row.
        targets["labels"][place] = np.add(row.label, begin) if self.kind == "span" else row.label
        targets["weights"][place] = 1

    def _padded(self, features: Sequence[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
        """Features of rows as one array, f32 [rows, layers, hidden] or [rows, length, layers, hidden]."""
        padded = np.zeros((*shape[: features[0].ndim - 1], *features[0].shape[-2:]), np.float32)
        for place, one in enumerate(features):
            padded[(place, *map(slice, one.shape))] = one
        return padded


def first_fit(sizes: Sequence[int], width: int, slots: int) -> list[list[int]]:
    """Which of `sizes` go into which bin of `width`, at most `slots` each: first fit, the largest first."""
    bins: list[list[int]] = []
    left: list[int] = []
    for number in sorted(range(len(sizes)), key=lambda number: -sizes[number]):
        fits = (i for i, room in enumerate(left) if room >= sizes[number] and len(bins[i]) < slots)
        chosen = next(fits, None)
        if chosen is None:
            bins.append([number])
            left.append(width - sizes[number])
        else:
            bins[chosen].append(number)
            left[chosen] -= sizes[number]
    return bins


def chosen_lengths(longest: np.ndarray) -> tuple[int, ...]:
    """The few lengths, rising, to which batches whose longest rows are `longest` are padded with the least padding."""
    sizes, counts = np.unique(-(-longest // MULTIPLE) * MULTIPLE, return_counts=True)
    total = np.concatenate([[0], np.cumsum(counts)])
    # cost[k][j]: tokens of the batches up to size j in k lengths, of which the last one is size j.
    cost = [[int(size * total[j + 1]) for j, size in enumerate(sizes)]]
    last: list[list[int]] = [[-1] * len(sizes)]
    for _ in range(1, min(_LENGTHS, len(sizes))):
        options = [
            [cost[-1][i] + int(sizes[j] * (total[j + 1] - total[i + 1])) for i in range(j)] or [cost[-1][j]]
            for j in range(len(sizes))
        ]
        last.append([int(np.argmin(row)) if j else -1 for j, row in enumerate(options)])
        cost.append([min(row) for row in options])
    # One more length has to save something worth a program.
    best = next(k for k in range(len(cost)) if cost[k][-1] <= _WORTH * cost[-1][-1])
    chosen, at = [], len(sizes) - 1
    while at >= 0 and best >= 0:
        chosen.append(int(sizes[at]))
        at, best = last[best][at], best - 1
    return tuple(reversed(chosen))


def _in_batches(lengths: np.ndarray, batch: int) -> np.ndarray:
    """[steps, batch], the last one filled up with the longest."""
    missing = -len(lengths) % batch
    return np.pad(lengths, (0, missing), mode="edge").reshape(-1, batch)


def describe(batches: Batches) -> dict[str, Any]:
    """What a user may want to know of the input."""
    return {
        "rows": len(batches.rows),
        "steps an epoch": batches.steps,
        "tokens a row": batches.width if batches.packed else list(batches.lengths),
        "padding": round(float(batches.padding()), 4),
    }
