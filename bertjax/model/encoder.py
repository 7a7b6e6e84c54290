"""The encoder: embeddings, then stacks of layers.

Pass `query_indices` to compute only those outputs of the last layer: the last layer then computes them alone, unless it
ends a pattern of several layers in a scan. Pass `collect` to read the output of every layer.

Several sequences may be packed into a row. The mask then numbers them from 1, with 0 for padding, packed sequences
cannot attend to one another, and positions restart with each.
"""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Integer, PyTree, Shaped

from bertjax.arrays.types import Params
from bertjax.config.model import ModelConfig
from bertjax.model.attention import SelfAttention, SharedInputs
from bertjax.model.computation import Computation
from bertjax.model.dropout import Dropout
from bertjax.model.layer_stacks import LayerStack, RepeatFunction, layer_stacks, rematerialized, run_repeats
from bertjax.model.layers import Dense, LayerNorm, normal_init, output_init, word_init
from bertjax.model.lookup import lookup
from bertjax.model.ops import activation, matmul_precision
from bertjax.model.partitioning import all_gather_params
from bertjax.parallel.sharding import constrain

# Dropout sites per layer. The embeddings count as layer 0: the sites of layer i start at SITES * (i + 1).
SITES = 4
_EMBEDDINGS, _ATTENTION, _ATTENTION_OUTPUT, _MLP_OUTPUT = range(4)

# From a layer's output [batch, length, hidden] to the values to collect.
Collect = Callable[[Array], Array]


class Embeddings(nn.Module):
    """Sum of word, position and token-type embeddings, LayerNorm, dropout; with `embedding_size` a projection.

    Models with rotary positions have no position table, and models without token types no type table.
    """

    config: ModelConfig
    dtype: DTypeLike

    def setup(self) -> None:
        """Creates the tables, whose parameters are `embedding` [entries, embedding]."""
        config = self.config

        def table(entries: int, init: Callable[..., Array]) -> nn.Embed:
            return nn.Embed(entries, config.embedding_width, dtype=self.dtype, embedding_init=init)

        self.word_embeddings = table(config.padded_vocab_size, word_init(config))
        if not config.global_rope_theta:
            self.position_embeddings = table(config.max_position_embeddings, normal_init(config))
        if config.type_vocab_size:
            self.token_type_embeddings = table(config.type_vocab_size, normal_init(config))
        self.layer_norm = LayerNorm(config, self.dtype, name="layer_norm")
        if config.embedding_size:
            self.projection = Dense(config.hidden_size, config, self.dtype, name="projection")

    def __call__(
        self, input_ids: Int[Array, "batch length"], token_type_ids: Int[Array, "batch length"], shared: SharedInputs
    ) -> Float[Array, "batch length hidden"]:
        """Embeds tokens; positions count from 0 unless there are `shared.position_ids`."""
        length, position_ids = input_ids.shape[1], shared.position_ids
        longest = self.config.max_position_embeddings
        if position_ids is None and length > longest:
            raise ValueError(f"input_ids: {length} tokens exceed max_position_embeddings {longest}; shorten the input")
        x = lookup(self.word_embeddings.embedding.astype(self.dtype), input_ids)
        if not self.config.global_rope_theta:
            positions = self.position_embeddings.embedding.astype(self.dtype)
            x += positions[:length] if position_ids is None else jnp.take(positions, position_ids, axis=0)
        if self.config.type_vocab_size:
            x += self._token_types(token_type_ids)
        x = constrain(self.layer_norm(x), "batch", "length", None)
        x = Dropout(self.config.hidden_dropout_prob, shared.dropout_keys, _EMBEDDINGS)(x)
        return self.projection(x) if self.config.embedding_size else x

    def _token_types(self, token_type_ids: Int[Array, "batch length"]) -> Float[Array, "batch length embedding"]:
        """Looks up token types by a product: for so few types faster than a gather, whose gradient is a scatter."""
        # A model with a single type embeds both segments with it.
        types = jnp.minimum(token_type_ids, self.config.type_vocab_size - 1)
        one_hot = jax.nn.one_hot(types, self.config.type_vocab_size, dtype=self.dtype)
        table = self.token_type_embeddings.embedding.astype(self.dtype)
        return jnp.dot(one_hot, table, precision=matmul_precision(self.dtype))


class Layer(nn.Module):
    """A transformer layer: post-LayerNorm (Vaswani et al. 2017, as in BERT), or pre-LayerNorm with `pre_norm`."""

    config: ModelConfig
    computation: Computation
    local: bool = False  # whether its attention is local
    first: bool = False  # the first layer of the model, whose input the embeddings have normalized

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch length hidden"],
        shared: SharedInputs,
        index: Integer[Array, ""] | int,
        query_indices: Int[Array, "batch queries"] | None = None,
    ) -> Float[Array, "batch queries hidden"]:
        """Computes all outputs, or those at `query_indices`; `index` is this layer's number from 0."""
        config, dtype, keys = self.config, self.computation.dtype, shared.dropout_keys
        site = SITES * (index + 1)
        kv_input, length_axis = x, "length"
        if query_indices is not None:
            x, length_axis = jnp.take_along_axis(x, query_indices[..., None], axis=1), None
            x = constrain(x, "batch", length_axis, None)
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
            x = constrain(x, "batch", length_axis, None)
            inner = LayerNorm(config, dtype, name="mlp_layer_norm")(x)
        else:
            x = constrain(LayerNorm(config, dtype, name="attention_layer_norm")(x), "batch", length_axis, None)
            inner = x
        out = self._mlp(inner, length_axis)
        x = x + Dropout(config.hidden_dropout_prob, keys, site + _MLP_OUTPUT)(out)
        x = x if config.pre_norm else LayerNorm(config, dtype, name="output_layer_norm")(x)
        return constrain(x, "batch", length_axis, None)

    def _mlp(
        self, x: Float[Array, "batch queries hidden"], length_axis: str | None
    ) -> Float[Array, "batch queries hidden"]:
        config, dtype = self.config, self.computation.dtype
        inner = Dense(config.intermediate_size, config, dtype, name="intermediate")(x)
        inner = activation(config.hidden_act)(constrain(inner, "batch", length_axis, "mlp"))
        if config.gated_mlp:
            gate = Dense(config.intermediate_size, config, dtype, name="gate")(x)
            inner *= constrain(gate, "batch", length_axis, "mlp")
        return Dense(config.hidden_size, config, dtype, output_init, name="output")(inner)


