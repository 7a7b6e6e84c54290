"""The losses of texts that are encoded on their own (Reimers & Gurevych 2019, arXiv:1908.10084)."""

import jax
import jax.numpy as jnp

from bertjax.model.sentence import normalized
from bertjax.objectives.terms import cross_entropy


def retrieval_losses(vectors: jax.Array, weights: jax.Array, scale: float) -> jax.Array:
    """Of each first text, the cross-entropy of the text that follows it among all that are no first ones.

    By their cosines times `scale`. vectors [examples, texts, hidden], weights [examples] → f32 [examples]; examples of
    weight 0 are no answers either.
    """
    vectors = normalized(vectors)
    examples, texts, hidden = vectors.shape
    others = vectors[:, 1:].reshape(-1, hidden)
    scores = scale * jnp.dot(vectors[:, 0], others.T, precision=jax.lax.Precision.HIGHEST)
    real = jnp.repeat(weights > 0, texts - 1)
    scores = jnp.where(real, scores, jnp.finfo(jnp.float32).min)
    return cross_entropy(scores, jnp.arange(examples) * (texts - 1))[0]
