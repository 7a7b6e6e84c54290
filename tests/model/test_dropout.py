"""Dropout has an exact rate, and its masks depend only on key, site and element."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.model.dropout import Dropout, keep_mask, threefry_2x32

THRESHOLD = 6554  # of 65536: a rate of 0.1


def keys(count: int, seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), count)


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [
        # Known answers of Random123, the authors' implementation.
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_the_generator_is_threefry(key, counter, expected):
    a, b = threefry_2x32(tuple(map(jnp.uint32, key)), tuple(map(jnp.uint32, counter)))
    assert (int(a), int(b)) == expected


def test_the_rate_is_exact_and_preserves_the_mean():
    x = jnp.ones((64, 128, 200))
    y = np.asarray(Dropout(0.1, keys(64), 3)(x))
    dropped = np.mean(y == 0)
    rate = THRESHOLD / 65536
    assert abs(dropped - rate) < 5 * np.sqrt(rate * (1 - rate) / y.size)
    assert set(np.unique(y)) == {0, np.float32(1 / (1 - rate))}


def test_the_rate_is_equal_along_every_axis():
    dropped = ~np.asarray(keep_mask(keys(128), 1, (64, 33), THRESHOLD))
    rate = THRESHOLD / 65536
    for axes in ((1, 2), (0, 2), (0, 1)):
        share = dropped.mean(axes)
        count = dropped.size / share.size
        assert np.all(np.abs(share - rate) < 5 * np.sqrt(rate * (1 - rate) / count))


def test_masks_of_rows_sites_and_neighbours_are_independent():
    n = 200
    masks = np.stack([keep_mask(keys(4), site, (n, 2 * n), THRESHOLD) for site in range(4)]).astype(float)
    streams = masks.reshape(16, -1)
    streams = np.concatenate([streams, np.roll(streams[:1], 1, axis=1), np.roll(streams[:1], n // 2, axis=1)])
    correlation = np.corrcoef(streams) - np.eye(len(streams))
    assert np.max(np.abs(correlation)) < 5 / np.sqrt(streams.shape[1])


def test_a_row_keeps_its_mask_in_any_batch():
    whole = keep_mask(keys(8), 5, (16, 20), THRESHOLD)
    assert np.array_equal(whole[2:5], keep_mask(keys(8)[2:5], 5, (16, 20), THRESHOLD))
    traced = jax.jit(lambda keys, site: keep_mask(keys, site, (16, 20), THRESHOLD))(keys(8), jnp.uint32(5))
    assert np.array_equal(whole, traced)
    assert not np.array_equal(whole, keep_mask(keys(8, seed=1), 5, (16, 20), THRESHOLD))


def test_nothing_is_dropped_without_keys_or_rate():
    x = jnp.arange(12.0).reshape(3, 4)
    assert Dropout(0.1, None, 0)(x) is x
    assert Dropout(0.0, keys(3), 0)(x) is x


def test_keys_of_another_generator_are_refused():
    with pytest.raises(TypeError, match="threefry"):
        Dropout(0.1, jax.random.split(jax.random.key(0, impl="rbg"), 2), 0)(jnp.ones((2, 3)))
