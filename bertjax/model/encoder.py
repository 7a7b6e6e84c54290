"""The encoder: embeddings, then segments of layers.

A segment is a pattern of layers that is repeated; its parameters are stacked over the repeats, [repeats, …], and it
runs as one `jax.lax.scan`. `unroll` says how many repeats the compiler sees at once and changes neither tree nor
numbers. BERT is one segment: one layer, `num_hidden_layers` times. In ALBERT all repeats of a segment share their
parameters: a stack of one. ModernBERT's layers differ: the first, then (local, local, global) again and again, and
those that are left over.

Who reads only some positions of the result can name them: the very last layer then computes these rows alone, unless
it ends a longer pattern in a scan. Who reads every layer's output says what to collect of each.

Several sequences may be packed into a row. The mask then numbers them from 1, with 0 for padding, no token sees those
of another sequence, and positions restart.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bertjax.config.model import ModelConfig
from bertjax.model import fused_attention
from bertjax.model.attention import SelfAttention
from bertjax.model.dropout import dropout
from bertjax.model.layers import (
    PRODUCT,
    Dense,
    activation,
    layer_norm,
    matmul_precision,
    normal_init,
    output_init,
    word_init,
)
from bertjax.model.lookup import lookup
from bertjax.model.partitioning import all_gather_layer_params
from bertjax.parallel.sharding import constrain

# Where a layer drops. The embeddings are "layer" 0, so that layer i owns the sites from SITES * (i + 1) on.
SITES = 4
_EMBEDDINGS, _ATTENTION, _ATTENTION_OUTPUT, _MLP_OUTPUT = range(4)

Collect = Callable[[jax.Array], jax.Array]  # of a layer's output [batch, length, hidden]


@dataclass(frozen=True)
class Segment:
    """`repeats` times a pattern of layers."""

    local: tuple[bool, ...]  # of each layer of the pattern, whether its attention is
    repeats: int
    shared: bool = False  # one set of parameters for all repeats

    @property
    def layers(self) -> int:
        """How many the pattern has."""
        return len(self.local)

    @property
    def stacked(self) -> int:
        """How many sets of parameters there are."""
        return 1 if self.shared else self.repeats


def segments(config: ModelConfig) -> tuple[Segment, ...]:
    """How the layers of a config are cut into segments."""
    count = config.num_hidden_layers
    if config.num_hidden_groups:
        repeats = count // config.num_hidden_groups
        return (Segment((False,), repeats, shared=True),) * config.num_hidden_groups
    if not (config.pre_norm or config.local_attention):
        return (Segment((False,), count),)
    # The first layer is unlike all others: it alone lacks a norm, and the pattern ends with the next that sees all.
    repeats, rest = divmod(count - 1, config.global_attn_every_n_layers)
    pattern = tuple(config.is_local(i + 1) for i in range(config.global_attn_every_n_layers))
    plan = (Segment((False,), 1), Segment(pattern, repeats), Segment(pattern[:rest], 1))
    return tuple(segment for segment in plan if segment.layers and segment.repeats)


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
        self.layer_norm = layer_norm(config, self.dtype, "layer_norm")
        if config.embedding_size:
            self.projection = Dense(config.hidden_size, config, self.dtype, name="projection")

    def __call__(
        self,
        input_ids: jax.Array,
        token_type_ids: jax.Array,
        dropout_keys: jax.Array | None,
        position_ids: jax.Array | None = None,
    ) -> jax.Array:
        """input_ids, token_type_ids: [batch, length] → [batch, length, hidden].

        Positions are 0, 1, … where there are no `position_ids` [batch, length].
        """
        length = input_ids.shape[1]
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
        x = dropout(x, self.config.hidden_dropout_prob, dropout_keys, _EMBEDDINGS)
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
    dtype: jnp.dtype
    kernel: str = "xla"  # of attention
    platform: str = ""  # as of `SelfAttention`
    local: bool = False  # whether its attention is
    first: bool = False  # of all layers: what the embeddings give is normalised already

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array,
        dropout_keys: jax.Array | None,
        index: jax.Array | int,
        positions: jax.Array | None = None,
        position_ids: jax.Array | None = None,
    ) -> jax.Array:
        """x: [batch, length, hidden], mask: [batch, length], index: this layer's number from 0.

        Returns every row, or those at `positions` [batch, rows]: [batch, rows, hidden]. With `position_ids` [batch,
        length] the mask numbers sequences.
        """
        config = self.config
        site = SITES * (index + 1)
        everywhere, length = x, "length"
        if positions is not None:
            x, length = jnp.take_along_axis(x, positions[..., None], axis=1), None
            x = constrain(x, "batch", length, None)
        asking, seen = x, everywhere
        if config.pre_norm and not self.first:
            norm = layer_norm(config, self.dtype, "attention_layer_norm")
            seen = norm(everywhere)
            asking = seen if positions is None else norm(x)
        attention = SelfAttention(config, self.dtype, self.kernel, self.platform, self.local, name="attention")
        attended = attention(asking, seen, mask, dropout_keys, site + _ATTENTION, positions, position_ids)
        rate = config.attention_output_dropout_prob
        rate = config.hidden_dropout_prob if rate < 0 else rate
        x = x + dropout(attended, rate, dropout_keys, site + _ATTENTION_OUTPUT)
        if config.pre_norm:
            x = constrain(x, "batch", length, None)
            inner = layer_norm(config, self.dtype, "mlp_layer_norm")(x)
        else:
            x = constrain(layer_norm(config, self.dtype, "attention_layer_norm")(x), "batch", length, None)
            inner = x
        out = self._mlp(inner, length)
        x = x + dropout(out, config.hidden_dropout_prob, dropout_keys, site + _MLP_OUTPUT)
        x = x if config.pre_norm else layer_norm(config, self.dtype, "output_layer_norm")(x)
        return constrain(x, "batch", length, None)

    def _mlp(self, x: jax.Array, length: str | None) -> jax.Array:
        """x: [batch, rows, hidden] → like it."""
        config = self.config
        inner = Dense(config.intermediate_size, config, self.dtype, name="intermediate")(x)
        inner = activation(config.hidden_act)(constrain(inner, "batch", length, "mlp"))
        if config.gated_mlp:
            gate = Dense(config.intermediate_size, config, self.dtype, name="gate")(x)
            inner *= constrain(gate, "batch", length, "mlp")
        return Dense(config.hidden_size, config, self.dtype, output_init, name="output")(inner)


class Pattern(nn.Module):
    """The layers that a segment repeats; the body of its scan."""

    config: ModelConfig
    dtype: jnp.dtype
    local: tuple[bool, ...]  # as of `Segment`
    kernel: str = "xla"
    platform: str = ""
    first: bool = False  # of all segments

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array,
        dropout_keys: jax.Array | None,
        index: jax.Array,
        positions: jax.Array | None = None,
        collect: Collect | None = None,
        position_ids: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array | None]:
        """x: [batch, length, hidden]; index: the number of the first layer; the last one computes `positions`.

        Returns the last layer's output and, with `collect`, what that gives of each, [layers, …].
        """
        collected = []
        for i, local in enumerate(self.local):
            chosen = positions if i == len(self.local) - 1 else None
            first = self.first and i == 0
            layer = Layer(self.config, self.dtype, self.kernel, self.platform, local, first, name=f"layer_{i}")
            x = layer(x, mask, dropout_keys, index + i, chosen, position_ids)
            if collect is not None:
                collected.append(collect(x))
        return x, jnp.stack(collected) if collected else None


@dataclass(frozen=True)
class _Read:
    """What every layer reads beside what the one below it gives."""

    mask: jax.Array
    dropout_keys: jax.Array | None
    collect: Collect | None
    position_ids: jax.Array | None


class Encoder(nn.Module):
    """All segments, one after the other."""

    config: ModelConfig
    dtype: jnp.dtype
    unroll: int = 1
    remat: str = "none"
    kernel: str = "xla"  # of attention
    platform: str = ""  # as of `SelfAttention`

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array,
        dropout_keys: jax.Array | None,
        positions: jax.Array | None = None,
        collect: Collect | None = None,
        position_ids: jax.Array | None = None,
    ) -> jax.Array:
        """x: [batch, length, hidden], mask: [batch, length] → [batch, length, hidden].

        With `positions` [batch, rows] only their rows, [batch, rows, hidden]. With `collect` what it gives of each
        layer's output, from the first to the last, [layers, …]; the last is normalised with `pre_norm`. Where rows are
        packed there are `position_ids` [batch, length], and the mask numbers sequences.
        """
        read = _Read(mask, dropout_keys, collect, position_ids)
        first, collected = 0, []
        plan = segments(self.config)
        # No parameter depends on the kernel, and cuDNN's fails under the `vmap` of the stacked initialiser.
        kernel = "xla" if self.is_initializing() else self.kernel
        for i, segment in enumerate(plan):
            pattern = Pattern(self.config, self.dtype, segment.local, kernel, self.platform, first=i == 0, parent=None)
            params = self._stacked(f"segment_{i}", _stacked_init(pattern, segment.stacked), x, mask)
            index = first + segment.layers * jnp.arange(segment.repeats, dtype=jnp.uint32)
            # A pattern outside the scan is compiled once more, which for several layers is not worth a part of one.
            # `unroll` must not decide: dropout draws another mask where only `positions` are computed.
            alone = segment.layers == 1 or segment.repeats == 1
            chosen = positions if i == len(plan) - 1 and alone else None
            # What is shared is no part of what the scan runs over.
            shared = jax.tree.map(lambda leaf: leaf[0], params) if segment.shared else None
            repeats = (None if segment.shared else params, index)
            x, outputs = self._run(f"segment_{i}", pattern, repeats, shared, x, read, chosen)
            collected.append(outputs)
            first += segment.layers * segment.repeats
        if positions is not None and chosen is None:
            x = constrain(jnp.take_along_axis(x, positions[..., None], axis=1), "batch", None, None)
        if self.config.pre_norm:
            x = layer_norm(self.config, self.dtype, "final_layer_norm")(x)
        if collect is None:
            return x
        layers = jnp.concatenate(collected)
        return layers.at[-1].set(collect(x)) if self.config.pre_norm else layers

    def _stacked(self, name: str, init: Callable, x: jax.Array, mask: jax.Array) -> Any:
        """A segment's parameters; where there are some as they are: `param` would refuse what is quantised."""
        there = self.has_variable("params", name)
        return self.get_variable("params", name) if there else self.param(name, init, x, mask)

    def _run(
        self,
        name: str,
        pattern: Pattern,
        repeats: Any,
        shared: Any,
        x: jax.Array,
        read: "_Read",
        positions: jax.Array | None,
    ) -> tuple[jax.Array, jax.Array | None]:
        """A segment; `repeats` are its stacked (parameters or None, index), `shared` the parameters of all repeats.

        Returns its output and what is collected.
        """

        def one(x: jax.Array, repeat: Any, positions: jax.Array | None = None) -> tuple[jax.Array, jax.Array | None]:
            params, index = repeat
            params = shared if params is None else params
            params = all_gather_layer_params(params, self.dtype, f"encoder/{name}/")
            others = (positions, read.collect, read.position_ids)
            return pattern.apply({"params": params}, x, read.mask, read.dropout_keys, index, *others)

        if self.remat != "none":
            # In a scan nothing can be merged with what was computed before, which the barriers would prevent.
            one = jax.checkpoint(one, policy=_remat_policy(self.remat), prevent_cse=self.unroll > 1)
        count = len(repeats[1])
        # Those outside the scan: all that are unrolled in any case, or the last one, which is not like the others.
        singles = count if self.unroll >= count else int(positions is not None)
        scanned, *others = _split(repeats, [count - singles] + [1] * singles)
        collected = []  # [repeats, layers, …]
        if count > singles:
            x, outputs = jax.lax.scan(one, x, scanned, unroll=max(1, min(self.unroll, count - singles)))
            collected.append(outputs)
        for i, repeat in enumerate(others):
            repeat = jax.tree.map(lambda leaf: leaf[0], repeat)
            x, outputs = one(x, repeat, positions if i == len(others) - 1 else None)
            collected.append(jax.tree.map(lambda leaf: leaf[None], outputs))
        return x, None if read.collect is None else jnp.concatenate(jnp.concatenate(collected))


