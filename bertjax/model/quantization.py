"""8-bit integer weights for inference, a quarter of the memory.

Quantization is symmetric, with one scale per output channel of a kernel and one per entry of a table (Jacob et al.
2018, arXiv:1712.05877, section 2.1, without zero points), and computed from the weights alone. Weights are dequantized
where they are used, one layer at a time; biases, LayerNorms, position embeddings and heads stay in floating point.
"""

import dataclasses
from collections.abc import Callable
from typing import no_type_check

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, PyTree

from bertjax.arrays.types import Params

_MAX_INT8 = 127  # without -128, so that the range is symmetric


@no_type_check  # JAX rebuilds it with placeholders instead of arrays
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Quantized:
    """An array as int8 `values` times an f32 `scale` that broadcasts against them.

    It replaces the array in a tree of parameters; code that computes with parameters calls `astype` first.
    """

    values: Array
    scale: Array

    def astype(self, dtype: DTypeLike) -> Array:
        """Returns the array, accurate to half a step of the scale."""
        return (self.values.astype(jnp.float32) * self.scale).astype(dtype)


def quantize(array: np.ndarray, axis: int) -> Quantized:
    """Quantizes `array` with one scale for all elements along `axis`."""
    array = np.asarray(array, np.float32)
    largest = np.max(np.abs(array), axis=axis, keepdims=True)
    scale = np.where(largest > 0, largest / _MAX_INT8, 1).astype(np.float32)
    values = np.rint(array / scale).astype(np.int8)
    return Quantized(values, scale)  # pyright: ignore[reportArgumentType]  # on the host until placed on a mesh


def map_matrices(
    params: Params, kernel: Callable[[np.ndarray], PyTree], table: Callable[[np.ndarray], PyTree]
) -> Params:
    """Applies `kernel` to the kernels of the encoder and `table` to the word embeddings."""

    def apply(path: jax.tree_util.KeyPath, leaf: np.ndarray) -> PyTree:
        keys = [entry.key for entry in path]
        if keys[0] == "encoder" and keys[-1] == "kernel":
            return kernel(leaf)
        return table(leaf) if "word_embeddings" in keys else leaf

    return jax.tree_util.tree_map_with_path(apply, params)


def quantize_params(params: Params) -> Params:
    """Quantizes the large matrices of a model's parameters."""
    # Kernels are [layers, in, out], the table is [words, hidden].
    return map_matrices(params, lambda kernel: quantize(kernel, -2), lambda table: quantize(table, -1))
