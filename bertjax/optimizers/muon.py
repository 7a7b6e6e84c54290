"""Muon: orthogonalized momentum for the matrices of layers; AdamW for all other parameters.

Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon/). Updates are scaled to the size of AdamW's (Liu et al.
2025, arXiv:2502.16982, section 2.2): both share one learning rate and one weight decay.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from bertjax.arrays.trees import path_name
from bertjax.config.optimizer import OptimizerConfig
from bertjax.model.partitioning import parameter_rule
from bertjax.optimizers.adamw import direction

_MOMENTUM = 0.95
_ITERATIONS = 5
# The source's polynomial, which maps singular values to between 0.7 and 1.2 within five iterations.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ADAM_RMS = 0.2  # of AdamW's updates, as measured in arXiv:2502.16982


def muon(config: OptimizerConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Returns Muon for the kernels of layers, with AdamW for embeddings, heads, norms and biases."""
    clip, adam, decay = direction(config)
    parts = optax.partition({"muon": scale_by_muon(), "adamw": adam}, optimizer_labels)
    return optax.chain(clip, parts, decay, optax.scale_by_learning_rate(schedule))


def optimizer_labels(params: PyTree) -> PyTree:
    """Returns a tree like `params` of "muon" and "adamw"."""

    def label(path: jax.tree_util.KeyPath, _: object) -> str:
        return "muon" if parameter_rule(path_name(path)).muon else "adamw"

    return jax.tree_util.tree_map_with_path(label, params)


def scale_by_muon() -> optax.GradientTransformation:
    """Orthogonalizes the Nesterov momentum of matrices [layers, in, out], scaled to the size of AdamW's updates."""
    momentum = optax.trace(_MOMENTUM, nesterov=True)

    def scaled(x: jax.Array) -> jax.Array:
        return _ADAM_RMS * max(x.shape[-2:]) ** 0.5 * orthogonal(x)

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        updates, state = momentum.update(updates, state, params)
        return jax.tree.map(scaled, updates), state

    return optax.GradientTransformation(momentum.init, update)


def orthogonal(x: jax.Array) -> jax.Array:
    """Approximates the orthogonal matrices nearest to x [..., m, n] by Newton-Schulz iterations.

    The products use the device's default precision, as the source computes them in bfloat16.
    """
    a, b, c = _COEFFICIENTS
    wide = x.shape[-2] <= x.shape[-1]
    y = x if wide else x.swapaxes(-1, -2)
    y = y / (jnp.linalg.norm(y, axis=(-2, -1), keepdims=True) + 1e-7)
    for _ in range(_ITERATIONS):
        gram = y @ y.swapaxes(-1, -2)
        y = a * y + (b * gram + c * gram @ gram) @ y
    return y if wide else y.swapaxes(-1, -2)
