"""Muon: momentum whose matrix is made orthogonal, for the matrices of layers; AdamW for everything else.

Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon/). Updates are scaled to the size that AdamW's have (Liu
et al. 2025, arXiv:2502.16982, section 2.2), so that one learning rate and one weight decay serve both.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from bertjax.arrays.trees import path_name
from bertjax.config.optimizer import OptimizerConfig
from bertjax.model.partitioning import parameter_rule
from bertjax.optimizers.adamw import direction

_MOMENTUM = 0.95
_ITERATIONS = 5
# The polynomial that brings singular values between 0.7 and 1.2 within five iterations, from the source.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ADAM_RMS = 0.2  # of AdamW's updates, as measured in arXiv:2502.16982


def muon(config: OptimizerConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Muon for the kernels of layers, AdamW for embeddings, heads, norms and biases; times the learning rate."""
    clip, adam, decay = direction(config)
    parts = optax.partition({"muon": scale_by_muon(), "adamw": adam}, kinds)
    return optax.chain(clip, parts, decay, optax.scale_by_learning_rate(schedule))


def kinds(params: Any) -> Any:
    """A tree like `params` of "muon" or "adamw"."""

    def one(path: tuple[Any, ...], _: Any) -> str:
        return "muon" if parameter_rule(path_name(path)).muon else "adamw"

    return jax.tree_util.tree_map_with_path(one, params)


def scale_by_muon() -> optax.GradientTransformation:
    """Nesterov's momentum of matrices [layers, in, out], each made orthogonal and as large as AdamW's update."""
    momentum = optax.trace(_MOMENTUM, nesterov=True)

    def update(gradients: Any, state: optax.TraceState, params: Any = None) -> tuple[Any, optax.TraceState]:
        ahead, state = momentum.update(gradients, state, params)

        def one(x: jax.Array) -> jax.Array:
            return _ADAM_RMS * max(x.shape[-2:]) ** 0.5 * orthogonal(x)

        return jax.tree.map(one, ahead), state

    return optax.GradientTransformation(momentum.init, update)


def orthogonal(x: jax.Array) -> jax.Array:
    """Nearly the orthogonal matrices nearest to x [..., rows, columns], by Newton-Schulz iterations.

    The products have the device's own precision, as the source has them in bfloat16.
    """
    a, b, c = _COEFFICIENTS
    wide = x.shape[-2] <= x.shape[-1]
    y = x if wide else x.swapaxes(-1, -2)
    y = y / (jnp.linalg.norm(y, axis=(-2, -1), keepdims=True) + 1e-7)
    for _ in range(_ITERATIONS):
        gram = y @ y.swapaxes(-1, -2)
        y = a * y + (b * gram + c * gram @ gram) @ y
    return y if wide else y.swapaxes(-1, -2)
