"""One table for all parameters: path → logical axes, weight decay, optimizer, and its place among the layers.

With the axes goes where parameters lie and when they are gathered. parallel/sharding.py maps logical axes to the mesh.
"""

import functools
import re
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from bertjax.arrays.trees import path_name
from bertjax.config.model import ModelConfig
from bertjax.model.layer_stacks import layer_stacks
from bertjax.model.quantization import Quantized
from bertjax.parallel.sharding import all_gather, spec


@dataclass(frozen=True)
class Rule:
    """What holds for the parameters whose paths match a pattern."""

    pattern: str
    axes: tuple[str, ...]  # logical ones; the first of a parameter of layers is "layers"
    decay: bool  # whether weight decay shrinks it
    muon: bool = False  # whether Muon makes its updates orthogonal; AdamW trains all others


_LAYER = r"encoder/segment_(\d+)/layer_(\d+)/"
# A path has exactly one rule. As in google-research/bert matrices and embedding tables decay, LayerNorm and biases do
# not. Neither does a mixture of layers, whose scale has no reason to be small.
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


@functools.cache
def parameter_rule(name: str) -> Rule:
    """The rule of the parameter at path `name`, also where the path stands within an optimizer's state.

    Raises:
      ValueError: a path that no rule, or more than one, names.
    """
    found = [rule for rule in PARAMETER_RULES if re.search(rf"(^|/){rule.pattern}$", name)]
    if len(found) != 1:
        raise ValueError(f"{len(found)} parameter rules name {name}; it must be exactly one")
    return found[0]


def is_stacked(name: str) -> bool:
    """Whether the first axis of the parameter at path `name` counts layers."""
    return "layers" in parameter_rule(name).axes


def decay_mask(params: Any) -> Any:
    """A tree like `params` of bools, True where weight decay applies."""
    return jax.tree_util.tree_map_with_path(lambda path, _: parameter_rule(path_name(path)).decay, params)


def layers_above(name: str, config: ModelConfig) -> int | list[int]:
    """The number of layers from a parameter up to the heads, its own included; for a stacked one per repeat.

    Embeddings lie one below the first layer, heads and the norm behind all layers at 0.
    """
    if not is_stacked(name):
        return config.num_hidden_layers + 1 if name.startswith("embeddings/") else 0
    number, layer = map(int, re.match(_LAYER, name).groups())
    *below, stack = layer_stacks(config)[: number + 1]
    first = sum(lower.layers * lower.repeats for lower in below) + layer
    # What several layers share moves at the rate of the highest.
    repeats = [stack.repeats - 1] if stack.shared else range(stack.repeats)
    return [config.num_hidden_layers - (first + repeat * stack.layers) for repeat in repeats]


def state_shardings(tree: Any, mesh: Mesh) -> Any:
    """A sharding for each array of a tree of parameters or optimizer state (arrays or their shapes)."""

    def one(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        axes = parameter_rule(path_name(path)).axes if leaf.ndim else ()
        return NamedSharding(mesh, spec(axes))

    return jax.tree_util.tree_map_with_path(one, tree)


def all_gather_params(params: Any, dtype: jnp.dtype, stack: str = "") -> Any:
    """Parameters for use: gathered over the fsdp axis, which only stores them.

    Of a whole tree all but those of layers. With `stack` ("encoder/segment_0/") those of one layer, taken out of the
    stack at that path: to be called where the layer runs, so that its parameters are whole, and wide where they are
    quantised, only meanwhile. What is gathered travels in `dtype`; the gradients go back scattered.
    """

    def one(path: tuple[Any, ...], leaf: Any) -> Any:
        axes = parameter_rule(stack + path_name(path)).axes
        axes = axes[1:] if stack else axes
        gathered = "embed" in axes and "layers" not in axes
        return all_gather(leaf.astype(dtype), axes) if gathered else leaf

    return jax.tree_util.tree_map_with_path(one, params, is_leaf=lambda leaf: isinstance(leaf, Quantized))
