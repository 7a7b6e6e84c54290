"""Operations of the model, some with gradients of their own: precision, bias, matrix product and activations."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np


def matmul_precision(dtype: jnp.dtype) -> jax.lax.Precision | None:
    """f32 means f32, also where an accelerator would by default multiply in bf16 or TF32."""
    return jax.lax.Precision.HIGHEST if dtype == jnp.float32 else None


@jax.custom_vjp
def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """Adds a bias [features] to x […, features]; its gradient is a product, which a CPU does faster than a sum."""
    return x + bias


def _add_bias_forward(x: jax.Array, bias: jax.Array) -> tuple[jax.Array, None]:
    return x + bias, None


def _add_bias_backward(_: None, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    rows = gradient.reshape(-1, gradient.shape[-1])
    ones = jnp.ones(rows.shape[0], rows.dtype)
    return gradient, jnp.dot(ones, rows, precision=jax.lax.Precision.HIGHEST)


add_bias.defvjp(_add_bias_forward, _add_bias_backward)


@jax.custom_vjp
def matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Multiplies x […, in] by a kernel [in, out], in x's dtype; the kernel's gradient has the kernel's."""
    return jnp.dot(x, kernel.astype(x.dtype), precision=matmul_precision(x.dtype))


def _matmul_forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return matmul(x, kernel), (x, kernel)


def _matmul_backward(saved: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    # A CPU multiplies matrices that lie in memory; left alone, XLA computes them anew while it transposes them.
    x, gradient = jax.lax.platform_dependent(
        x, gradient, cpu=lambda *arrays: jax.lax.optimization_barrier(arrays), default=lambda *arrays: arrays
    )

    def product(a: jax.Array, b: jax.Array, a_axes: tuple[int, ...], b_axes: tuple[int, ...], dtype: jnp.dtype):
        contracting = ((a_axes, b_axes), ((), ()))
        return jax.lax.dot_general(a, b, contracting, precision=matmul_precision(x.dtype), preferred_element_type=dtype)

    last = x.ndim - 1
    rows = tuple(range(last))
    x_gradient = product(gradient, kernel.astype(x.dtype), (last,), (1,), x.dtype)
    # The first factor is the one that is transposed; let it be the smaller.
    if x.shape[-1] <= gradient.shape[-1]:
        return x_gradient, product(x, gradient, rows, rows, kernel.dtype)
    return x_gradient, product(gradient, x, rows, rows, kernel.dtype).T


matmul.defvjp(_matmul_forward, _matmul_backward)


def gelu(x: jax.Array) -> jax.Array:
    """The exact GELU (Hendrycks & Gimpel 2016), x·Φ(x), by erf: `jax.nn.gelu` takes erfc, at twice the cost."""
    return x * (0.5 + 0.5 * jax.lax.erf(x * np.sqrt(0.5).astype(x.dtype)))


def activation(name: str) -> Callable[[jax.Array], jax.Array]:
    """The activation function that `hidden_act` or `pooler_act` names."""
    return {
        "tanh": jnp.tanh,
        "gelu": gelu,
        "gelu_new": lambda x: jax.nn.gelu(x, approximate=True),
        "relu": jax.nn.relu,
    }[name]
