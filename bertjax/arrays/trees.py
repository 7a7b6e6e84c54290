"""Leaves of trees by path; all code writes parameter paths in this format."""

from typing import Any

import jax
from jax.tree_util import KeyPath
from jaxtyping import PyTree


def path_name(path: KeyPath) -> str:
    """Returns the path of a parameter as `encoder/segment_0/layer_0/attention/query/kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def named_leaves(tree: PyTree) -> dict[str, Any]:
    """Returns path → leaf, in the order of the tree."""
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def tree_bytes(tree: PyTree) -> int:
    """Returns the size in bytes of all arrays of a tree."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
