"""Lowers programs for absent accelerators to StableHLO, without compiling them.

JAX lowers for any platform on any machine, but its cuDNN attention queries the installed cuDNN. `libraries_of` replaces
this query, the only replaced part of JAX.
"""

import contextlib
import re
from collections.abc import Iterator
from typing import Any
from unittest import mock

import jax
from jax._src.cudnn import fused_attention_stablehlo as cudnn

# Names of bertjax. An old GPU, or one of another vendor, is "gpu" and has no attention kernel.
PLATFORMS = ("cuda", "tpu")

# The oldest cuDNN that the extra `gpu` installs, 9.8, in the format of cuDNN.
_CUDNN_VERSION = 90800
# A private function of JAX 0.10; setup.py allows versions below 0.12.
_CUDNN_QUERY = "check_cudnn_version"


@contextlib.contextmanager
def libraries_of(platform: str) -> Iterator[None]:
    """A context in which JAX finds the libraries of `platform` installed: cuDNN for "cuda".

    JAX's query for the compute capability is not replaced: without a GPU it assumes less than 9.0, whose limits are the
    strictest of the GPUs that bertjax calls "cuda".
    """
    if platform != "cuda":
        yield
        return
    if not callable(getattr(cudnn, _CUDNN_QUERY, None)):
        raise RuntimeError(
            f"jax {jax.__version__}: no function {cudnn.__name__}.{_CUDNN_QUERY}, which jax 0.10 has; find its new "
            "query for the version of cuDNN, and replace that in tests/support/platforms.py"
        )
    with mock.patch.object(cudnn, _CUDNN_QUERY, lambda: _CUDNN_VERSION):
        yield


def lower(platform: str, function: Any, *arguments: Any) -> jax.stages.Lowered:
    """Lowers a jitted function of (abstract) arguments for `platform`; call it within `libraries_of`."""
    return function.trace(*arguments).lower(lowering_platforms=(platform,))


def kernels(lowered: jax.stages.Lowered) -> set[str]:
    """The attention kernels of a program: "cudnn" or "splash", followed by " backward" for the gradient."""
    program, names = lowered.as_text(), set()
    for target in re.findall(r"stablehlo\.custom_call @(__cudnn\$fmha\w+)", program):
        names.add("cudnn backward" if target.endswith("Backward") else "cudnn")
    for line in re.findall(r"stablehlo\.custom_call @tpu_custom_call.*", program):
        forward = "splash_mha_fwd" in line
        assert forward or "splash_mha_dkv" in line, f"unknown kernel: {line[:200]}"
        names.add("splash" if forward else "splash backward")
    return names
