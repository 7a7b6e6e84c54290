"""A bi-encoder, which embeds each text as one vector (Reimers & Gurevych 2019, arXiv:1908.10084)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int, Key

from bertjax.arrays.types import Batch
from bertjax.config.model import DenseLayer, ModelConfig
from bertjax.model.attention import SharedInputs
from bertjax.model.computation import Computation
from bertjax.model.encoder import Embeddings, Encoder
from bertjax.model.layers import Dense, head_init
from bertjax.model.ops import activation

_DENSE_ACTIVATIONS = {
    "identity": lambda x: x,
    "tanh": jnp.tanh,
    "relu": activation("relu"),
    "gelu": activation("gelu"),
}


def pool(
    hidden: Float[Array, "batch positions hidden"],
    mask: Int[Array, "batch length"] | Bool[Array, "batch length"],
    pooling: str,
    starts: Int[Array, "batch texts"] | None = None,
) -> Float32[Array, "batch hidden"] | Float32[Array, "batch texts hidden"]:
    """Pools the states of each text to a vector; the mask is 0 at padding.

    `pooling` is "mean" or "max" over all tokens, including [CLS] and [SEP], or "cls", which needs [CLS] states only.
    `starts` holds the first positions of texts packed into a row, which the mask numbers from 1. The result then has an
    axis of texts; for an unused slot it is 0, or with "cls" the first token's state.
    """
    if starts is None:
        starts = jnp.zeros((len(hidden), 1), jnp.int32)
        return pool(hidden, (mask != 0).astype(jnp.int32), pooling, starts)[:, 0]
    hidden, texts = hidden.astype(jnp.float32), starts.shape[1]
    if pooling == "cls":
        return jnp.take_along_axis(hidden, starts[..., None], axis=1)
    in_text = mask[:, None] == jnp.arange(1, texts + 1)[:, None]
    sizes = in_text.sum(axis=2)[..., None]
    if pooling == "max":
        highest = jax.vmap(lambda states, text: jax.ops.segment_max(states, text, texts + 1))(hidden, mask)
        return jnp.where(sizes > 0, highest[:, 1:], 0)
    sums = jnp.einsum("rtl,rlh->rth", in_text.astype(jnp.float32), hidden, precision=jax.lax.Precision.HIGHEST)
    return sums / jnp.maximum(sizes, 1)


def normalize(vectors: Float[Array, "*batch hidden"]) -> Float[Array, "*batch hidden"]:
    """Scales vectors to length 1; zero vectors stay zero, with zero gradients."""
    return vectors * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(vectors), axis=-1, keepdims=True), 1e-24))


class VectorLayers(nn.Module):
    """The dense layers between pooled states and vectors, in f32."""

    config: ModelConfig
    layers: tuple[DenseLayer, ...]

    @nn.compact
    def __call__(self, vectors: Float32[Array, "*batch hidden"]) -> Float32[Array, "*batch features"]:
        """Applies the layers to the last axis."""
        for i, layer in enumerate(self.layers):
            dense = Dense(layer.features, self.config, jnp.float32, head_init, output=True, name=f"layer_{i}")
            vectors = _DENSE_ACTIVATIONS[layer.activation](dense(vectors))
        return vectors


class SentenceModel(nn.Module):
    """Encoder, pooling, and optionally a `task_head`.

    `outputs` is the size of the head over two vectors u and v, which reads (u, v, |u - v|); with 0 there is no head,
    and the score is their cosine. Each example has `texts` consecutive rows.
    """

    config: ModelConfig
    outputs: int = 0
    texts: int = 2
    pooling: str = "mean"
    computation: Computation = Computation()

    def setup(self) -> None:
        """Creates encoder and head."""
        config = self.config
        self.embeddings = Embeddings(config, self.computation.dtype)
        self.encoder = Encoder(config, self.computation)
        if self.outputs:
            self.task_head = Dense(self.outputs, config, jnp.float32, head_init, output=True, name="task_head")

    def __call__(
        self, batch: Batch, dropout_keys: Key[Array, " batch"] | None = None
    ) -> dict[str, Float32[Array, "..."]]:
        """Embeds `input_ids`, `token_type_ids`, `attention_mask` [batch, length], packed as in `FinetuningModel`.

        Returns:
          `vectors` [examples, texts, hidden], and `logits` [examples · texts, outputs]: the score of an example's first
          two texts, by the head or as their cosine, repeated for each of its texts. In packed rows every slot is an
          example.
        """
        shared = SharedInputs.from_batch(batch, dropout_keys)
        x = self.embeddings(batch["input_ids"], batch["token_type_ids"], shared)
        vectors = pool(self.encoder(x, shared), shared.mask, self.pooling, batch.get("cls_positions"))
        vectors = vectors.reshape(-1, self.texts, vectors.shape[-1])
        return {"vectors": vectors, "logits": jnp.repeat(self._logits(vectors), self.texts, axis=0)}

    def _logits(self, vectors: Float32[Array, "examples texts hidden"]) -> Float32[Array, "examples outputs"]:
        first, second = vectors[:, 0], vectors[:, 1]
        if self.outputs:
            return self.task_head(jnp.concatenate([first, second, jnp.abs(first - second)], axis=-1))
        return jnp.sum(normalize(first) * normalize(second), axis=-1, keepdims=True)
