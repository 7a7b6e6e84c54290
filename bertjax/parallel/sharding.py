"""Where arrays lie on the mesh: one table gives every parameter its logical axes, a few rules lay these on the mesh.

A new layout is a change of RULES; the model names logical axes only. Without a mesh in force (see `on`) `constrain` and
`gathered` move nothing, so that a model runs as it is on one device.
"""

import math
import re
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bertjax.arrays.trees import path_name
from bertjax.config.model import ModelConfig
from bertjax.config.pretraining import Config
from bertjax.errors import UserError
from bertjax.model.quantization import Quantized

# Where each logical axis lies; of one that lies nowhere every device holds all.
RULES: dict[str, tuple[str, ...]] = {
    # of activations
    "batch": ("data", "fsdp"),
    "length": ("sequence",),
    # of parameters and activations: what tensor parallelism splits
    "heads": ("tensor",),
    "mlp": ("tensor",),
    "vocab": ("tensor",),
    # of parameters: what FSDP splits, and what nobody does
    "embed": ("fsdp",),
    "layers": (),
    "small": (),
}

# The arrays of a batch that are [batch, length]; all others are split by rows alone.
_SEQUENCES = ("input_ids", "token_type_ids", "attention_mask", "position_ids")

_LAYER = r"encoder/segment_\d+/layer_\d+/"
# Parameter path → logical axes; a path has exactly one rule.
PARAMETERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"embeddings/word_embeddings/embedding", ("vocab", "embed")),
    (r"embeddings/(position|token_type)_embeddings/embedding", ("small", "embed")),
    (r"embeddings/projection/kernel", ("small", "embed")),
    (r"(embeddings|masked_lm_head|prediction_head)/layer_norm/(scale|bias)", ("small",)),
    (r"encoder/final_layer_norm/(scale|bias)", ("small",)),
    (_LAYER + r"attention/(query|key|value)/kernel", ("layers", "embed", "heads")),
    (_LAYER + r"attention/(query|key|value)/bias", ("layers", "heads")),
    (_LAYER + r"attention/output/kernel", ("layers", "heads", "embed")),
    (_LAYER + r"(intermediate|gate)/kernel", ("layers", "embed", "mlp")),
    (_LAYER + r"(intermediate|gate)/bias", ("layers", "mlp")),
    (_LAYER + r"output/kernel", ("layers", "mlp", "embed")),
    (_LAYER + r"(attention/)?output/bias", ("layers", "small")),
    (_LAYER + r"(attention|mlp|output)_layer_norm/(scale|bias)", ("layers", "small")),
    (r"((masked_lm|prediction)_head/dense|pooler)/kernel", ("embed", "small")),
    (r"(next_sentence|sentence_order|task)_head/kernel", ("small", "small")),
    (r"((masked_lm|prediction)_head/dense|(next_sentence|sentence_order|task)_head)/bias", ("small",)),
    (r"(embeddings/projection|pooler)/bias", ("small",)),
    (r"masked_lm_head/bias", ("vocab",)),
    (r"layer_mixture/weights", ("small",)),
    (r"layer_mixture/scale", ()),
)


def logical_axes(name: str) -> tuple[str, ...]:
    """The logical axes of the parameter at path `name`, also where the path stands within an optimizer's state.

    Raises:
      ValueError: a path that no rule, or more than one, names.
    """
    found = [axes for pattern, axes in PARAMETERS if re.search(rf"(^|/){pattern}$", name)]
    if len(found) != 1:
        raise ValueError(f"{len(found)} sharding rules name {name}; it must be exactly one")
    return found[0]


def is_stacked(name: str) -> bool:
    """Whether the first axis of the parameter at path `name` counts layers."""
    return "layers" in logical_axes(name)


def spec(axes: tuple[str, ...], without: tuple[str, ...] = ()) -> PartitionSpec:
    """Logical axes as mesh axes, those of `without` left out."""
    laid = [tuple(axis for axis in RULES[name] if axis not in without) for name in axes]
    return PartitionSpec(*(axes or None for axes in laid))


