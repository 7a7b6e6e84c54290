"""Blocked local attention equals the plain path with a window, at a cost linear in the length."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.model.attention import local_attention, plain_attention
from bertjax.model.dropout import Dropout
from bertjax.model.fused_attention import AttentionMask

BATCH, HEADS, HEAD_SIZE, WINDOW = 3, 2, 6, 5
LENGTHS = [40, 47, 33, 7, 1]  # blocks of 10


def inputs(length: int) -> list[jax.Array]:
    """Queries, keys, values and the gradient of the contexts."""
    shape = (4, BATCH, length, HEADS, HEAD_SIZE)
    return list(np.random.default_rng(0).normal(size=shape).astype(np.float32))


def sequence_numbers(kind: str, length: int) -> np.ndarray:
    positions = np.arange(length)[None].repeat(BATCH, 0)
    if kind == "padded":  # one row all padding, one with padding further than a window from all words
        return (positions < np.array([[length], [length // 3], [0]])).astype(np.int32)
    ends = [length // 3, length // 3 + 2, length - 3]
    numbers = np.searchsorted(ends, positions, side="right")
    return np.where(numbers < 3, numbers + 1, 0).astype(np.int32)


def plain_with_window(query, key, value, sequences, window=WINDOW):
    positions = np.arange(query.shape[1])
    window_mask = np.abs(positions[:, None] - positions) <= window
    return plain_attention(query, key, value, AttentionMask(sequences, sequences, window_mask[None]))


@pytest.mark.parametrize("kind", ["padded", "packed"])
@pytest.mark.parametrize("length", LENGTHS)
def test_blocks_equal_the_plain_path(length, kind):
    *operands, gradient = inputs(length)
    sequences = sequence_numbers(kind, length)

    def run(attend):
        def weighted(*operands):
            contexts = attend(*operands, sequences)
            return jnp.sum(contexts * gradient), contexts

        (_, contexts), gradients = jax.value_and_grad(weighted, argnums=(0, 1, 2), has_aux=True)(*operands)
        return contexts, *gradients

    results = run(lambda query, key, value, sequences: local_attention(query, key, value, sequences, WINDOW))
    for blocked, plain in zip(results, run(plain_with_window), strict=True):
        np.testing.assert_allclose(blocked, plain, rtol=0, atol=2e-6)


def test_a_token_attends_to_the_window_only():
    query, key, value, _ = inputs(47)
    ones = np.ones((BATCH, 47), np.int32)
    position = 23
    contexts = local_attention(query, key, value, ones, WINDOW)
    for offset, visible in ((-6, False), (-5, True), (5, True), (6, False)):
        changed = value.copy()
        changed[:, position + offset] += 1
        changed_contexts = local_attention(query, key, changed, ones, WINDOW)
        assert np.array_equal(contexts[:, position], changed_contexts[:, position]) != visible


def test_dropout_is_exact_and_a_row_keeps_its_mask_in_any_batch():
    length = 120
    key = inputs(length)[1]
    query = np.zeros_like(key)  # blocks then differ by their masks alone
    ones, keys = np.ones((BATCH, length), np.int32), jax.random.split(jax.random.key(3), BATCH)

    def dropped(rows, value, site=4):
        operands = (query[rows], key[rows], value[rows], ones[rows])
        return local_attention(*operands, WINDOW, Dropout(0.3, keys[rows], site))

    value = np.ones((BATCH, length, HEADS, HEAD_SIZE), np.float32)
    all_rows = slice(None)
    assert abs(np.mean(dropped(all_rows, value)) - 1) < 0.02  # 720 queries, each with ten probabilities
    np.testing.assert_allclose(dropped(slice(1, 2), value), dropped(all_rows, value)[1:2], rtol=1e-6)
    assert not np.allclose(dropped(all_rows, value), dropped(all_rows, value, site=5))
    blocks = np.asarray(dropped(all_rows, value)).reshape(BATCH, -1, 2 * WINDOW, HEADS, HEAD_SIZE)
    assert not np.allclose(blocks[:, 3], blocks[:, 4])  # each block has its own mask


def test_time_and_memory_are_linear_in_the_length():
    def cost(length: int) -> tuple[float, float]:
        shape = jax.ShapeDtypeStruct((1, length, 4, 16), jnp.float32)

        def total(query, key, value):
            return jnp.sum(local_attention(query, key, value, jnp.ones((1, length), jnp.int32), 16))

        program = jax.jit(jax.grad(total, argnums=(0, 1, 2))).lower(shape, shape, shape).compile()
        return program.cost_analysis()["flops"], program.memory_analysis().temp_size_in_bytes

    (flops, memory), (more_flops, more_memory) = cost(1024), cost(4096)
    assert more_flops < 4.2 * flops
    assert more_memory < 4.2 * memory
