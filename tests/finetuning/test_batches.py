"""Batches of fine-tuning: everything once an epoch, few lengths, little padding."""

import itertools

import numpy as np
import pytest

from bertjax.finetuning.batches import Batches, chosen_lengths
from bertjax.finetuning.inputs import Row


class Tokenizer:
    pad_id = 0


def some_rows(count: int, seed: int = 0, **fields) -> list[Row]:
    lengths = np.random.default_rng(seed).integers(3, 60, count)
    return [Row(i, [i + 1] * int(n), int(n), label=i % 5, **fields) for i, n in enumerate(lengths)]


def test_an_epoch_has_everything_once_and_is_a_function_of_the_seed():
    batches = Batches("classification", some_rows(203), Tokenizer(), batch=8, choices=1, labels=5)
    epochs = {key: list(batches.epoch(*key)) for key in ((0, 1), (0, 2), (1, 1))}
    for epoch in epochs.values():
        assert len(epoch) == batches.steps == 26
        seen = np.concatenate([batch["input_ids"][batch["weights"] > 0, 0] for batch in epoch])
        assert sorted(seen) == list(range(1, 204))
        for batch in epoch:
            assert batch["input_ids"].shape[0] == 8 and batch["input_ids"].shape[1] in batches.lengths
            real = batch["weights"] > 0
            assert np.array_equal(batch["labels"][real], (batch["input_ids"][real, 0] - 1) % 5)
            assert np.array_equal(batch["attention_mask"][real].astype(bool), batch["input_ids"][real] > 0)
            assert batch["attention_mask"].any(axis=1).all()
    again = list(batches.epoch(0, 1))
    assert all(np.array_equal(a["input_ids"], b["input_ids"]) for a, b in zip(epochs[0, 1], again, strict=True))
    for other in ((0, 2), (1, 1)):
        assert [b["input_ids"].sum() for b in epochs[other]] != [b["input_ids"].sum() for b in epochs[0, 1]]


def test_little_is_padding_and_predictions_come_back_in_place():
    batches = Batches("classification", some_rows(500), Tokenizer(), batch=8, choices=1, labels=5)
    assert len(batches.lengths) <= 8 and batches.padding() < 0.15
    units = np.concatenate([units for units, _ in batches.sorted()])
    assert sorted(units) == list(range(500))


def test_the_choices_of_an_example_stay_together():
    made = [Row(i // 3, [i + 1] * (4 + i % 7), 2, label=i // 3 % 3) for i in range(60)]
    for batch in Batches("choice", made, Tokenizer(), batch=4, choices=3, labels=0).epoch(0, 1):
        assert batch["input_ids"].shape[0] == 12 and batch["labels"].shape == (4,)
        first = batch["input_ids"][:, 0].reshape(4, 3) - 1
        assert np.array_equal(first, first[:, :1] + np.arange(3))
        assert np.array_equal(batch["labels"], first[:, 0] // 3 % 3)


def test_only_what_is_labelled_weighs():
    made = [Row(0, [1] * 6, 6, (3, 4), places=(1, 3)), Row(1, [1] * 5, 5, None, places=(1,))]
    batch = Batches("tagging", made, Tokenizer(), batch=4, choices=1, labels=5).example()
    assert batch["weights"].sum() == 2
    assert batch["labels"][batch["weights"] > 0].tolist() == [3, 4]


@pytest.mark.parametrize("seed", range(5))
def test_the_lengths_are_the_best_of_so_few(seed):
    longest = np.random.default_rng(seed).integers(4, 60, 40)
    sizes = np.unique(-(-longest // 4) * 4)

    def tokens(lengths):
        return sum(min(length for length in lengths if length >= size) for size in longest)

    found = chosen_lengths(longest)
    best = {
        count: min(tokens((*chosen, sizes[-1])) for chosen in itertools.combinations(sizes[:-1], count - 1))
        for count in range(1, 9)
    }
    assert tokens(found) == best[len(found)] <= 1.03 * best[8]
    assert len(found) == 1 or best[len(found) - 1] > 1.03 * best[8]
