"""The random number generator: bijections, uniformity and independence."""

import numpy as np
import pytest

from bertjax.data import rng
from tests.support.statistics import assert_frequencies, assert_share, assert_uncorrelated

SIZES = [*range(1, 70), 1000, 65_536, 65_537]


@pytest.mark.parametrize("size", SIZES)
def test_permute_is_a_bijection(size):
    assert np.array_equal(np.sort(rng.permute(rng.key(0, "shuffle", size), np.arange(size), size)), np.arange(size))


def test_permute_of_a_part_is_part_of_the_whole():
    key = rng.key(3, "shuffle")
    whole = rng.permute(key, np.arange(1_000_003), 1_000_003)
    some = np.array([999_999, 0, 17, 17, 1_000_002])
    assert np.array_equal(rng.permute(key, some, 1_000_003), whole[some])


@pytest.mark.parametrize("size", [5, 12, 61])
def test_permute_sends_every_index_to_every_position_equally_often(size):
    trials = 4000
    counts = np.zeros((size, size), int)
    for seed in range(trials):
        counts[np.arange(size), rng.permute(rng.key(seed, "shuffle"), np.arange(size), size)] += 1
    # Rows and columns both sum to the trials.
    assert_frequencies(counts, np.full((size, size), trials / size), freedom=(size - 1) ** 2)


@pytest.mark.parametrize("size", [100_000, 1_000_000, 2**20])
def test_permute_spreads_neighbours_uniformly(size):
    order = rng.permute(rng.key(1, "shuffle"), np.arange(size), size)
    # The position of index i, and its distance from those of i + 1, i + 2 and i + 1024.
    _assert_joint_uniform(np.arange(size), order, size)
    for lag in (1, 2, 1024):
        assert_frequencies(*_histogram((np.roll(order, -lag) - order) % size, size))
    assert_uncorrelated(order[1:], order[:-1])
    # The number of fixed points of a random permutation is Poisson distributed with mean 1.
    assert np.sum(order == np.arange(size)) < 10


def test_shuffles_of_seeds_streams_and_epochs_are_independent():
    size = 200_000
    keys = [rng.key(0, "phase 0", 0), rng.key(1, "phase 0", 0), rng.key(256, "phase 0", 0)]
    keys += [rng.key(0, "phase 0", 1), rng.key(0, "phase 1", 0)]
    orders = [rng.permute(key, np.arange(size), size) for key in keys]
    for i, a in enumerate(orders):
        for b in orders[:i]:
            assert_uncorrelated(a, b)
            _assert_joint_uniform(a, b, size)
            assert_frequencies(*_histogram((a - b) % size, size))


def test_every_bit_is_fair_and_independent_of_its_neighbours():
    rows = rng.bits(rng.key(0, "masks"), np.arange(1000))
    draws = rng.bits(rows[:, None], np.arange(200))
    bits = np.unpackbits(draws[..., None].view(np.uint8), axis=-1)
    for bit in range(64):
        assert_share(int(bits[..., bit].sum()), draws.size, 0.5)
    # Half of the bits differ between neighboring rows and between neighboring columns.
    assert_share(int((bits[1:] != bits[:-1]).sum()), bits[1:].size, 0.5)
    assert_share(int((bits[:, 1:] != bits[:, :-1]).sum()), bits[:, 1:].size, 0.5)


def test_integers_are_uniform():
    draws = rng.integers(rng.bits(rng.key(0, "test"), np.arange(10**6)), 997)
    assert_frequencies(*_histogram(draws, 997, bins=997))


def _histogram(values: np.ndarray, size: int, bins: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Counts of integers in [0, size) per bin, and their expectation."""
    bin_sizes = np.bincount(np.arange(size) * bins // size, minlength=bins)
    return np.bincount(values * bins // size, minlength=bins), bin_sizes * len(values) / size


def _assert_joint_uniform(a: np.ndarray, b: np.ndarray, size: int, bins: int = 30) -> None:
    """Asserts that two permutations fill a table of pairs evenly (they fill its rows and columns exactly)."""
    bin_sizes = np.bincount(np.arange(size) * bins // size, minlength=bins)
    counts = np.bincount(a * bins // size * bins + b * bins // size, minlength=bins**2)
    assert_frequencies(counts, np.outer(bin_sizes, bin_sizes) / size, freedom=(bins - 1) ** 2)
