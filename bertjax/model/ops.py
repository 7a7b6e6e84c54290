"""Numeric operations, some with custom gradients: precision, bias, matrix product and activations."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

_Residuals = tuple[Float[Array, "*batch in_features"], Float[Array, "in_features out_features"]]


def matmul_precision(dtype: DTypeLike) -> jax.lax.Precision | None:
    """Returns full precision for f32, which accelerators would by default multiply in bf16 or TF32."""
    return jax.lax.Precision.HIGHEST if dtype == jnp.float32 else None


@jax.custom_vjp
def add_bias(x: Float[Array, "*batch features"], bias: Float[Array, " features"]) -> Float[Array, "*batch features"]:
    """Adds a bias to the last axis; the bias gradient is a product, which a CPU computes faster than a sum."""
    return x + bias


def _add_bias_forward(
    x: Float[Array, "*batch features"], bias: Float[Array, " features"]
) -> tuple[Float[Array, "*batch features"], None]:
    return x + bias, None


def _add_bias_backward(
    _: None, gradient: Float[Array, "*batch features"]
) -> tuple[Float[Array, "*batch features"], Float[Array, " features"]]:
    flat = gradient.reshape(-1, gradient.shape[-1])
    ones = jnp.ones(flat.shape[0], flat.dtype)
    return gradient, jnp.dot(ones, flat, precision=jax.lax.Precision.HIGHEST)


add_bias.defvjp(_add_bias_forward, _add_bias_backward)


@jax.custom_vjp
def matmul(
    x: Float[Array, "*batch in_features"], kernel: Float[Array, "in_features out_features"]
) -> Float[Array, "*batch out_features"]:
    """Multiplies in x's dtype; the kernel's gradient has the kernel's dtype."""
    return jnp.dot(x, kernel.astype(x.dtype), precision=matmul_precision(x.dtype))


def _matmul_forward(
    x: Float[Array, "*batch in_features"], kernel: Float[Array, "in_features out_features"]
) -> tuple[Float[Array, "*batch out_features"], _Residuals]:
    return matmul(x, kernel), (x, kernel)


def _matmul_backward(residuals: _Residuals, gradient: Float[Array, "*batch out_features"]) -> _Residuals:
    x, kernel = residuals
    # A CPU multiplies matrices in memory; without the barrier XLA recomputes them while it transposes them.
    x, gradient = jax.lax.platform_dependent(
        x, gradient, cpu=lambda *arrays: jax.lax.optimization_barrier(arrays), default=lambda *arrays: arrays
    )

    def product(a: Array, b: Array, a_axes: tuple[int, ...], b_axes: tuple[int, ...], dtype: DTypeLike) -> Array:
        contracting = ((a_axes, b_axes), ((), ()))
        return jax.lax.dot_general(a, b, contracting, precision=matmul_precision(x.dtype), preferred_element_type=dtype)

    last = x.ndim - 1
    batch_axes = tuple(range(last))
    x_gradient = product(gradient, kernel.astype(x.dtype), (last,), (1,), x.dtype)
    # `dot_general` transposes its first factor here; make that the smaller one.
    if x.shape[-1] <= gradient.shape[-1]:
        return x_gradient, product(x, gradient, batch_axes, batch_axes, kernel.dtype)
    return x_gradient, product(gradient, x, batch_axes, batch_axes, kernel.dtype).T


matmul.defvjp(_matmul_forward, _matmul_backward)


def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The exact GELU (Hendrycks & Gimpel 2016), x·Φ(x), by erf: `jax.nn.gelu` uses erfc, at twice the cost."""
    return x * (0.5 + 0.5 * jax.lax.erf(x * np.sqrt(0.5).astype(x.dtype)))


def activation(name: str) -> Callable[[Array], Array]:
    """Returns the activation function named by `hidden_act` or `pooler_act`."""
    return {
        "tanh": jnp.tanh,
        "gelu": gelu,
        "gelu_new": lambda x: jax.nn.gelu(x, approximate=True),
        "relu": jax.nn.relu,
    }[name]