def of_state(tree: Any, mesh: Mesh) -> Any:
    """A sharding for each array of a tree of parameters or optimizer state (arrays or their shapes)."""

    def one(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        axes = logical_axes(path_name(path)) if leaf.ndim else ()
        return NamedSharding(mesh, spec(axes))

    return jax.tree_util.tree_map_with_path(one, tree)


def of_batch(batch: Any, mesh: Mesh) -> dict[str, NamedSharding]:
    """A sharding for each array of a batch."""
    rows, sequences = NamedSharding(mesh, spec(("batch",))), NamedSharding(mesh, spec(("batch", "length")))
    return {name: sequences if name in _SEQUENCES else rows for name in batch}


def on(mesh: Mesh) -> AbstractContextManager[Any]:
    """Puts a mesh in force while a function is traced."""
    return jax.sharding.use_abstract_mesh(mesh.abstract_mesh)


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """`x` laid out as its logical axes say; of an axis None every device holds all."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, spec(tuple(axis or "small" for axis in axes)))


def gathered(params: Any, dtype: jnp.dtype) -> Any:
    """Parameters for use, all but those of layers: gathered over the fsdp axis, which only stores them.

    What is gathered travels in `dtype`; the gradients go back scattered.
    """
    return jax.tree_util.tree_map_with_path(lambda path, leaf: _use(leaf, logical_axes(path_name(path)), dtype), params)


def gathered_layer(params: Any, dtype: jnp.dtype, segment: str) -> Any:
    """The same of one layer's parameters, taken out of the stack of `segment` ("encoder/segment_0/").

    To be called where the layer runs, so that its parameters are whole, and wide where they are quantised, only
    meanwhile.
    """

    def one(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        return _use(leaf, logical_axes(segment + path_name(path))[1:], dtype)

    return jax.tree_util.tree_map_with_path(one, params, is_leaf=lambda leaf: isinstance(leaf, Quantized))


def _use(x: jax.Array, axes: tuple[str, ...], dtype: jnp.dtype) -> jax.Array:
    if "layers" in axes or "embed" not in axes:
        return x
    return _gather(x.astype(dtype), axes)


def _gather(x: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    if jax.sharding.get_abstract_mesh().empty:
        return x
    stored, used = spec(axes), spec(axes, without=("fsdp",))

    @jax.custom_vjp
    def gather(x: jax.Array) -> jax.Array:
        return jax.lax.with_sharding_constraint(x, used)

    gather.defvjp(
        lambda x: (gather(x), None),
        lambda _, gradient: (jax.lax.with_sharding_constraint(gradient, stored),),
    )
    return gather(x)


def check(config: Config, mesh: Mesh) -> None:
    """Refuses a mesh whose axes do not divide the model's and the batches'.

    Raises:
      UserError: names the setting and the mesh axis.
    """
    check_model(config.model, mesh)
    for index, phase in enumerate(config.phases):
        check_divides("batch", phase.batch, mesh, f"config.phases[{index}].batch", config.layout.accumulation)
        check_divides("length", phase.length, mesh, f"config.phases[{index}].length")


def check_model(model: ModelConfig, mesh: Mesh) -> None:
    """The same of a model alone."""
    check_divides("heads", model.num_attention_heads, mesh, "config.model.num_attention_heads")
    check_divides("mlp", model.intermediate_size, mesh, "config.model.intermediate_size")
    check_divides("embed", model.hidden_size, mesh, "config.model.hidden_size")
    if model.embedding_size:
        check_divides("embed", model.embedding_size, mesh, "config.model.embedding_size")
    check_divides("vocab", model.padded_vocab_size, mesh, "config.model.vocab_size, padded,")


def check_divides(axis: str, size: int, mesh: Mesh, what: str, accumulation: int = 1) -> None:
    """Raises UserError where the devices along a logical axis cannot share `size` evenly, in each part of a step."""
    sizes = {f"mesh.{name}": mesh.shape[name] for name in RULES[axis]} | {"layout.accumulation": accumulation}
    parts = math.prod(sizes.values())
    if size % parts:
        shared = " × ".join(name for name, parts in sizes.items() if parts > 1)
        raise UserError(f"{what} is {size}, not a multiple of {parts} ({shared}); change one of them")
