"""Losses and accuracies; every prediction counts the same."""

import jax
import numpy as np

from bertjax.objectives.pretraining import terms
from bertjax.objectives.terms import total
from tests.support.objectives import example


def cross_entropy(logits, labels) -> np.ndarray:
    logits = np.asarray(logits, np.float64)
    log_probabilities = logits - np.log(np.sum(np.exp(logits), -1, keepdims=True))
    return -np.take_along_axis(log_probabilities, labels[..., None], -1)[..., 0]


def test_terms_are_weighted_sums_of_cross_entropy_and_correct_predictions():
    outputs, batch = example()
    result = terms(outputs, batch)
    weights = batch["masked_lm_weights"]
    losses = cross_entropy(outputs["masked_lm_logits"], batch["masked_lm_ids"])
    correct = outputs["masked_lm_logits"].argmax(-1) == batch["masked_lm_ids"]
    assert 0 < np.sum(weights * correct) < np.sum(weights)
    np.testing.assert_allclose(result["mlm_loss"], (np.sum(weights * losses), weights.sum()), rtol=1e-6)
    np.testing.assert_allclose(result["mlm_accuracy"], (np.sum(weights * correct), weights.sum()))
    pair_losses = cross_entropy(outputs["next_sentence_logits"], batch["next_sentence_labels"])
    np.testing.assert_allclose(result["nsp_loss"], (pair_losses.sum(), 4), rtol=1e-6)
    expected = losses[weights > 0].mean() + pair_losses.mean()
    np.testing.assert_allclose(total(result), expected, rtol=1e-6)


def test_unused_slots_and_rows_contribute_no_loss_and_no_gradient():
    outputs, batch = example()
    batch["example_weights"] = np.array([1, 1, 0, 1], np.float32)
    result = terms(outputs, batch)
    assert result["nsp_loss"].weight == 3
    gradients = jax.device_get(jax.grad(lambda outputs: total(terms(outputs, batch)))(outputs))
    assert np.all(gradients["masked_lm_logits"][batch["masked_lm_weights"] == 0] == 0)
    assert np.all(gradients["next_sentence_logits"][2] == 0)
    assert np.all(gradients["next_sentence_logits"][[0, 1, 3]] != 0)


def test_no_predictions_give_zero_instead_of_nan():
    outputs, batch = example()
    batch["masked_lm_weights"][:] = 0
    result = terms(outputs, batch)
    assert result["mlm_loss"].mean() == 0
    assert np.isfinite(jax.tree.leaves(jax.grad(lambda outputs: total(terms(outputs, batch)))(outputs))[0]).all()


def test_large_logits_do_not_overflow():
    outputs, batch = example()
    outputs["masked_lm_logits"] *= 1e4
    result = terms(outputs, batch)
    losses = stable_cross_entropy(outputs["masked_lm_logits"], batch["masked_lm_ids"])
    np.testing.assert_allclose(result["mlm_loss"].sum, np.sum(losses * batch["masked_lm_weights"]), rtol=1e-5)


def stable_cross_entropy(logits, labels) -> np.ndarray:
    highest = logits.max(-1, keepdims=True)
    return cross_entropy(logits - highest, labels)


def test_a_model_without_next_sentence_has_no_nsp_terms():
    outputs, batch = example()
    del outputs["next_sentence_logits"]
    assert set(terms(outputs, batch)) == {"mlm_loss", "mlm_accuracy"}
