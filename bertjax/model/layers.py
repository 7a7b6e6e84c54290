"""The small pieces that every part of the model is made of, with BERT's initialisation."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from bertjax.config import ModelConfig


def normal_init(config: ModelConfig) -> Callable:
    """TensorFlow's `truncated_normal_initializer`: a normal of `initializer_range`, redrawn beyond two of them.

    As in BERT's own code the standard deviation is not corrected for the cut: that of the weights is 0.88 times
    `initializer_range`.
    """
    return jax.nn.initializers.truncated_normal(stddev=config.initializer_range, lower=-2.0, upper=2.0)


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


def dense(features: int, config: ModelConfig, dtype: jnp.dtype, name: str) -> nn.Dense:
    """A linear layer: `kernel` [in, features], `bias` [features]; f32 parameters, computed in `dtype`."""
    return nn.Dense(
        features, dtype=dtype, kernel_init=normal_init(config), precision=matmul_precision(dtype), name=name
    )


class LayerNorm(nn.Module):
    """LayerNorm over the last axis (Ba et al. 2016): `scale`, `bias`; computed in f32, given out in `dtype`.

    The variance is that of the centred values, as the small eps of BERT asks for.
    """

    epsilon: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[…, features] → […, features]."""
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        x = x.astype(jnp.float32)
        centred = x - jnp.mean(x, axis=-1, keepdims=True)
        deviation = jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + self.epsilon)
        return (centred * deviation * scale + bias).astype(self.dtype)


def layer_norm(config: ModelConfig, dtype: jnp.dtype, name: str) -> LayerNorm:
    """The config's LayerNorm."""
    return LayerNorm(config.layer_norm_eps, dtype, name=name)


def gelu(x: jax.Array) -> jax.Array:
    """The exact GELU (Hendrycks & Gimpel 2016), x·Φ(x), by erf: `jax.nn.gelu` takes erfc, at twice the cost."""
    return x * (0.5 + 0.5 * jax.lax.erf(x * np.sqrt(0.5).astype(x.dtype)))


def activation(config: ModelConfig) -> Callable[[jax.Array], jax.Array]:
    """The activation function that `hidden_act` names."""
    return {
        "gelu": gelu,
        "gelu_new": lambda x: jax.nn.gelu(x, approximate=True),
        "relu": jax.nn.relu,
    }[config.hidden_act]
