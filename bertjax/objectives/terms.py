"""Terms of a loss, as sums with their weights.

A term is a sum and what to divide it by. Sums and weights are added over microbatches and devices first, and each
term is divided once, by its global weight; so a prediction counts the same wherever it was computed.
"""

from collections.abc import Mapping
from types import MappingProxyType
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


def total(terms: Mapping[str, Term], scales: Mapping[str, float] = MappingProxyType({})) -> jax.Array:
    """The loss to minimise: the sum of the means of all terms named `…_loss`, f32 scalar; others are to look at.

    `scales` multiplies those that it names.
    """
    return sum(scales.get(name, 1) * term.mean() for name, term in terms.items() if name.endswith("_loss"))


def weighted(values: jax.Array, weights: jax.Array) -> Term:
    """The term of values and their weights, both of any one shape."""
    weights = weights.astype(jnp.float32)
    return Term(jnp.sum(weights * values), jnp.sum(weights))


def cross_entropy(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(the losses in nats, whether the label is among the highest), both [...]: logits [..., classes], labels [...]."""
    logits = logits.astype(jnp.float32)
    highest = jax.lax.stop_gradient(jnp.max(logits, axis=-1))
    log_sum = jnp.log(jnp.sum(jnp.exp(logits - highest[..., None]), axis=-1)) + highest
    # Not by a gather, for which a mesh that splits the classes would have to bring them together.
    is_label = jnp.arange(logits.shape[-1]) == labels[..., None]
    label_logits = jnp.sum(jnp.where(is_label, logits, 0), axis=-1)
    return log_sum - label_logits, label_logits >= highest
