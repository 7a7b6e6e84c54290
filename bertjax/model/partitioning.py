"""The table of all parameters: path → logical axes, weight decay, optimizer; and the layer that a path belongs to.

The axes determine how parameters are sharded and when they are gathered. parallel/sharding.py maps them to the mesh.
"""

import functools
import re
from dataclasses import dataclass

import jax
from jax.sharding import Mesh, NamedSharding
from jax.typing import DTypeLike
from jaxtyping import Array, PyTree

from bertjax.arrays.trees import path_name
from bertjax.arrays.types import Params
from bertjax.config.model import ModelConfig
from bertjax.errors import UserError
from bertjax.model.layer_stacks import layer_stacks
from bertjax.model.quantization import Quantized
from bertjax.parallel.sharding import all_gather, partition_spec


@dataclass(frozen=True)
class Rule:
    """The properties of the parameters whose paths match a pattern."""

    pattern: str
    axes: tuple[str, ...]  # logical axes; the first axis of a layer's parameter is "layers"
    decay: bool  # whether weight decay applies
    muon: bool = False  # whether Muon orthogonalizes its updates; AdamW trains all others


_LAYER = r"encoder/segment_(\d+)/layer_(\d+)/"
# Each path has exactly one rule. As in google-research/bert, weight decay applies to matrices and embedding tables, not
# to LayerNorm and biases. A mixture of layers is exempt too, as its scale need not be small.
PARAMETER_RULES: tuple[Rule, ...] = (
    Rule(r"embeddings/word_embeddings/embedding", ("vocab", "embed"), decay=True),  # also the masked-LM head's (tied)
    Rule(r"embeddings/(position|token_type)_embeddings/embedding", ("small", "embed"), decay=True),
    Rule(r"embeddings/projection/kernel", ("small", "embed"), decay=True),
    Rule(r"(embeddings|masked_lm_head|prediction_head)/layer_norm/(scale|bias)", ("small",), decay=False),
    Rule(r"encoder/final_layer_norm/(scale|bias)", ("small",), decay=False),
    Rule(_LAYER + r"attention/(query|key|value)/kernel", ("layers", "embed", "heads"), decay=True, muon=True),
    Rule(_LAYER + r"attention/(query|key|value)/bias", ("layers", "heads"), decay=False),
    Rule(_LAYER + r"attention/output/kernel", ("layers", "heads", "embed"), decay=True, muon=True),
    Rule(_LAYER + r"(intermediate|gate)/kernel", ("layers", "embed", "mlp"), decay=True, muon=True),
    Rule(_LAYER + r"(intermediate|gate)/bias", ("layers", "mlp"), decay=False),
    Rule(_LAYER + r"output/kernel", ("layers", "mlp", "embed"), decay=True, muon=True),
    Rule(_LAYER + r"(attention/)?output/bias", ("layers", "small"), decay=False),
    Rule(_LAYER + r"(attention|mlp|output)_layer_norm/(scale|bias)", ("layers", "small"), decay=False),
    Rule(r"((masked_lm|prediction)_head/dense|pooler)/kernel", ("embed", "small"), decay=True),
    Rule(r"sentence_dense/layer_(\d+)/kernel", ("small", "small"), decay=True),
    Rule(r"sentence_dense/layer_(\d+)/bias", ("small",), decay=False),
    Rule(r"(next_sentence|sentence_order|task)_head/kernel", ("small", "small"), decay=True),
    Rule(r"((masked_lm|prediction)_head/dense|(next_sentence|sentence_order|task)_head)/bias", ("small",), decay=False),
    Rule(r"(embeddings/projection|pooler)/bias", ("small",), decay=False),
    Rule(r"masked_lm_head/bias", ("vocab",), decay=False),
    Rule(r"layer_mixture/weights", ("small",), decay=False),
    Rule(r"layer_mixture/scale", (), decay=False),
)
# Heads of objectives from outside, whole on every device.
_EXTENSION_HEAD = re.compile(r"(^|/)\w+_head/([\w/]+/)?(?P<kind>\w+)$")


@functools.cache
def parameter_rule(name: str) -> Rule:
    """Returns the rule of the parameter at path `name`, which may have the prefix of an optimizer's state.

    Raises:
      ValueError: more than one rule matches the path.
      UserError: no rule matches the path; it must belong to an extension.
    """
    rules = [rule for rule in PARAMETER_RULES if re.search(rf"(^|/){rule.pattern}$", name)]
    if len(rules) > 1:
        raise ValueError(f"{name}: {len(rules)} parameter rules match; give the parameter exactly one")
    if rules:
        return rules[0]
    if head := _EXTENSION_HEAD.search(name):
        return Rule(re.escape(name), (), decay=head["kind"] in ("kernel", "embedding"))
    raise UserError(
        f"{name}: no rule for this parameter of your objective; add your modules at the top of the model, with names "
        "that end in _head, such as count_head"
    )


def is_stacked(name: str) -> bool:
    """Whether the parameter at path `name` is stacked over layers along its first axis."""
    return "layers" in parameter_rule(name).axes


def decay_mask(params: PyTree) -> PyTree:
    """Returns a tree like `params` of bools, True where weight decay applies."""
    return jax.tree_util.tree_map_with_path(lambda path, _: parameter_rule(path_name(path)).decay, params)


def layers_above(name: str, config: ModelConfig) -> int | list[int]:
    """Returns the number of layers from a parameter up to the heads, its own included; for a stack one per repeat.

    Embeddings count as the layer below the first; heads and the final norm are at 0.
    """
    if not is_stacked(name):
        return config.num_hidden_layers + 1 if name.startswith("embeddings/") else 0
    number, layer = map(int, re.findall(_LAYER, name)[0])
    *below, stack = layer_stacks(config)[: number + 1]
    first = sum(lower.layers * lower.repeats for lower in below) + layer
    # Parameters that several layers share count as the highest of them.
    repeats = [stack.repeats - 1] if stack.shared else range(stack.repeats)
    return [config.num_hidden_layers - (first + repeat * stack.layers) for repeat in repeats]


def state_shardings(tree: PyTree, mesh: Mesh) -> PyTree:
    """Returns a sharding for each array of a tree of parameters or optimizer state (arrays or their shapes)."""

    def sharding(path: jax.tree_util.KeyPath, leaf: Array | jax.ShapeDtypeStruct) -> NamedSharding:
        axes = parameter_rule(path_name(path)).axes if leaf.ndim else ()
        return NamedSharding(mesh, partition_spec(axes))

    return jax.tree_util.tree_map_with_path(sharding, tree)


def all_gather_params(params: Params, dtype: DTypeLike, stack: str = "") -> Params:
    """Gathers parameters for use over the fsdp axis, along which they are stored.

    Without `stack` it gathers all parameters except those of layers. With `stack` ("encoder/segment_0/") it gathers
    those of one layer, sliced from the stack at that path; call it where the layer runs, so that its parameters are
    whole, and dequantized, only meanwhile. Parameters are transferred in `dtype`; their gradients are scattered.
    """

    def gather(path: jax.tree_util.KeyPath, leaf: Array | Quantized) -> Array | Quantized:
        axes = parameter_rule(stack + path_name(path)).axes
        axes = axes[1:] if stack else axes
        gathered = "embed" in axes and "layers" not in axes
        return all_gather(leaf.astype(dtype), axes) if gathered else leaf

    return jax.tree_util.tree_map_with_path(gather, params, is_leaf=lambda leaf: isinstance(leaf, Quantized))
