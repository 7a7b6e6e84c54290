"""The loss of bi-encoders (Reimers & Gurevych 2019, arXiv:1908.10084)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from bertjax.model.sentence import normalize
from bertjax.objectives.terms import cross_entropy


def retrieval_losses(
    vectors: Float[Array, "examples texts hidden"], weights: Float[Array, " examples"], scale: float | Float[Array, ""]
) -> Float32[Array, " examples"]:
    """Returns the cross-entropy of retrieving each example's second text by its first text.

    The candidates are all texts of the batch except first ones, scored by cosine times `scale`; those of examples with
    weight 0 are excluded.
    """
    vectors = normalize(vectors)
    examples, texts, hidden = vectors.shape
    candidates = vectors[:, 1:].reshape(-1, hidden)
    scores = scale * jnp.dot(vectors[:, 0], candidates.T, precision=jax.lax.Precision.HIGHEST)
    included = jnp.repeat(weights > 0, texts - 1)
    scores = jnp.where(included, scores, jnp.finfo(jnp.float32).min)
    return cross_entropy(scores, jnp.arange(examples) * (texts - 1))[0]
