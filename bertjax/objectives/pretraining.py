"""The objectives of pre-training: masked words, and the next sentence or the order of sentences."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int

from bertjax.arrays.types import Batch
from bertjax.objectives.terms import Term, cross_entropy, weighted

_PAIRS = {"next_sentence": "nsp", "sentence_order": "sop"}  # task of pairs → prefix of its terms


def terms(outputs: Batch, batch: Batch) -> dict[str, Term]:
    """Returns the terms of a batch from the model's outputs.

    `mlm_loss` (nats per masked token) and `mlm_accuracy` are weighted by `masked_lm_weights` [batch, predictions].
    With a head for pairs there are `nsp_loss` and `nsp_accuracy`, or `sop_loss` and `sop_accuracy`, weighted by
    `example_weights` [batch] if the batch has them (0 for rows that fill up the last batch), by `sequence_weights`
    [batch, packing] if rows are packed, else by one.
    """
    result = _classification("mlm", outputs["masked_lm_logits"], batch["masked_lm_ids"], batch["masked_lm_weights"])
    for task, name in _PAIRS.items():
        if f"{task}_logits" in outputs:
            labels = batch[f"{task}_labels"]
            result |= _classification(name, outputs[f"{task}_logits"], labels, _example_weights(batch, labels))
    return result


def weights(batch: Batch) -> dict[str, Float32[Array, ""]]:
    """Returns the weight of each term: the divisors for a batch that is computed in parts."""
    result: dict[str, Array] = dict.fromkeys(("mlm_loss", "mlm_accuracy"), jnp.sum(batch["masked_lm_weights"]))
    for task, name in _PAIRS.items():
        if f"{task}_labels" in batch:
            weight = jnp.sum(_example_weights(batch, batch[f"{task}_labels"]))
            result |= dict.fromkeys((f"{name}_loss", f"{name}_accuracy"), weight)
    return result


def _example_weights(batch: Batch, labels: Int[Array, "*batch"]) -> Float32[Array, "*batch"]:
    weights = batch.get("example_weights", batch.get("sequence_weights"))
    return jnp.ones(labels.shape, jnp.float32) if weights is None else weights


def _classification(
    name: str,
    logits: Float[Array, "*batch classes"],
    labels: Int[Array, "*batch"],
    weights: Float[Array, "*batch"],
) -> dict[str, Term]:
    """Returns the terms of cross-entropy and accuracy."""
    losses, correct = cross_entropy(logits, labels)
    return {f"{name}_loss": weighted(losses, weights), f"{name}_accuracy": weighted(correct, weights)}
