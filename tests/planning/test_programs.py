"""Parsing of compiled programs, on programs with known trip counts and FLOPs."""

import jax
import jax.numpy as jnp
import pytest

from bertjax.planning import hlo
from bertjax.planning.step import matmul_flops
from bertjax.planning.traffic import traffic

ROWS, WIDTH, LAYERS = 256, 512, 7


def stack(x, kernels):
    """Returns `x` after LAYERS matrix products in sequence."""
    return jax.lax.scan(lambda x, kernel: (jnp.tanh(x @ kernel), None), x, kernels)[0]


@pytest.fixture(scope="module")
def traced():
    shapes = jnp.zeros((ROWS, WIDTH)), jnp.zeros((LAYERS, WIDTH, WIDTH))
    return jax.jit(stack).trace(*shapes)


def test_a_loop_body_counts_once_per_trip(traced):
    program = hlo.parse(traced.lower().compile().as_text())
    assert max(program.runs.values()) == LAYERS
    assert list(program.trips.values()) == [LAYERS]
    # A trip reads the kernel and the rows and writes the rows; on a CPU it also copies the kernel and splits tanh off.
    least = 4 * LAYERS * (WIDTH * WIDTH + 2 * ROWS * WIDTH)
    assert least <= traffic(program) <= 3 * least


def test_flops_include_loops_and_recomputation(traced):
    forward = 2 * LAYERS * ROWS * WIDTH * WIDTH
    assert matmul_flops(traced.jaxpr.jaxpr) == forward

    def loss(kernels, x):
        layer = jax.checkpoint(lambda x, kernel: (jnp.tanh(x @ kernel), None), prevent_cse=False)
        return jnp.sum(jax.lax.scan(layer, x, kernels)[0])

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1))).trace(
        jnp.zeros((LAYERS, WIDTH, WIDTH)), jnp.zeros((ROWS, WIDTH))
    )
    assert matmul_flops(gradient.jaxpr.jaxpr) == 4 * forward
