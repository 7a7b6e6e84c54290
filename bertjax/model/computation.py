"""The settings of a model's computation, passed to all of its modules as one value."""

import dataclasses

import jax.numpy as jnp
from jax.typing import DTypeLike

from bertjax.config.layout import LayoutConfig
from bertjax.parallel.mesh import compute_dtype


@dataclasses.dataclass(frozen=True)
class Computation:
    """Settings of a model's computation. They change speed and memory; parameters and logits are always f32."""

    dtype: DTypeLike = jnp.float32
    unroll: int = 1  # repeats of a stack of layers that are unrolled in its scan
    remat: str = "none"  # the parts of a layer that the backward pass recomputes: none, bert, dots, full
    attention_impl: str = "xla"  # xla, cudnn, splash, or auto for the fastest supported one
    platform: str = ""  # as returned by `fused_attention.platform`; "": the platform of the devices in use


def computation_of(layout: LayoutConfig, dtype: str, platform: str = "") -> Computation:
    """Returns the computation for a config's `layout` and `dtype`; `platform` as in `Computation`."""
    return Computation(compute_dtype(dtype, platform), layout.unroll, layout.remat, layout.attention_impl, platform)
