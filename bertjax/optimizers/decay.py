"""Which parameters weight decay shrinks: one decision for every parameter, and no catch-all."""

import re
from typing import Any

import jax

from bertjax.arrays.trees import path_name

# As in google-research/bert: matrices and embedding tables decay, LayerNorm and biases do not. Neither does a mixture
# of layers, whose scale has no reason to be small.
RULES: tuple[tuple[str, bool], ...] = (
    (r"(^|/)kernel$", True),
    (r"(^|/)embedding$", True),
    (r"(^|[/_])bias$", False),
    (r"(^|/)scale$", False),
    (r"(^|/)layer_mixture/weights$", False),
)


def decay_mask(params: Any) -> Any:
    """A tree like `params` of bools, True where weight decay applies.

    Raises:
      ValueError: a parameter that no rule, or more than one, decides.
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: _decide(path_name(path)), params)


def _decide(name: str) -> bool:
    decisions = [decays for pattern, decays in RULES if re.search(pattern, name)]
    if len(decisions) != 1:
        raise ValueError(f"{len(decisions)} weight-decay rules decide {name}; it must be exactly one")
    return decisions[0]
