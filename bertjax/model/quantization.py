"""Weights as 8-bit integers, for inference: a quarter of the memory.

Symmetric, with one scale an output channel of a kernel and one a row of a table (Jacob et al. 2018, arXiv:1712.05877,
section 2.1, without zero points), from the weights alone. They are widened where they are used, a layer at a time;
biases, LayerNorms, positions and heads stay as they are.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_LARGEST = 127  # -128 is left out, so that both signs reach equally far


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Quantized:
    """An array as `values`, int8 of its shape, times `scale`, f32 that broadcasts against it.

    It stands in a tree of parameters where the array stood; whoever computes with parameters calls `astype` first.
    """

    values: jax.Array
    scale: jax.Array

    def astype(self, dtype: Any) -> jax.Array:
        """The array, up to half a step of the scale."""
        return (self.values.astype(jnp.float32) * self.scale).astype(dtype)


def quantize(array: np.ndarray, axis: int) -> Quantized:
    """`array` with one scale for all numbers along `axis`."""
    array = np.asarray(array, np.float32)
    largest = np.max(np.abs(array), axis=axis, keepdims=True)
    scale = np.where(largest > 0, largest / _LARGEST, 1).astype(np.float32)
    return Quantized(np.rint(array / scale).astype(np.int8), scale)


def map_matrices(params: Any, kernel: Any, table: Any) -> Any:
    """`params` with `kernel` applied to the kernels of the encoder, and `table` to the word embeddings."""

    def one(path: tuple[Any, ...], leaf: Any) -> Any:
        keys = [entry.key for entry in path]
        if keys[0] == "encoder" and keys[-1] == "kernel":
            return kernel(leaf)
        return table(leaf) if "word_embeddings" in keys else leaf

    return jax.tree_util.tree_map_with_path(one, params)


def quantized(params: Any) -> Any:
    """A model's parameters with the large matrices quantised."""
    # Kernels are [layers, in, out], the table is [words, hidden].
    return map_matrices(params, lambda kernel: quantize(kernel, -2), lambda table: quantize(table, -1))
