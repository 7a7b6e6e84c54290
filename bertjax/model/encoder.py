"""The encoder: embeddings, then stacks of layers.

Pass `query_indices` to compute only those rows of the last layer's output: the very last layer then computes them
alone, unless it ends a longer pattern in a scan. Pass `collect` to read every layer's output.

Several sequences may be packed into a row. The mask then numbers them from 1, with 0 for padding, no token sees those
of another sequence, and positions restart.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bertjax.config.model import ModelConfig
from bertjax.model.attention import SelfAttention, SharedInputs
from bertjax.model.computation import Computation
from bertjax.model.dropout import Dropout
from bertjax.model.layer_stacks import LayerStack, layer_stacks, rematerialized, run_repeats
from bertjax.model.layers import Dense, LayerNorm, normal_init, output_init, word_init
from bertjax.model.lookup import lookup
from bertjax.model.ops import activation, matmul_precision
from bertjax.model.partitioning import all_gather_params
from bertjax.parallel.sharding import constrain

# Where a layer drops. The embeddings are "layer" 0, so that layer i owns the sites from SITES * (i + 1) on.
SITES = 4
_EMBEDDINGS, _ATTENTION, _ATTENTION_OUTPUT, _MLP_OUTPUT = range(4)

Collect = Callable[[jax.Array], jax.Array]  # of a layer's output [batch, length, hidden]


class Embeddings(nn.Module):
    """Sum of word, position and token-type embeddings, LayerNorm, dropout; with `embedding_size` a projection.

    There are no tables of positions where attention rotates, and of types where the config has none.
    """

    config: ModelConfig
    dtype: jnp.dtype

    def setup(self) -> None:
        """Makes the tables; their parameters are `embedding` [rows, hidden]."""
        config = self.config

        def table(rows: int, init: Callable) -> nn.Embed:
            return nn.Embed(rows, config.embedding_width, dtype=self.dtype, embedding_init=init)

        self.word_embeddings = table(config.padded_vocab_size, word_init(config))
        if not config.global_rope_theta:
            self.position_embeddings = table(config.max_position_embeddings, normal_init(config))
        if config.type_vocab_size:
            self.token_type_embeddings = table(config.type_vocab_size, normal_init(config))
        self.layer_norm = LayerNorm(config, self.dtype, name="layer_norm")
        if config.embedding_size:
            self.projection = Dense(config.hidden_size, config, self.dtype, name="projection")

    def __call__(self, input_ids: jax.Array, token_type_ids: jax.Array, shared: SharedInputs) -> jax.Array:
        """input_ids, token_type_ids: [batch, length] → [batch, length, hidden].

        Positions are 0, 1, … where there are no `shared.position_ids`.
        """
        length, position_ids = input_ids.shape[1], shared.position_ids
        if position_ids is None and length > self.config.max_position_embeddings:
            raise ValueError(
                f"length {length} is more than max_position_embeddings {self.config.max_position_embeddings}"
            )
        x = lookup(self.word_embeddings.embedding.astype(self.dtype), input_ids)
        if not self.config.global_rope_theta:
            positions = self.position_embeddings.embedding.astype(self.dtype)
            x += positions[:length] if position_ids is None else jnp.take(positions, position_ids, axis=0)
        if self.config.type_vocab_size:
            x += self._token_types(token_type_ids)
        x = constrain(self.layer_norm(x), "batch", "length", None)
        x = Dropout(self.config.hidden_dropout_prob, shared.dropout_keys, _EMBEDDINGS)(x)
        return self.projection(x) if self.config.embedding_size else x

    def _token_types(self, token_type_ids: jax.Array) -> jax.Array:
        """So few rows are faster by a product than by a gather, whose gradient is a scatter."""
        # A model with one type reads both segments as of it.
        types = jnp.minimum(token_type_ids, self.config.type_vocab_size - 1)
        one_hot = jax.nn.one_hot(types, self.config.type_vocab_size, dtype=self.dtype)
        table = self.token_type_embeddings.embedding.astype(self.dtype)
        return jnp.dot(one_hot, table, precision=matmul_precision(self.dtype))


class Layer(nn.Module):
    """A transformer layer: post-LayerNorm (Vaswani et al. 2017, as BERT uses it), or with `pre_norm` pre-LayerNorm."""

    config: ModelConfig
    computation: Computation
    local: bool = False  # whether its attention is
    first: bool = False  # of all layers: what the embeddings give is normalised already

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        shared: SharedInputs,
        index: jax.Array | int,
        query_indices: jax.Array | None = None,
    ) -> jax.Array:
        """x: [batch, length, hidden], index: this layer's number from 0.

        Returns every row, or those at `query_indices` [batch, rows]: [batch, rows, hidden].
        """
        config, dtype, keys = self.config, self.computation.dtype, shared.dropout_keys
        site = SITES * (index + 1)
        kv_input, length = x, "length"
        if query_indices is not None:
            x, length = jnp.take_along_axis(x, query_indices[..., None], axis=1), None
            x = constrain(x, "batch", length, None)
        query_input = x
        if config.pre_norm and not self.first:
            norm = LayerNorm(config, dtype, name="attention_layer_norm")
            kv_input = norm(kv_input)
            query_input = kv_input if query_indices is None else norm(x)
        attention = SelfAttention(config, self.computation, self.local, name="attention")
        attended = attention(query_input, kv_input, shared, site + _ATTENTION, query_indices)
        rate = config.attention_output_dropout_prob
        rate = config.hidden_dropout_prob if rate < 0 else rate
        x = x + Dropout(rate, keys, site + _ATTENTION_OUTPUT)(attended)
        if config.pre_norm:
            x = constrain(x, "batch", length, None)
            inner = LayerNorm(config, dtype, name="mlp_layer_norm")(x)
        else:
            x = constrain(LayerNorm(config, dtype, name="attention_layer_norm")(x), "batch", length, None)
            inner = x
        out = self._mlp(inner, length)
        x = x + Dropout(config.hidden_dropout_prob, keys, site + _MLP_OUTPUT)(out)
        x = x if config.pre_norm else LayerNorm(config, dtype, name="output_layer_norm")(x)
        return constrain(x, "batch", length, None)

    def _mlp(self, x: jax.Array, length: str | None) -> jax.Array:
        """x: [batch, rows, hidden] → like it."""
        config, dtype = self.config, self.computation.dtype
        inner = Dense(config.intermediate_size, config, dtype, name="intermediate")(x)
        inner = activation(config.hidden_act)(constrain(inner, "batch", length, "mlp"))
        if config.gated_mlp:
            gate = Dense(config.intermediate_size, config, dtype, name="gate")(x)
            inner *= constrain(gate, "batch", length, "mlp")
        return Dense(config.hidden_size, config, dtype, output_init, name="output")(inner)


class Pattern(nn.Module):
    """The layers that a stack repeats; the body of its scan."""

    config: ModelConfig
    computation: Computation
    stack: LayerStack
    first: bool = False  # of all stacks

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        shared: SharedInputs,
        index: jax.Array,
        query_indices: jax.Array | None = None,
        collect: Collect | None = None,
    ) -> tuple[jax.Array, jax.Array | None]:
        """x: [batch, length, hidden]; index: the number of the first layer; the last computes `query_indices` only.

        Returns the last layer's output and, with `collect`, what that gives of each, [layers, …].
        """
        collected = []
        for i, local in enumerate(self.stack.local):
            last = i == self.stack.layers - 1
            layer = Layer(self.config, self.computation, local, self.first and i == 0, name=f"layer_{i}")
            x = layer(x, shared, index + i, query_indices if last else None)
            if collect is not None:
                collected.append(collect(x))
        return x, jnp.stack(collected) if collected else None


class Encoder(nn.Module):
    """All stacks, one after the other; the parameters of stack i are named `segment_i`."""

    config: ModelConfig
    computation: Computation

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        shared: SharedInputs,
        query_indices: jax.Array | None = None,
        collect: Collect | None = None,
    ) -> jax.Array:
        """x: [batch, length, hidden] → [batch, length, hidden].

        With `query_indices` [batch, rows] only their rows, [batch, rows, hidden]. With `collect` what it gives of each
        layer's output, from the first to the last, [layers, …]; the last is normalised with `pre_norm`.
        """
        config, how = self.config, self.computation
        first, collected = 0, []
        stacks = layer_stacks(config)
        if self.is_initializing():  # no parameter depends on it, and cuDNN's fails under `vmap`
            how = dataclasses.replace(how, attention_impl="xla")
        for i, stack in enumerate(stacks):
            name = f"segment_{i}"
            pattern = Pattern(config, how, stack, first=i == 0, parent=None)
            params = self._stacked_params(name, pattern, x, shared)
            index = first + stack.layers * jnp.arange(stack.repeats, dtype=jnp.uint32)
            # A pattern outside the scan is compiled once more, which for several layers is not worth a part of one.
            # `unroll` must not decide: dropout draws another mask where only `query_indices` are computed.
            alone = stack.layers == 1 or stack.repeats == 1
            chosen = query_indices if i == len(stacks) - 1 and alone else None
            # What is shared is no part of what the scan runs over.
            common = jax.tree.map(lambda leaf: leaf[0], params) if stack.shared else None

            body = rematerialized(self._body(name, pattern, common, shared, collect), how.remat, how.unroll)
            x, outputs = run_repeats(body, x, (None if stack.shared else params, index), how.unroll, chosen)
            collected += outputs
            first += stack.layers * stack.repeats
        if query_indices is not None and chosen is None:
            x = constrain(jnp.take_along_axis(x, query_indices[..., None], axis=1), "batch", None, None)
        if config.pre_norm:
            x = LayerNorm(config, how.dtype, name="final_layer_norm")(x)
        if collect is None:
            return x
        layers = jnp.concatenate([jnp.concatenate(part) for part in collected])
        return layers.at[-1].set(collect(x)) if config.pre_norm else layers

    def _stacked_params(self, name: str, pattern: Pattern, x: jax.Array, shared: SharedInputs) -> Any:
        """A stack's parameters; where there are none, new ones, each repeat's with a key of its own."""
        if self.has_variable("params", name):  # `param` would refuse what is quantised
            return self.get_variable("params", name)

        def init(key: jax.Array) -> Any:
            keys = jax.random.split(key, pattern.stack.stacked)
            inputs = SharedInputs(shared.mask)
            return jax.vmap(lambda key: pattern.init(key, x, inputs, jnp.uint32(0))["params"])(keys)

        return self.param(name, init)

    def _body(
        self, name: str, pattern: Pattern, common: Any, shared: SharedInputs, collect: Collect | None
    ) -> Callable[..., tuple[jax.Array, jax.Array | None]]:
        """One repeat of a stack, as `run_repeats` calls it with its (parameters, index).

        Where the repeats share their parameters, these are `common`, and None in each repeat.
        """

        def body(
            x: jax.Array, repeat: tuple[Any, jax.Array], query_indices: jax.Array | None = None
        ) -> tuple[jax.Array, jax.Array | None]:
            own, index = repeat
            params = all_gather_params(common if own is None else own, self.computation.dtype, f"encoder/{name}/")
            return pattern.apply({"params": params}, x, shared, index, query_indices, collect)

        return body
