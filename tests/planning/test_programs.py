"""What is read from a compiled program's text, on programs whose answer is known."""

import jax
import jax.numpy as jnp
import pytest

from bertjax.planning import hlo
from bertjax.planning.step import matmul_flops
from bertjax.planning.traffic import traffic

ROWS, WIDTH, LAYERS = 256, 512, 7


def stack(x, kernels):
    """LAYERS products, one after the other."""
    return jax.lax.scan(lambda x, kernel: (jnp.tanh(x @ kernel), None), x, kernels)[0]


@pytest.fixture(scope="module")
def traced():
    shapes = jnp.zeros((ROWS, WIDTH)), jnp.zeros((LAYERS, WIDTH, WIDTH))
    return jax.jit(stack).trace(*shapes)


def test_a_loop_counts_as_often_as_it_runs(traced):
    program = hlo.parse(traced.lower().compile().as_text())
    assert max(program.runs.values()) == LAYERS
    assert list(program.trips.values()) == [LAYERS]
    # Each trip reads its kernel and the rows and writes the rows; a CPU copies the kernel first, and takes tanh apart.
    least = 4 * LAYERS * (WIDTH * WIDTH + 2 * ROWS * WIDTH)
    assert least <= traffic(program) <= 3 * least


def test_flops_count_products_in_loops_and_what_is_computed_again(traced):
    forward = 2 * LAYERS * ROWS * WIDTH * WIDTH
    assert matmul_flops(traced.jaxpr.jaxpr) == forward

    def loss(kernels, x):
        layer = jax.checkpoint(lambda x, kernel: (jnp.tanh(x @ kernel), None), prevent_cse=False)
        return jnp.sum(jax.lax.scan(layer, x, kernels)[0])

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1))).trace(
        jnp.zeros((LAYERS, WIDTH, WIDTH)), jnp.zeros((ROWS, WIDTH))
    )
    assert matmul_flops(gradient.jaxpr.jaxpr) == 4 * forward
