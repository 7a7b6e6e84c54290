"""The small pieces that every part of the model is made of, with BERT's initialisation."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

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
    """x [rows, features] + bias [features]; the bias's gradient is a product, which a CPU does faster than a sum."""
    return x + bias


def _add_bias_forward(x: jax.Array, bias: jax.Array) -> tuple[jax.Array, None]:
    return x + bias, None


def _add_bias_backward(_: None, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    ones = jnp.ones(gradient.shape[0], gradient.dtype)
    return gradient, jnp.dot(ones, gradient, precision=jax.lax.Precision.HIGHEST)


add_bias.defvjp(_add_bias_forward, _add_bias_backward)


def dense(features: int, config: ModelConfig, dtype: jnp.dtype, name: str) -> nn.Dense:
    """A linear layer: `kernel` [in, features], `bias` [features]; f32 parameters, computed in `dtype`."""
    return nn.Dense(
        features, dtype=dtype, kernel_init=normal_init(config), precision=matmul_precision(dtype), name=name
    )


def layer_norm(config: ModelConfig, dtype: jnp.dtype, name: str) -> nn.LayerNorm:
    """LayerNorm over the last axis: `scale`, `bias`; f32 statistics (two passes, as eps 1e-12 asks for), `dtype` out."""
    return nn.LayerNorm(epsilon=config.layer_norm_eps, dtype=dtype, use_fast_variance=False, name=name)


def activation(config: ModelConfig) -> Callable[[jax.Array], jax.Array]:
    """The activation function that `hidden_act` names."""
    return {
        "gelu": lambda x: jax.nn.gelu(x, approximate=False),
        "gelu_new": lambda x: jax.nn.gelu(x, approximate=True),
        "relu": jax.nn.relu,
    }[config.hidden_act]
