"""One table for all parameters: path → logical axes, and with it where parameters lie and when they are gathered."""

import re
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from bertjax.arrays.trees import path_name
from bertjax.model.quantization import Quantized
from bertjax.parallel.sharding import all_gather, spec

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


def state_shardings(tree: Any, mesh: Mesh) -> Any:
    """A sharding for each array of a tree of parameters or optimizer state (arrays or their shapes)."""

    def one(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        axes = logical_axes(path_name(path)) if leaf.ndim else ()
        return NamedSharding(mesh, spec(axes))

    return jax.tree_util.tree_map_with_path(one, tree)


def all_gather_params(params: Any, dtype: jnp.dtype) -> Any:
    """Parameters for use, all but those of layers: gathered over the fsdp axis, which only stores them.

    What is gathered travels in `dtype`; the gradients go back scattered.
    """
    return jax.tree_util.tree_map_with_path(lambda path, leaf: _use(leaf, logical_axes(path_name(path)), dtype), params)


def all_gather_layer_params(params: Any, dtype: jnp.dtype, segment: str) -> Any:
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
    return all_gather(x.astype(dtype), axes)
