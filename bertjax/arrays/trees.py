"""Trees of arrays by name: the one way to write the path of a parameter."""

from typing import Any

import jax


def path_name(path: tuple[Any, ...]) -> str:
    """A parameter's path as `encoder/segment_0/layer_0/attention/query/kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def named_leaves(tree: Any) -> dict[str, Any]:
    """Path → leaf, in the tree's order."""
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def size_of(tree: Any) -> int:
    """Bytes of all arrays of a tree."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
