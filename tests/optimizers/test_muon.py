"""Muon: orthogonal updates of AdamW's size for the matrices of layers, AdamW for all other parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bertjax.arrays.trees import named_leaves
from bertjax.config.optimizer import OptimizerConfig
from bertjax.optimizers.adamw import adamw
from bertjax.optimizers.muon import muon, optimizer_labels, orthogonal

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
def test_singular_values_approach_one_and_singular_vectors_stay(shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    result = np.asarray(orthogonal(x))
    values = np.linalg.svd(result, compute_uv=False)
    assert values.min() > 0.3 and values.max() < 1.3
    left, _, right = np.linalg.svd(x, full_matrices=False)
    # With the singular vectors of x the result is diagonal.
    product = np.swapaxes(left, -1, -2) @ result @ np.swapaxes(right, -1, -2)
    off_diagonal = product - product * np.eye(product.shape[-1])
    assert np.abs(off_diagonal).max() < 1e-3


def test_only_matrices_of_layers_are_orthogonalised():
    labels = named_leaves(optimizer_labels(tree(np.random.default_rng(0))))
    assert {name for name, label in labels.items() if label == "muon"} == {
        "encoder/segment_0/layer_0/intermediate/kernel"
    }


def test_updates_have_the_size_of_adamws_and_other_parameters_use_adamw():
    rng = np.random.default_rng(0)
    params, gradients = tree(rng), [tree(rng) for _ in range(3)]
    results = []
    for make in (muon, adamw):
        optimizer = make(CONFIG, optax.constant_schedule(1.0))
        state = optimizer.init(params)
        for gradient in gradients:
            updates, state = optimizer.update(gradient, state, params)
        results.append(named_leaves(updates))
    muon_updates, adamw_updates = results
    kernel = "encoder/segment_0/layer_0/intermediate/kernel"
    for name in muon_updates.keys() - {kernel}:
        np.testing.assert_allclose(muon_updates[name], adamw_updates[name], rtol=1e-6)
    # The root mean square is 0.2 in every layer, up to the deviation of the singular values from one.
    sizes = np.sqrt(np.mean(np.square(muon_updates[kernel]), axis=(1, 2)))
    np.testing.assert_allclose(sizes, 0.2, rtol=0.3)