class Pattern(nn.Module):
    """The layers that a stack repeats; the body of its scan."""

    config: ModelConfig
    computation: Computation
    stack: LayerStack
    first: bool = False  # the pattern of the model's first stack

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch length hidden"],
        shared: SharedInputs,
        index: Integer[Array, ""],
        query_indices: Int[Array, "batch queries"] | None = None,
        collect: Collect | None = None,
    ) -> tuple[Float[Array, "batch queries hidden"], Shaped[Array, "layers ..."] | None]:
        """Runs the layers, of which the first has number `index`; the last computes `query_indices` only.

        Returns the last layer's output and, with `collect`, the collected values of each layer.
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
    """All stacks in order; the parameters of stack i are named `segment_i`."""

    config: ModelConfig
    computation: Computation

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch length hidden"],
        shared: SharedInputs,
        query_indices: Int[Array, "batch queries"] | None = None,
        collect: Collect | None = None,
    ) -> Float[Array, "batch queries hidden"] | Shaped[Array, "layers ..."]:
        """Returns the last layer's output, all of it or that at `query_indices`.

        With `collect` returns instead the collected values of all layers, from the first to the last; with `pre_norm`
        those of the last layer are read behind the final norm.
        """
        config, computation = self.config, self.computation
        first, collected, stack_indices = 0, [], None
        stacks = layer_stacks(config)
        if self.is_initializing():  # no parameter depends on the implementation, and cuDNN's fails under `vmap`
            computation = dataclasses.replace(computation, attention_impl="xla")
        for i, stack in enumerate(stacks):
            name = f"segment_{i}"
            pattern = Pattern(config, computation, stack, first=i == 0, parent=None)
            params = self._stacked_params(name, pattern, x, shared)
            index = first + stack.layers * jnp.arange(stack.repeats, dtype=jnp.uint32)
            # A pattern outside the scan is compiled a second time, which does not pay for a part of one layer in
            # several. `unroll` must not decide: dropout draws another mask where only `query_indices` are computed.
            separable = stack.layers == 1 or stack.repeats == 1
            stack_indices = query_indices if i == len(stacks) - 1 and separable else None
            # Shared parameters are not scanned over.
            common = jax.tree.map(lambda leaf: leaf[0], params) if stack.shared else None

            body = self._body(name, pattern, common, shared, collect)
            body = rematerialized(body, computation.remat, computation.unroll)
            repeats = (None if stack.shared else params, index)
            x, outputs = run_repeats(body, x, repeats, computation.unroll, stack_indices)
            collected += outputs
            first += stack.layers * stack.repeats
        if query_indices is not None and stack_indices is None:
            x = constrain(jnp.take_along_axis(x, query_indices[..., None], axis=1), "batch", None, None)
        if config.pre_norm:
            x = LayerNorm(config, computation.dtype, name="final_layer_norm")(x)
        if collect is None:
            return x
        layers = jnp.concatenate([jnp.concatenate(part) for part in collected])
        return layers.at[-1].set(collect(x)) if config.pre_norm else layers

    def _stacked_params(
        self, name: str, pattern: Pattern, x: Float[Array, "batch length hidden"], shared: SharedInputs
    ) -> Params:
        """Returns a stack's parameters; when initializing, draws those of each repeat with its own key."""
        if self.has_variable("params", name):  # `param` would refuse quantized parameters
            return self.get_variable("params", name)

        def init(key: Array) -> PyTree:
            keys = jax.random.split(key, pattern.stack.stacked)
            inputs = SharedInputs(shared.mask)
            return jax.vmap(lambda key: pattern.init(key, x, inputs, jnp.uint32(0))["params"])(keys)

        return self.param(name, init)

    def _body(
        self, name: str, pattern: Pattern, common: PyTree, shared: SharedInputs, collect: Collect | None
    ) -> RepeatFunction:
        """Returns one repeat of a stack, as `run_repeats` calls it with its (parameters, index).

        Parameters that the repeats share are passed as `common`; those of each repeat are then None.
        """

        def body(x: Array, repeat: tuple[PyTree, Array], query_indices: Array | None = None) -> tuple[Array, PyTree]:
            own, index = repeat
            params = all_gather_params(common if own is None else own, self.computation.dtype, f"encoder/{name}/")
            return pattern.apply({"params": params}, x, shared, index, query_indices, collect)

        return body
