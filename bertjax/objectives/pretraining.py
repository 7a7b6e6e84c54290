"""The objectives of BERT's pre-training: masked words and the next sentence."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from bertjax.objectives.terms import Term, cross_entropy, weighted


def terms(outputs: Mapping[str, jax.Array], batch: Mapping[str, jax.Array]) -> dict[str, Term]:
    """The terms of a batch, from the model's outputs.

    `mlm_loss` (nats a masked token) and `mlm_accuracy`, weighted by `masked_lm_weights` [batch, predictions]; and where
    the model has a next-sentence head `nsp_loss` and `nsp_accuracy`, weighted by `example_weights` [batch] where the
    batch has them (rows that only fill up the last batch weigh 0), else by one.
    """
    result = _classification("mlm", outputs["masked_lm_logits"], batch["masked_lm_ids"], batch["masked_lm_weights"])
    if "next_sentence_logits" in outputs:
        labels = batch["next_sentence_labels"]
        result |= _classification("nsp", outputs["next_sentence_logits"], labels, _example_weights(batch))
    return result


def weights(batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """The weight of each term, from the batch alone: what to divide by where a batch is computed in parts."""
    result = dict.fromkeys(("mlm_loss", "mlm_accuracy"), jnp.sum(batch["masked_lm_weights"]))
    if "next_sentence_labels" in batch:
        result |= dict.fromkeys(("nsp_loss", "nsp_accuracy"), jnp.sum(_example_weights(batch)))
    return result


def _example_weights(batch: Mapping[str, jax.Array]) -> jax.Array:
    labels = batch["next_sentence_labels"]
    return batch.get("example_weights", jnp.ones(labels.shape, jnp.float32))


def _classification(name: str, logits: jax.Array, labels: jax.Array, weights: jax.Array) -> dict[str, Term]:
    """Cross-entropy and accuracy: logits [..., classes], labels and weights [...]."""
    losses, correct = cross_entropy(logits, labels)
    return {f"{name}_loss": weighted(losses, weights), f"{name}_accuracy": weighted(correct, weights)}
