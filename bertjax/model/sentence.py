"""An encoder that turns each text into a vector of its own (Reimers & Gurevych 2019, arXiv:1908.10084)."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

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


def pooled(hidden: jax.Array, mask: jax.Array, pooling: str, begins: jax.Array | None = None) -> jax.Array:
    """f32 vectors of texts: hidden [rows, length, hidden], mask [rows, length], 0 at the padding → [rows, hidden].

    pooling: mean or max over all tokens, [CLS] and [SEP] included, or cls.
    With `begins` [rows, texts] several texts are packed into a row, where they begin, and the mask numbers them from 1
    → [rows, texts, hidden], 0 or the first token's state where there is no text.
    """
    if begins is None:
        begins = jnp.zeros((len(hidden), 1), jnp.int32)
        return pooled(hidden, (mask != 0).astype(jnp.int32), pooling, begins)[:, 0]
    hidden, texts = hidden.astype(jnp.float32), begins.shape[1]
    if pooling == "cls":
        return jnp.take_along_axis(hidden, begins[..., None], axis=1)
    belongs = mask[:, None] == jnp.arange(1, texts + 1)[:, None]
    sizes = belongs.sum(axis=2)[..., None]
    if pooling == "max":
        highest = jax.vmap(lambda states, text: jax.ops.segment_max(states, text, texts + 1))(hidden, mask)
        return jnp.where(sizes > 0, highest[:, 1:], 0)
    sums = jnp.einsum("rtl,rlh->rth", belongs.astype(jnp.float32), hidden, precision=jax.lax.Precision.HIGHEST)
    return sums / jnp.maximum(sizes, 1)


def normalized(vectors: jax.Array) -> jax.Array:
    """Of length 1 along the last axis; zeros, whose gradients are 0, stay zeros."""
    return vectors * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(vectors), axis=-1, keepdims=True), 1e-24))


class VectorLayers(nn.Module):
    """The dense layers between pooled states and vectors, in f32."""

    config: ModelConfig
    layers: tuple[DenseLayer, ...]

    @nn.compact
    def __call__(self, vectors: jax.Array) -> jax.Array:
        """f32 […, hidden] → f32 […, features of the last layer]."""
        for number, layer in enumerate(self.layers):
            dense = Dense(layer.features, self.config, jnp.float32, head_init, output=True, name=f"layer_{number}")
            vectors = _DENSE_ACTIVATIONS[layer.activation](dense(vectors))
        return vectors


class SentenceModel(nn.Module):
    """Encoder, pooling, and perhaps a `task_head`.

    `outputs` is the size of the head over two vectors u and v, which reads (u, v, |u - v|); with 0 there is none, and
    their cosine is the score. `texts` neighbouring rows belong to one example.
    """

    config: ModelConfig
    outputs: int = 0
    texts: int = 2
    pooling: str = "mean"
    computation: Computation = Computation()

    def setup(self) -> None:
        """Makes encoder and head."""
        config = self.config
        self.embeddings = Embeddings(config, self.computation.dtype)
        self.encoder = Encoder(config, self.computation)
        if self.outputs:
            self.task_head = Dense(self.outputs, config, jnp.float32, head_init, output=True, name="task_head")

    def __call__(self, batch: Mapping[str, jax.Array], dropout_keys: jax.Array | None = None) -> dict[str, jax.Array]:
        """Reads `input_ids`, `token_type_ids`, `attention_mask` [rows, length], packed as `FinetuningModel` has it.

        Returns `vectors`, f32 [examples, texts, hidden], and `logits`, f32 [examples · texts, outputs], which are those
        of the example for each of its texts: the head's of its first two, or their cosine. In packed rows every slot is
        an example.
        """
        shared = SharedInputs.of(batch, dropout_keys)
        x = self.embeddings(batch["input_ids"], batch["token_type_ids"], shared)
        vectors = pooled(self.encoder(x, shared), shared.mask, self.pooling, batch.get("cls_positions"))
        vectors = vectors.reshape(-1, self.texts, vectors.shape[-1])
        return {"vectors": vectors, "logits": jnp.repeat(self._logits(vectors), self.texts, axis=0)}

    def _logits(self, vectors: jax.Array) -> jax.Array:
        first, second = vectors[:, 0], vectors[:, 1]
        if self.outputs:
            return self.task_head(jnp.concatenate([first, second, jnp.abs(first - second)], axis=-1))
        return jnp.sum(normalized(first) * normalized(second), axis=-1, keepdims=True)
