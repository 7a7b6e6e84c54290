"""Terms of a loss: sums with their weights.

Sums and weights are first added over microbatches and devices, then each term is divided once, by its global weight.
Every prediction therefore counts the same, wherever it was computed.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int, Shaped


class Term(NamedTuple):
    """A weighted sum over predictions and the sum of the weights."""

    sum: Float32[Array, ""]
    weight: Float32[Array, ""]

    def mean(self) -> Float32[Array, ""]:
        """Returns the weighted mean; 0 without predictions."""
        return self.sum / jnp.maximum(self.weight, 1e-6)


def total(terms: Mapping[str, Term], scales: Mapping[str, float] = MappingProxyType({})) -> Float32[Array, ""]:
    """Returns the loss to minimize: the sum of the means of all terms named `…_loss`; other terms are metrics.

    `scales` holds factors by name, 1 by default.
    """
    losses = (scales.get(name, 1) * term.mean() for name, term in terms.items() if name.endswith("_loss"))
    return jnp.asarray(sum(losses))


def weighted(values: Shaped[Array, "*shape"], weights: Shaped[Array, "*shape"]) -> Term:
    """Returns the term of values and their weights."""
    weights = weights.astype(jnp.float32)
    return Term(jnp.sum(weights * values), jnp.sum(weights))


def cross_entropy(
    logits: Float[Array, "*batch classes"], labels: Int[Array, "*batch"]
) -> tuple[Float32[Array, "*batch"], Bool[Array, "*batch"]]:
    """Returns the losses in nats, and whether the label's logit is the highest."""
    logits = logits.astype(jnp.float32)
    highest = jax.lax.stop_gradient(jnp.max(logits, axis=-1))
    log_sum = jnp.log(jnp.sum(jnp.exp(logits - highest[..., None]), axis=-1)) + highest
    # A gather would need all classes on one device where a mesh splits them.
    is_label = jnp.arange(logits.shape[-1]) == labels[..., None]
    label_logits = jnp.sum(jnp.where(is_label, logits, 0), axis=-1)
    return log_sum - label_logits, label_logits >= highest
