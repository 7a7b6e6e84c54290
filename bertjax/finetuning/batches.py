"""From rows to batches of a few lengths with little padding.

A unit is what must stay together: the rows of an example of choices, else one row. Batches are made of units of about
the same length, so that little is padding, and padded up to one of a few lengths, so that little is compiled.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bertjax.data import rng
from bertjax.finetuning.inputs import Row
from bertjax.text.tokenizers import Tokenizer

_LENGTHS = 8  # compiled programs of a step
_MULTIPLE = 4  # of tokens
_WORTH = 1.03  # times the padded tokens of the most lengths are as good
_POOL = 50  # batches that are sorted by length together; the order of training stays random beyond


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
    ):
        """`choices`: rows a unit; `labels`: number of classes; `features`: of each row, in place of its ids.

        They are [layers, hidden], or one such for each token.
        """
        self.kind, self.rows, self.batch, self.choices, self._features = kind, rows, batch, choices, features
        self._pad, self._labels = tokenizer.pad_id, labels
        lengths = np.array([len(row.input_ids) for row in rows])
        self._unit_lengths = lengths.reshape(-1, choices).max(axis=1)
        self.lengths = chosen_lengths(_in_batches(np.sort(self._unit_lengths), batch).max(axis=1))

    @property
    def units(self) -> int:
        """How many units there are."""
        return len(self._unit_lengths)

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return -(-self.units // self.batch)

    def epoch(self, seed: int, epoch: int) -> Iterator[dict[str, np.ndarray]]:
        """An epoch's batches for training, in an order of its own."""
        key = rng.key(seed, "fine-tuning", epoch)
        order = np.argsort(rng.bits(key, np.arange(self.units)), kind="stable")
        pools = [order[at : at + _POOL * self.batch] for at in range(0, self.units, _POOL * self.batch)]
        order = np.concatenate([pool[np.argsort(self._unit_lengths[pool], kind="stable")] for pool in pools])
        for number in np.argsort(rng.bits(key, self.units + np.arange(self.steps)), kind="stable"):
            yield self.batch_of(order[number * self.batch : (number + 1) * self.batch])

    def sorted(self) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """(numbers of the units, their batch), every unit once, by length: for predictions."""
        order = np.argsort(self._unit_lengths, kind="stable")
        for at in range(0, self.units, self.batch):
            chosen = order[at : at + self.batch]
            yield chosen, self.batch_of(chosen)

    def example(self) -> dict[str, np.ndarray]:
        """Some batch, for its shapes."""
        return self.batch_of(np.arange(min(self.batch, self.units)))

    def padding(self) -> float:
        """The share of padding in the batches that are sorted by length."""
        sizes = [batch["attention_mask"] for _, batch in self.sorted()]
        return 1 - sum(map(np.sum, sizes)) / sum(mask.size for mask in sizes)

    def batch_of(self, units: Sequence[int]) -> dict[str, np.ndarray]:
        """The batch of these units, `batch` at most."""
        numbers = [unit * self.choices + choice for unit in units for choice in range(self.choices)]
        rows = [self.rows[number] for number in numbers]
        longest = max(len(row.input_ids) for row in rows)
        length = next(length for length in self.lengths if length >= longest)
        shape = (self.batch * self.choices, length)
        ids, types, mask = np.full(shape, self._pad, np.int32), np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        mask[:, 0] = 1  # a row of padding still attends to something
        for place, row in enumerate(rows):
            size = len(row.input_ids)
            ids[place, :size] = row.input_ids
            types[place, row.second : size] = 1
            mask[place, :size] = 1
        labels, weights = self._targets(rows, length)
        inputs = {"input_ids": ids, "token_type_ids": types}
        if self._features is not None:
            inputs = {"features": self._padded([self._features[number] for number in numbers], shape)}
        return inputs | {"attention_mask": mask, "labels": labels, "weights": weights}

    def _padded(self, features: Sequence[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
        """Features of rows as one array, f32 [rows, layers, hidden] or [rows, length, layers, hidden]."""
        padded = np.zeros((*shape[: features[0].ndim - 1], *features[0].shape[-2:]), np.float32)
        for place, one in enumerate(features):
            padded[(place, *map(slice, one.shape))] = one
        return padded

    def _targets(self, rows: Sequence[Row], length: int) -> tuple[np.ndarray, np.ndarray]:
        """(labels, weights) as objectives/finetuning.py describes them; what is not labelled weighs 0."""
        count = self.batch * self.choices
        if self.kind == "tagging":
            labels, weights = np.zeros((count, length), np.int32), np.zeros((count, length), np.float32)
            for place, row in enumerate(rows):
                if row.label is not None:
                    labels[place, list(row.places)] = row.label
                    weights[place, list(row.places)] = 1
            return labels, weights
        units = rows[:: self.choices]
        columns = {"multi_label": (self._labels,), "span": (2,)}.get(self.kind, ())
        labels = np.zeros((self.batch, *columns), np.float32 if self.kind == "regression" else np.int32)
        weights = np.zeros(self.batch, np.float32)
        for place, row in enumerate(units):
            if row.label is not None:
                labels[place] = row.label
                weights[place] = 1
        return labels, weights


def chosen_lengths(longest: np.ndarray) -> tuple[int, ...]:
    """The few lengths, rising, to which batches whose longest rows are `longest` are padded with the least padding."""
    sizes, counts = np.unique(-(-longest // _MULTIPLE) * _MULTIPLE, return_counts=True)
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
        "lengths": list(batches.lengths),
        "padding": round(float(batches.padding()), 4),
    }
