"""The encoder: embeddings, then segments of layers.

A segment is a pattern of layers that is repeated; its parameters are stacked over the repeats, [repeats, …], and it
runs as one `nn.scan`. `unroll` says how many repeats the compiler sees at once and changes neither tree nor numbers.
BERT is one segment: one layer, `num_hidden_layers` times.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from bertjax.config import ModelConfig
from bertjax.model.attention import SelfAttention
from bertjax.model.dropout import dropout
from bertjax.model.layers import activation, dense, layer_norm, matmul_precision, normal_init

# Where a layer drops. The embeddings are "layer" 0, so that layer i owns the sites from SITES * (i + 1) on.
SITES = 4
_EMBEDDINGS, _ATTENTION, _ATTENTION_OUTPUT, _MLP_OUTPUT = range(4)


@dataclass(frozen=True)
class Segment:
    """`repeats` times a pattern of `layers` layers."""

    layers: int
    repeats: int


def segments(config: ModelConfig) -> tuple[Segment, ...]:
    """How the layers of a config are cut into segments."""
    return (Segment(layers=1, repeats=config.num_hidden_layers),)


class Embeddings(nn.Module):
    """Sum of word, position and token-type embeddings, LayerNorm, dropout."""

    config: ModelConfig
    dtype: jnp.dtype

    def setup(self) -> None:
        """Makes the tables; their parameters are `embedding` [rows, hidden]."""
        config = self.config

        def table(rows: int) -> nn.Embed:
            return nn.Embed(rows, config.hidden_size, dtype=self.dtype, embedding_init=normal_init(config))

        self.word_embeddings = table(config.vocab_size)
        self.position_embeddings = table(config.max_position_embeddings)
        self.token_type_embeddings = table(config.type_vocab_size)
        self.layer_norm = layer_norm(config, self.dtype, "layer_norm")

    def __call__(self, input_ids: jax.Array, token_type_ids: jax.Array, dropout_keys: jax.Array | None) -> jax.Array:
        """input_ids, token_type_ids: [batch, length] → [batch, length, hidden]."""
        length = input_ids.shape[1]
        if length > self.config.max_position_embeddings:
            raise ValueError(
                f"length {length} is more than max_position_embeddings {self.config.max_position_embeddings}"
            )
        words = self.word_embeddings(input_ids)
        positions = self.position_embeddings.embedding[:length].astype(self.dtype)
        # So few rows are faster by a product than by a gather, whose gradient is a scatter.
        one_hot = jax.nn.one_hot(token_type_ids, self.config.type_vocab_size, dtype=self.dtype)
        types = jnp.dot(
            one_hot,
            self.token_type_embeddings.embedding.astype(self.dtype),
            precision=matmul_precision(self.dtype),
        )
        x = self.layer_norm(words + positions + types)
        return dropout(x, self.config.hidden_dropout_prob, dropout_keys, _EMBEDDINGS)


class Layer(nn.Module):
    """A post-LayerNorm transformer layer (Vaswani et al. 2017, as BERT uses it)."""

    config: ModelConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: jax.Array, dropout_keys: jax.Array | None, index: jax.Array | int
    ) -> jax.Array:
        """x: [batch, length, hidden], mask: [batch, length], index: this layer's number from 0."""
        config = self.config
        site = SITES * (index + 1)
        rate = config.hidden_dropout_prob
        attended = SelfAttention(config, self.dtype, name="attention")(x, mask, dropout_keys, site + _ATTENTION)
        attended = dropout(attended, rate, dropout_keys, site + _ATTENTION_OUTPUT)
        x = layer_norm(config, self.dtype, "attention_layer_norm")(x + attended)
        inner = activation(config)(dense(config.intermediate_size, config, self.dtype, "intermediate")(x))
        out = dense(config.hidden_size, config, self.dtype, "output")(inner)
        out = dropout(out, rate, dropout_keys, site + _MLP_OUTPUT)
        return layer_norm(config, self.dtype, "output_layer_norm")(x + out)


class Pattern(nn.Module):
    """The layers that a segment repeats; the body of its scan."""

    config: ModelConfig
    dtype: jnp.dtype
    layers: int

    @nn.compact
    def __call__(
        self, x: jax.Array, index: jax.Array, mask: jax.Array, dropout_keys: jax.Array | None
    ) -> tuple[jax.Array, None]:
        """x: [batch, length, hidden]; index: the number of the pattern's first layer."""
        for i in range(self.layers):
            x = Layer(self.config, self.dtype, name=f"layer_{i}")(x, mask, dropout_keys, index + i)
        return x, None


class Encoder(nn.Module):
    """All segments, one after the other."""

    config: ModelConfig
    dtype: jnp.dtype
    unroll: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, dropout_keys: jax.Array | None) -> jax.Array:
        """x: [batch, length, hidden], mask: [batch, length] → [batch, length, hidden]."""
        first = 0
        for i, segment in enumerate(segments(self.config)):
            scanned = nn.scan(
                Pattern,
                variable_axes={"params": 0},
                split_rngs={"params": True},
                in_axes=(0, nn.broadcast, nn.broadcast),
                length=segment.repeats,
                unroll=min(self.unroll, segment.repeats),
            )
            index = first + segment.layers * jnp.arange(segment.repeats, dtype=jnp.uint32)
            pattern = scanned(self.config, self.dtype, segment.layers, name=f"segment_{i}")
            x, _ = pattern(x, index, mask, dropout_keys)
            first += segment.layers * segment.repeats
        return x
