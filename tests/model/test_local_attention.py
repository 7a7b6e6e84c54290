"""Local attention in blocks: the numbers of the plain path with a window, at a cost that is linear in the length."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.model.attention import local_attention, plain_attention
from bertjax.model.dropout import Dropout
from bertjax.model.fused_attention import AttentionMask

BATCH, HEADS, HEAD_SIZE, WINDOW = 3, 2, 6, 5
LENGTHS = [40, 47, 33, 7, 1]  # blocks are of 10


def inputs(length: int) -> list[jax.Array]:
    """Queries, keys, values and the gradient of the contexts."""
    shape = (4, BATCH, length, HEADS, HEAD_SIZE)
    return list(np.random.default_rng(0).normal(size=shape).astype(np.float32))


def segments(kind: str, length: int) -> np.ndarray:
    columns = np.arange(length)[None].repeat(BATCH, 0)
    if kind == "padded":  # one row of nothing but padding, one whose padding is further than a window from all words
        return (columns < np.array([[length], [length // 3], [0]])).astype(np.int32)
    ends = [length // 3, length // 3 + 2, length - 3]
    numbers = np.searchsorted(ends, columns, side="right")
    return np.where(numbers < 3, numbers + 1, 0).astype(np.int32)


def with_window(query, key, value, segments, window=WINDOW):
    columns = np.arange(query.shape[1])
    near = np.abs(columns[:, None] - columns) <= window
    return plain_attention(query, key, value, AttentionMask(segments, segments, near[None]))


@pytest.mark.parametrize("kind", ["padded", "packed"])
@pytest.mark.parametrize("length", LENGTHS)
def test_blocks_give_the_numbers_of_the_plain_path(length, kind):
    *operands, gradient = inputs(length)
    numbers = segments(kind, length)

    def run(attend):
        def weighted(*operands):
            contexts = attend(*operands, numbers)
            return jnp.sum(contexts * gradient), contexts

        (_, contexts), gradients = jax.value_and_grad(weighted, argnums=(0, 1, 2), has_aux=True)(*operands)
        return contexts, *gradients

    expected = run(with_window)
    found = run(lambda query, key, value, numbers: local_attention(query, key, value, numbers, WINDOW))
    for mine, plain in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, plain, rtol=0, atol=2e-6)


def test_a_token_sees_just_as_far_as_the_window():
    query, key, value, _ = inputs(47)
    ones = np.ones((BATCH, 47), np.int32)
    at = 23
    contexts = local_attention(query, key, value, ones, WINDOW)
    for column, seen in ((at - 6, False), (at - 5, True), (at + 5, True), (at + 6, False)):
        other = value.copy()
        other[:, column] += 1
        assert np.array_equal(contexts[:, at], local_attention(query, key, other, ones, WINDOW)[:, at]) != seen


def test_dropout_is_exact_and_a_row_keeps_its_mask_in_any_batch():
    length = 120
    key = inputs(length)[1]
    query = np.zeros_like(key)  # so that blocks differ by their masks alone
    ones, keys = np.ones((BATCH, length), np.int32), jax.random.split(jax.random.key(3), BATCH)

    def dropped(which, value, site=4):
        rows = (query[which], key[which], value[which], ones[which])
        return local_attention(*rows, WINDOW, Dropout(0.3, keys[which], site))

    value = np.ones((BATCH, length, HEADS, HEAD_SIZE), np.float32)
    every = slice(None)
    assert abs(np.mean(dropped(every, value)) - 1) < 0.02  # 720 rows, each of ten probabilities
    np.testing.assert_allclose(dropped(slice(1, 2), value), dropped(every, value)[1:2], rtol=1e-6)
    assert not np.allclose(dropped(every, value), dropped(every, value, site=5))
    blocks = np.asarray(dropped(every, value)).reshape(BATCH, -1, 2 * WINDOW, HEADS, HEAD_SIZE)
    assert not np.allclose(blocks[:, 3], blocks[:, 4])  # each with a mask of its own


def test_time_and_memory_grow_with_the_length_alone():
    def cost(length: int) -> tuple[float, float]:
        shape = jax.ShapeDtypeStruct((1, length, 4, 16), jnp.float32)

        def total(query, key, value):
            return jnp.sum(local_attention(query, key, value, jnp.ones((1, length), jnp.int32), 16))

        program = jax.jit(jax.grad(total, argnums=(0, 1, 2))).lower(shape, shape, shape).compile()
        return program.cost_analysis()["flops"], program.memory_analysis().temp_size_in_bytes

    (flops, memory), (more_flops, more_memory) = cost(1024), cost(4096)
    assert more_flops < 4.2 * flops
    assert more_memory < 4.2 * memory
