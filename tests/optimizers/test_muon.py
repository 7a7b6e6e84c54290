"""Muon: orthogonal updates of the right size for the matrices of layers, AdamW for the rest."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bertjax.arrays.trees import named_leaves
from bertjax.config.optimizer import OptimizerConfig
from bertjax.optimizers.adamw import adamw
from bertjax.optimizers.muon import kinds, muon, orthogonal

CONFIG = OptimizerConfig(name="muon", weight_decay=0.0, clip_norm=0.0)


def tree(rng):
    layer = {"intermediate": {"kernel": rng.normal(size=(3, 8, 20)), "bias": rng.normal(size=(3, 20))}}
    params = {
        "embeddings": {"word_embeddings": {"embedding": rng.normal(size=(30, 8))}},
        "encoder": {"segment_0": {"layer_0": layer}},
        "masked_lm_head": {"dense": {"kernel": rng.normal(size=(8, 8))}},
    }
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4), (2, 5, 7)])
def test_singular_values_come_near_one_and_the_directions_stay(shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    found = np.asarray(orthogonal(x))
    values = np.linalg.svd(found, compute_uv=False)
    assert values.min() > 0.3 and values.max() < 1.3
    left, _, right = np.linalg.svd(x, full_matrices=False)
    # Left and right singular vectors are those of x: what is left between them is diagonal.
    between = np.swapaxes(left, -1, -2) @ found @ np.swapaxes(right, -1, -2)
    off = between - between * np.eye(between.shape[-1])
    assert np.abs(off).max() < 1e-3


def test_only_matrices_of_layers_are_made_orthogonal():
    chosen = {name for name, kind in named_leaves(kinds(tree(np.random.default_rng(0)))).items() if kind == "muon"}
    assert chosen == {"encoder/segment_0/layer_0/intermediate/kernel"}


def test_updates_are_as_large_as_adamw_s_and_the_rest_is_adamw():
    rng = np.random.default_rng(0)
    params, gradients = tree(rng), [tree(rng) for _ in range(3)]
    ours, theirs = (make(CONFIG, optax.constant_schedule(1.0)) for make in (muon, adamw))
    states = [ours.init(params), theirs.init(params)]
    for gradient in gradients:
        (mine, states[0]), (other, states[1]) = (
            optimizer.update(gradient, state, params) for optimizer, state in zip((ours, theirs), states, strict=True)
        )
    mine, other = named_leaves(mine), named_leaves(other)
    kernel = "encoder/segment_0/layer_0/intermediate/kernel"
    for name in mine.keys() - {kernel}:
        np.testing.assert_allclose(mine[name], other[name], rtol=1e-6)
    # Root mean square 0.2 in every layer, as far as the iterations bring singular values to one.
    sizes = np.sqrt(np.mean(np.square(mine[kernel]), axis=(1, 2)))
    np.testing.assert_allclose(sizes, 0.2, rtol=0.3)
