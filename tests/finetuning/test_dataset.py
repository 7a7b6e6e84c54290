"""Batches of fine-tuning: every unit once per epoch, few shapes, little padding."""

import itertools

import numpy as np
import pytest

from bertjax.finetuning.dataset import Batches, BatchLayout, choose_lengths, first_fit
from bertjax.tasks.encoding import EncodedExample
from bertjax.tasks.kinds.catalog import kind_named


def random_rows(count: int, seed: int = 0, **fields) -> list[EncodedExample]:
    lengths = np.random.default_rng(seed).integers(3, 60, count)
    return [EncodedExample(i, [i + 1] * int(n), int(n), label=i % 5, **fields) for i, n in enumerate(lengths)]


def make_batches(
    kind: str, rows: list[EncodedExample], batch: int = 8, choices: int = 1, labels: int = 5, **more
) -> Batches:
    return Batches(kind_named(kind), rows, BatchLayout(batch, 0, labels, choices, **more))


def test_an_epoch_contains_every_unit_once_and_depends_only_on_the_seed():
    batches = make_batches("classification", random_rows(203))
    epochs = {key: list(batches.epoch(*key)) for key in ((0, 1), (0, 2), (1, 1))}
    for key, epoch in epochs.items():
        assert len(epoch) == batches.steps == 26
        assert sorted(np.concatenate(batches.order(*key))) == list(range(203))
        seen = np.concatenate([np.unique(batch["input_ids"][batch["attention_mask"] > 0]) for batch in epoch])
        assert sorted(seen) == list(range(1, 204))
        assert sum(batch["weights"].sum() for batch in epoch) == 203
    again = list(batches.epoch(0, 1))
    assert all(np.array_equal(a["input_ids"], b["input_ids"]) for a, b in zip(epochs[0, 1], again, strict=True))
    for other in ((0, 2), (1, 1)):
        assert [b["input_ids"].sum() for b in epochs[other]] != [b["input_ids"].sum() for b in epochs[0, 1]]


def test_batches_are_not_sorted_by_length():
    """Sorted batches train worse."""
    batches = make_batches("classification", random_rows(800))
    means = [np.mean([len(batches.rows[unit].input_ids) for unit in units]) for units in batches.order(0, 1)]
    assert np.std(means) == pytest.approx(
        57 / 12**0.5 / 8**0.5, rel=0.3
    )  # deviation of the mean of 8 lengths from 3 to 59


def test_packed_units_keep_their_tokens_labels_and_sequence_numbers():
    batches = make_batches("classification", random_rows(203))
    for units in batches.order(0, 1):
        batch = batches.packed_batch(units)
        labelled = dict.fromkeys(units, 0)
        for row, slot in np.argwhere(batch["weights"] > 0):
            mask = batch["attention_mask"][row] == slot + 1
            unit = batch["input_ids"][row, mask][0] - 1
            assert batch["input_ids"][row, mask].tolist() == batches.rows[unit].input_ids
            assert batch["position_ids"][row, mask].tolist() == list(range(mask.sum()))
            assert batch["cls_positions"][row, slot] == np.argmax(mask)
            assert batch["labels"][row, slot] == unit % 5
            labelled[unit] += 1
        assert set(labelled.values()) == {1}


@pytest.mark.parametrize("multiple", [1, 4])
def test_packed_batches_have_a_few_shapes_and_little_padding(multiple):
    batches = make_batches("classification", random_rows(2000), batch=32, row_multiple=multiple)
    shapes = {batch["input_ids"].shape for seed in range(3) for batch in batches.epoch(seed, 1)}
    assert len(shapes) <= 8 and all(rows % multiple == 0 for rows, _ in shapes)
    assert batches.padding() < (0.15 if multiple == 1 else 0.2)


@pytest.mark.parametrize("seed", range(3))
def test_first_fit_fills_bins_within_their_limits(seed):
    sizes = np.random.default_rng(seed).integers(3, 60, 40).tolist()
    bins = first_fit(sizes, width=64, slots=4)
    assert sorted(itertools.chain(*bins)) == list(range(40))
    assert all(len(items) <= 4 and sum(sizes[i] for i in items) <= 64 for items in bins)
    assert len(bins) <= 1.25 * sum(sizes) / 64


def test_the_choices_of_an_example_stay_together():
    rows = [EncodedExample(i // 3, [i + 1] * (4 + i % 7), 2, label=i // 3 % 3) for i in range(60)]
    batches = make_batches("choice", rows, batch=4, choices=3, labels=0)
    for units in batches.order(0, 1):
        batch = batches.packed_batch(units)
        for row, slot in np.argwhere(batch["weights"] > 0):
            first = batch["input_ids"][row, batch["cls_positions"][row, 3 * slot : 3 * slot + 3]] - 1
            assert np.array_equal(first, first[0] + np.arange(3)) and first[0] % 3 == 0
            assert batch["labels"][row, slot] == first[0] // 3 % 3
        assert (batch["weights"] > 0).sum() == len(units)


def test_only_labelled_tokens_have_weight():
    rows = [
        EncodedExample(0, [1] * 6, 6, (3, 4), token_positions=(1, 3)),
        EncodedExample(1, [1] * 5, 5, None, token_positions=(1,)),
    ]
    batch = make_batches("tagging", rows, batch=4).example()
    assert batch["weights"].sum() == 2
    assert batch["labels"][batch["weights"] > 0].tolist() == [3, 4]


@pytest.mark.parametrize("seed", range(5))
def test_choose_lengths_minimize_padding(seed):
    longest = np.random.default_rng(seed).integers(4, 60, 40)
    sizes = np.unique(-(-longest // 4) * 4)

    def tokens(lengths):
        return sum(min(length for length in lengths if length >= size) for size in longest)

    lengths = choose_lengths(longest)
    best = {
        count: min(tokens((*shorter, sizes[-1])) for shorter in itertools.combinations(sizes[:-1], count - 1))
        for count in range(1, 9)
    }
    assert tokens(lengths) == best[len(lengths)] <= 1.03 * best[8]
    assert len(lengths) == 1 or best[len(lengths) - 1] > 1.03 * best[8]
