"""The objectives of BERT's pre-training, as sums with their weights.

A term is a sum and what to divide it by. Sums and weights are added over microbatches and devices first, and each
term is divided once, by its global weight; so a prediction counts the same wherever it was computed.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Term(NamedTuple):
    """A sum over predictions and the number (weight) of these predictions; f32 scalars."""

    sum: jax.Array
    weight: jax.Array

    def mean(self) -> jax.Array:
        """The sum over the weight; 0 where nothing was predicted."""
        return self.sum / jnp.maximum(self.weight, 1e-6)


# Terms that are scores to look at, not losses to minimise.
_SCORES = ("mlm_accuracy", "nsp_accuracy")


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


def total(terms: Mapping[str, Term]) -> jax.Array:
    """The loss to minimise: the sum of the means of all loss terms, f32 scalar."""
    return sum(term.mean() for name, term in terms.items() if name not in _SCORES)


def _classification(name: str, logits: jax.Array, labels: jax.Array, weights: jax.Array) -> dict[str, Term]:
    """Cross-entropy and accuracy: logits [..., classes], labels and weights [...]."""
    logits = logits.astype(jnp.float32)
    weights = weights.astype(jnp.float32)
    highest = jax.lax.stop_gradient(jnp.max(logits, axis=-1))
    log_sum = jnp.log(jnp.sum(jnp.exp(logits - highest[..., None]), axis=-1)) + highest
    # Not by a gather, for which a mesh that splits the classes would have to bring them together.
    is_label = jnp.arange(logits.shape[-1]) == labels[..., None]
    label_logits = jnp.sum(jnp.where(is_label, logits, 0), axis=-1)
    losses = log_sum - label_logits
    correct = label_logits >= highest
    weight = jnp.sum(weights)
    return {
        f"{name}_loss": Term(jnp.sum(weights * losses), weight),
        f"{name}_accuracy": Term(jnp.sum(weights * correct), weight),
    }
