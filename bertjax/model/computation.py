"""How a model is computed, in one value that every module of it receives."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from bertjax.config.layout import LayoutConfig
from bertjax.parallel.mesh import compute_dtype


@dataclasses.dataclass(frozen=True)
class Computation:
    """How a model is computed; never changes results beyond rounding. Parameters and logits are f32 in any case."""

    dtype: Any = jnp.float32
    unroll: int = 1  # repeats of a stack of layers that the compiler sees at once
    remat: str = "none"  # what of a layer the backward pass computes again: none, bert, dots, full
    attention_impl: str = "xla"  # xla, cudnn, splash, or auto for the fastest that can do it
    platform: str = ""  # as `fused_attention.platform` names it; "": that of the devices in use


def computation_of(layout: LayoutConfig, dtype: str, platform: str = "") -> Computation:
    """The computation that a config's `layout` and `dtype` ask for; `platform` as in `Computation`."""
    dtype = compute_dtype(dtype, platform)
    return Computation(dtype, layout.unroll, layout.remat, layout.attention_impl, platform)