def _remat_policy(name: str) -> Callable:
    """What is kept of a layer for the backward pass; everything else is computed again.

    "full" keeps only what goes into the layer. "dots" keeps the products with parameters. "bert" keeps the contexts of
    attention as well, so that of products only the scores are computed again, beside LayerNorm, GELU and dropout.
    """
    policies = jax.checkpoint_policies
    return {
        "full": policies.nothing_saveable,
        "dots": policies.dots_with_no_batch_dims_saveable,
        "bert": policies.save_from_both_policies(
            policies.save_only_these_names(PRODUCT, fused_attention.CONTEXT), fused_attention.saves
        ),
    }[name]


def _split(tree: Any, sizes: list[int]) -> list[Any]:
    """A tree of stacked arrays cut along their first axis; the gradients of the parts are joined in one go."""
    leaves, structure = jax.tree.flatten(tree)
    parts = zip(*(jax.lax.split(leaf, sizes) for leaf in leaves), strict=True)
    return [jax.tree.unflatten(structure, part) for part in parts]


def _stacked_init(pattern: Pattern, repeats: int) -> Callable:
    """The initialiser of a segment's parameters, each repeat with a key of its own."""

    def init(key: jax.Array, x: jax.Array, mask: jax.Array) -> Any:
        keys = jax.random.split(key, repeats)
        return jax.vmap(lambda key: pattern.init(key, x, mask, None, jnp.uint32(0))["params"])(keys)

    return init
