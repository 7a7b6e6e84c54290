"""The objectives of texts that are read apart (Reimers & Gurevych 2019, arXiv:1908.10084)."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from bertjax.model.sentence import normalized
from bertjax.objectives.terms import Term, cross_entropy, weighted

Arrays = Mapping[str, jax.Array]


def terms(
    kind: str, texts: int, scale: float, lowest: float, highest: float
) -> Callable[[Arrays, Arrays], dict[str, Term]]:
    """(outputs, batch) → the one term `task_loss`, weighted by the batch's `weights` [examples], packed [rows, slots].

    similarity: the square of the cosine less the label, which goes from `lowest` (0) to `highest` (1); comparison: the
    cross-entropy of the label; retrieval: that of the text that follows each first text, among all texts of the whole
    batch that are no first ones, their cosines times `scale` (Henderson et al. 2017, arXiv:1705.00652).
    """

    def loss(outputs: Arrays, labels: jax.Array, weights: jax.Array) -> jax.Array:
        logits = outputs["logits"][::texts]
        if kind == "similarity":
            return jnp.square(logits[:, 0] - (labels - lowest) / (highest - lowest))
        if kind == "comparison":
            return cross_entropy(logits, labels)[0]
        return retrieval_losses(outputs["vectors"], weights, scale)

    def found(outputs: Arrays, batch: Arrays) -> dict[str, Term]:
        labels, weights = (batch[name].reshape(-1) for name in ("labels", "weights"))
        return {"task_loss": weighted(loss(outputs, labels, weights), weights)}

    return found


def retrieval_losses(vectors: jax.Array, weights: jax.Array, scale: float) -> jax.Array:
    """f32 [examples]: vectors [examples, texts, hidden]; examples of weight 0 are no answers either."""
    vectors = normalized(vectors)
    examples, texts, hidden = vectors.shape
    others = vectors[:, 1:].reshape(-1, hidden)
    scores = scale * jnp.dot(vectors[:, 0], others.T, precision=jax.lax.Precision.HIGHEST)
    real = jnp.repeat(weights > 0, texts - 1)
    scores = jnp.where(real, scores, jnp.finfo(jnp.float32).min)
    return cross_entropy(scores, jnp.arange(examples) * (texts - 1))[0]
