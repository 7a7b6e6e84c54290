"""How the layers of an encoder lie in stacks, and how a stack runs.

A stack is a pattern of layers that is repeated; its parameters are stacked over the repeats, [repeats, …], and it runs
as one `jax.lax.scan`. BERT is one stack: one layer, `num_hidden_layers` times. In ALBERT all repeats of a stack share
their parameters: an array of one. ModernBERT's layers differ: the first, then (local, local, global) again and again,
and those that are left over.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from bertjax.config.model import ModelConfig
from bertjax.model import fused_attention
from bertjax.model.layers import PRODUCT


@dataclass(frozen=True)
class LayerStack:
    """`repeats` times a pattern of layers."""

    local: tuple[bool, ...]  # for each layer of the pattern, whether its attention is local
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
    """The stacks of a config's layers, from the lowest to the highest."""
    count = config.num_hidden_layers
    if config.num_hidden_groups:
        repeats = count // config.num_hidden_groups
        return (LayerStack((False,), repeats, shared=True),) * config.num_hidden_groups
    if not (config.pre_norm or config.local_attention):
        return (LayerStack((False,), count),)
    # The first layer is unlike all others: it alone lacks a norm, and the pattern ends with the next that sees all.
    repeats, rest = divmod(count - 1, config.global_attn_every_n_layers)
    pattern = tuple(config.is_local(i + 1) for i in range(config.global_attn_every_n_layers))
    stacks = (LayerStack((False,), 1), LayerStack(pattern, repeats), LayerStack(pattern[:rest], 1))
    return tuple(stack for stack in stacks if stack.layers and stack.repeats)


def run_repeats(
    body: Callable, x: jax.Array, repeats: Any, unroll: int, query_indices: jax.Array | None
) -> tuple[jax.Array, list[Any]]:
    """Runs `body` once for each repeat of a stack, in a scan as far as possible.

    Args:
      body: (x, repeat, query_indices=None) → (x, outputs); the last repeat alone receives the query indices.
      x: the input of the first repeat.
      repeats: a tree of arrays [repeats, …], what each repeat reads.
      unroll: repeats that the compiler sees at once.
      query_indices: rows of the output that are computed; None computes all.

    Returns:
      The last output, and parts whose concatenation is the outputs of all repeats [repeats, …].
    """
    count = len(jax.tree.leaves(repeats)[0])
    # Those outside the scan: all that are unrolled in any case, or the last one, which is not like the others.
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


def rematerialized(body: Callable, remat: str, unroll: int) -> Callable:
    """`body` of a stack, of which the backward pass computes again what `remat` does not keep.

    "full" keeps only what goes into the layer. "dots" keeps the products with parameters. "bert" keeps the contexts of
    attention as well, so that of products only the scores are computed again, beside LayerNorm, GELU and dropout.
    """
    if remat == "none":
        return body
    policies = jax.checkpoint_policies
    policy = {
        "full": policies.nothing_saveable,
        "dots": policies.dots_with_no_batch_dims_saveable,
        "bert": policies.save_from_both_policies(
            policies.save_only_these_names(PRODUCT, fused_attention.CONTEXT), fused_attention.saves
        ),
    }[remat]
    # In a scan nothing can be merged with what was computed before, which the barriers would prevent.
    return jax.checkpoint(body, policy=policy, prevent_cse=unroll > 1)


def _split(tree: Any, sizes: list[int]) -> list[Any]:
    """A tree of stacked arrays cut along their first axis; the gradients of the parts are joined in one go."""
    leaves, structure = jax.tree.flatten(tree)
    parts = zip(*(jax.lax.split(leaf, sizes) for leaf in leaves), strict=True)
    return [jax.tree.unflatten(structure, part) for part in parts]
