"""An encoder that reads texts apart, each to a vector of its own (Reimers & Gurevych 2019, arXiv:1908.10084)."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from bertjax.config import ModelConfig
from bertjax.model.encoder import Embeddings, Encoder
from bertjax.model.layers import Dense, head_init


def pooled(hidden: jax.Array, mask: jax.Array, pooling: str) -> jax.Array:
    """f32 vectors of texts: hidden [rows, length, hidden], mask [rows, length], 0 at the padding → [rows, hidden].

    pooling: mean or max over all tokens, [CLS] and [SEP] included, or cls.
    """
    hidden, real = hidden.astype(jnp.float32), mask[..., None] != 0
    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "max":
        return jnp.where(real, hidden, -jnp.inf).max(axis=1)
    return jnp.where(real, hidden, 0).sum(axis=1) / real.sum(axis=1)


def normalized(vectors: jax.Array) -> jax.Array:
    """Of length 1 along the last axis."""
    return vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


class SentenceModel(nn.Module):
    """Encoder, pooling, and for comparisons a `task_head`; the other fields are those of `FinetuningModel`.

    `kind` is one of `bertjax.tasks.task.APART`; `texts` neighbouring rows belong to one example.
    """

    config: ModelConfig
    kind: str
    outputs: int
    texts: int = 2
    pooling: str = "mean"
    dtype: jnp.dtype = jnp.float32
    unroll: int = 1
    remat: str = "none"
    attention: str = "xla"

    def setup(self) -> None:
        """Makes encoder and head."""
        config = self.config
        self.embeddings = Embeddings(config, self.dtype)
        self.encoder = Encoder(config, self.dtype, self.unroll, self.remat, self.attention)
        if self.kind == "comparison":
            self.task_head = Dense(self.outputs, config, jnp.float32, head_init, output=True, name="task_head")

    def __call__(self, batch: Mapping[str, jax.Array], dropout_keys: jax.Array | None = None) -> dict[str, jax.Array]:
        """Reads `input_ids`, `token_type_ids`, `attention_mask` [rows, length].

        Returns `vectors`, f32 [examples, texts, hidden], and `logits`, f32 [rows, outputs], which are those of the
        example in each of its rows: the cosine of its two vectors u and v, or the head's of (u, v, |u - v|). For
        retrieval they are 0.
        """
        mask = batch["attention_mask"]
        x = self.embeddings(batch["input_ids"], batch["token_type_ids"], dropout_keys)
        vectors = pooled(self.encoder(x, mask, dropout_keys), mask, self.pooling)
        vectors = vectors.reshape(-1, self.texts, vectors.shape[-1])
        return {"vectors": vectors, "logits": jnp.repeat(self._logits(vectors), self.texts, axis=0)}

    def _logits(self, vectors: jax.Array) -> jax.Array:
        first, second = vectors[:, 0], vectors[:, 1]
        if self.kind == "comparison":
            return self.task_head(jnp.concatenate([first, second, jnp.abs(first - second)], axis=-1))
        if self.kind == "similarity":
            return jnp.sum(normalized(first) * normalized(second), axis=-1, keepdims=True)
        return jnp.zeros((len(vectors), 1), jnp.float32)
