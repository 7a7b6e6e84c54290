"""The objectives of pre-training: masked words, and the next sentence or the order of sentences."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from bertjax.objectives.terms import Term, cross_entropy, weighted

_PAIRS = {"next_sentence": "nsp", "sentence_order": "sop"}  # tasks, and what their terms are called


def terms(outputs: Mapping[str, jax.Array], batch: Mapping[str, jax.Array]) -> dict[str, Term]:
    """The terms of a batch, from the model's outputs.

    `mlm_loss` (nats a masked token) and `mlm_accuracy`, weighted by `masked_lm_weights` [batch, predictions]; and where
    the model has a head for pairs `nsp_loss` and `nsp_accuracy`, or `sop_loss` and `sop_accuracy`, weighted by
    `example_weights` [batch] where the batch has them (rows that only fill up the last batch weigh 0), or by
    `sequence_weights` [batch, packing] where several sequences share a row, else by one.
    """
    result = _classification("mlm", outputs["masked_lm_logits"], batch["masked_lm_ids"], batch["masked_lm_weights"])
    for task, name in _PAIRS.items():
        if f"{task}_logits" in outputs:
            labels = batch[f"{task}_labels"]
            result |= _classification(name, outputs[f"{task}_logits"], labels, _example_weights(batch, labels))
    return result


def weights(batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """The weight of each term, from the batch alone: what to divide by where a batch is computed in parts."""
    result = dict.fromkeys(("mlm_loss", "mlm_accuracy"), jnp.sum(batch["masked_lm_weights"]))
    for task, name in _PAIRS.items():
        if f"{task}_labels" in batch:
            weight = jnp.sum(_example_weights(batch, batch[f"{task}_labels"]))
            result |= dict.fromkeys((f"{name}_loss", f"{name}_accuracy"), weight)
    return result


def _example_weights(batch: Mapping[str, jax.Array], labels: jax.Array) -> jax.Array:
    weights = batch.get("example_weights", batch.get("sequence_weights"))
    return jnp.ones(labels.shape, jnp.float32) if weights is None else weights


def _classification(name: str, logits: jax.Array, labels: jax.Array, weights: jax.Array) -> dict[str, Term]:
    """Cross-entropy and accuracy: logits [..., classes], labels and weights [...]."""
    losses, correct = cross_entropy(logits, labels)
    return {f"{name}_loss": weighted(losses, weights), f"{name}_accuracy": weighted(correct, weights)}
