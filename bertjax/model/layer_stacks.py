"""The stacks that the layers of an encoder form, and their execution.

A stack is a repeated pattern of layers; its parameters are stacked over the repeats, [repeats, …], and it runs as one
`jax.lax.scan`. BERT is a single stack: one layer, `num_hidden_layers` times. In ALBERT all repeats of a stack share
their parameters: an array with one repeat. ModernBERT's layers differ: the first, then the pattern (local, local,
global) repeatedly, then the remaining ones.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import jax
from jaxtyping import Array, Float, Int, PyTree

from bertjax.config.model import ModelConfig
from bertjax.model import fused_attention
from bertjax.model.layers import PRODUCT

# (x, repeat, query_indices=None) → (x, outputs): one repeat of a stack, which reads its part `repeat`.
RepeatFunction: TypeAlias = Callable[..., tuple[Array, PyTree]]


@dataclass(frozen=True)
class LayerStack:
    """A pattern of layers, repeated `repeats` times."""

    local: tuple[bool, ...]  # per layer of the pattern, whether its attention is local
    repeats: int
    shared: bool = False  # one set of parameters for all repeats

    @property
    def layers(self) -> int:
        """The number of layers in the pattern."""
        return len(self.local)

    @property
    def stacked(self) -> int:
        """The number of sets of parameters."""
        return 1 if self.shared else self.repeats


def layer_stacks(config: ModelConfig) -> tuple[LayerStack, ...]:
    """Returns the stacks of a config's layers, from the lowest to the highest."""
    count = config.num_hidden_layers
    if config.num_hidden_groups:
        repeats = count // config.num_hidden_groups
        return (LayerStack((False,), repeats, shared=True),) * config.num_hidden_groups
    if not (config.pre_norm or config.local_attention):
        return (LayerStack((False,), count),)
    # The first layer stands alone: it is the only one without a norm. Each pattern ends with a global layer.
    repeats, rest = divmod(count - 1, config.global_attn_every_n_layers)
    pattern = tuple(config.is_local(i + 1) for i in range(config.global_attn_every_n_layers))
    stacks = (LayerStack((False,), 1), LayerStack(pattern, repeats), LayerStack(pattern[:rest], 1))
    return tuple(stack for stack in stacks if stack.layers and stack.repeats)


def run_repeats(
    body: RepeatFunction,
    x: Float[Array, "batch length hidden"],
    repeats: PyTree,
    unroll: int,
    query_indices: Int[Array, "batch queries"] | None,
) -> tuple[Float[Array, "batch queries hidden"], list[PyTree]]:
    """Runs `body` once per repeat of a stack, in a scan as far as possible.

    Args:
      body: (x, repeat, query_indices=None) → (x, outputs); only the last repeat receives the query indices.
      x: the input of the first repeat.
      repeats: a tree of arrays [repeats, …], the inputs of each repeat.
      unroll: repeats that are unrolled in the scan.
      query_indices: positions of the output to compute; None computes all.

    Returns:
      The last output, and parts whose concatenation is the outputs of all repeats [repeats, …].
    """
    count = len(jax.tree.leaves(repeats)[0])
    # The repeats outside the scan: all if they are unrolled anyway, else the last one where it differs from the others.
    singles = count if unroll >= count else int(query_indices is not None)
    scanned, *others = _split(repeats, [count - singles] + [1] * singles)
    collected = []
    if count > singles:
        x, outputs = jax.lax.scan(body, x, scanned, unroll=max(1, min(unroll, count - singles)))
        collected.append(outputs)
    for i, repeat in enumerate(others):
        repeat = jax.tree.map(lambda leaf: leaf[0], repeat)
        x, outputs = body(x, repeat, query_indices if i == len(others) - 1 else None)
        collected.append(jax.tree.map(lambda leaf: leaf[None], outputs))
    return x, collected


def rematerialized(body: RepeatFunction, remat: str, unroll: int) -> RepeatFunction:
    """Wraps `body` of a stack: its backward pass recomputes everything that `remat` does not keep.

    "full" keeps only the input of the layer. "dots" keeps products with parameters. "bert" keeps attention's contexts
    as well: of the products only the scores are then recomputed, besides LayerNorm, GELU and dropout.
    """
    if remat == "none":
        return body
    policies = jax.checkpoint_policies
    policy = {
        "full": policies.nothing_saveable,
        "dots": policies.dots_with_no_batch_dims_saveable,
        "bert": policies.save_from_both_policies(
            policies.save_only_these_names(PRODUCT, fused_attention.CONTEXT), fused_attention.save_attention
        ),
    }[remat]
    # CSE cannot undo rematerialization within a scan, which therefore needs no barriers against it.
    return jax.checkpoint(body, policy=policy, prevent_cse=unroll > 1)


def _split(tree: PyTree, sizes: list[int]) -> list[PyTree]:
    """Splits stacked arrays along their first axis; `jax.lax.split` concatenates the gradients in one operation."""
    leaves, structure = jax.tree.flatten(tree)
    parts = zip(*(jax.lax.split(leaf, sizes) for leaf in leaves), strict=True)
    return [jax.tree.unflatten(structure, part) for part in parts]
