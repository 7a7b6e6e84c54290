"""Law 5: each loss term is divided once, by its global weight, so that all predictions have equal weight."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bertjax.arrays.trees import named_leaves
from bertjax.config.layout import LayoutConfig, MeshConfig
from bertjax.config.pretraining import Config, Phase
from bertjax.objectives.pretraining import terms
from bertjax.parallel.mesh import make_mesh, put_batch
from bertjax.pretraining import build
from bertjax.trainer.step import initial_state, make_init, make_train_step
from tests.support.batches import SMALL, random_batch
from tests.support.objectives import example

ROWS, LENGTH, PREDICTIONS = 8, 32, 6


def test_sums_of_microbatches_with_unequal_weights_add_up():
    outputs, batch = example(8)
    whole = terms(outputs, batch)
    halves = [
        terms(*({k: v[rows] for k, v in x.items()} for x in (outputs, batch))) for rows in (slice(3), slice(3, 8))
    ]
    assert halves[0]["mlm_loss"].weight != halves[1]["mlm_loss"].weight
    for name, term in whole.items():
        np.testing.assert_allclose(term.sum, sum(half[name].sum for half in halves), rtol=1e-6)
        np.testing.assert_allclose(term.weight, sum(half[name].weight for half in halves))


@pytest.fixture(scope="module")
def batch():
    """Row r predicts 1 + r % 6 tokens, which gives the microbatches different weights."""
    batch = random_batch(SMALL, ROWS, LENGTH, PREDICTIONS)
    weights = np.arange(PREDICTIONS) <= np.arange(ROWS)[:, None] % PREDICTIONS
    return batch | {"masked_lm_weights": weights.astype(np.float32)}


def train_step(batch, accumulation: int):
    """Returns objective, initial parameters, metrics and gradients of an SGD step without dropout."""
    model = dataclasses.replace(SMALL, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    layout = LayoutConfig(accumulation=accumulation)
    config = Config(model=model, phases=(Phase(1, LENGTH, ROWS),), dtype="float32", layout=layout)
    objective, mesh = build.make_objective(config), make_mesh(MeshConfig(), jax.devices()[:1])
    optimizer, schedule = optax.sgd(1.0), optax.constant_schedule(1.0)
    state = make_init(initial_state(objective, optimizer, batch, seed=0), mesh)()
    before = jax.tree.map(jnp.copy, state.params)
    step = make_train_step(objective, optimizer, schedule, mesh, seed=0, accumulation=accumulation)
    state, metrics = step(state, put_batch(batch, mesh))
    gradients = jax.tree.map(jnp.subtract, before, state.params)
    return objective, before, jax.device_get(metrics), named_leaves(jax.device_get(gradients))


@pytest.mark.parametrize("accumulation", [1, 2, 4])
def test_steps_divide_by_the_weight_of_the_whole_batch(batch, accumulation):
    """With any accumulation the loss is the mean over predictions, and the gradient that of this mean."""
    objective, params, metrics, gradients = train_step(batch, accumulation)

    def loss_and_mlm(params):
        outputs = objective.model.apply({"params": params}, batch)
        predictions = jax.nn.log_softmax(outputs["masked_lm_logits"])
        correct = jnp.take_along_axis(predictions, batch["masked_lm_ids"][..., None], axis=-1)[..., 0]
        pairs = jax.nn.log_softmax(outputs["next_sentence_logits"])[jnp.arange(ROWS), batch["next_sentence_labels"]]
        mlm = -jnp.sum(correct * batch["masked_lm_weights"]) / batch["masked_lm_weights"].sum()
        return mlm - jnp.mean(pairs), mlm

    (loss, mlm), expected = jax.jit(jax.value_and_grad(loss_and_mlm, has_aux=True))(params)
    assert metrics["train/mlm_loss"] == pytest.approx(float(mlm), rel=1e-5)
    assert metrics["train/loss"] == pytest.approx(float(loss), rel=1e-5)
    expected = named_leaves(jax.device_get(expected))
    norm = np.sqrt(sum(np.sum(np.square(leaf, dtype=np.float64)) for leaf in expected.values()))
    for name, gradient in gradients.items():  # differences of parameters are less precise than gradients
        assert np.linalg.norm(gradient - expected[name]) <= 1e-4 * np.linalg.norm(expected[name]) + 1e-5 * norm, name
