"""Programs for accelerators that are not here: traced and lowered to StableHLO, never compiled.

JAX lowers for any platform on any machine, but its attention by cuDNN first asks which cuDNN is installed.
`libraries_of` gives an answer where there is none. That is the only part of JAX that is replaced.
"""

import contextlib
import re
from collections.abc import Iterator
from typing import Any
from unittest import mock

import jax
from jax._src.cudnn import fused_attention_stablehlo as cudnn

# As bertjax names them. A GPU that is "gpu" to bertjax, old or of another maker, has no kernel of its own.
PLATFORMS = ("cuda", "tpu")

# The oldest cuDNN that the extra `gpu` installs, 9.8, as cuDNN writes it.
_CUDNN_VERSION = 90800
# What is replaced is private to JAX. This was written for 0.10, and setup.py allows for versions below 0.12.
_ASKS_FOR_CUDNN = "check_cudnn_version"


@contextlib.contextmanager
def libraries_of(platform: str) -> Iterator[None]:
    """Within this, JAX takes the libraries that it traces `platform`'s programs with for installed: cuDNN, for "cuda".

    JAX's other question, for a compute capability, needs no answer: without a GPU it assumes less than 9.0, whose
    limits are the strictest of those GPUs that bertjax calls "cuda".
    """
    if platform != "cuda":
        yield
        return
    if not callable(getattr(cudnn, _ASKS_FOR_CUDNN, None)):
        raise RuntimeError(
            f"jax {jax.__version__} has no {cudnn.__name__}.{_ASKS_FOR_CUDNN}, which jax 0.10 has; look there how it "
            "finds cuDNN's version now, and replace that in tests/support/platforms.py"
        )
    with mock.patch.object(cudnn, _ASKS_FOR_CUDNN, lambda: _CUDNN_VERSION):
        yield


def lower(platform: str, function: Any, *arguments: Any) -> jax.stages.Lowered:
    """A jitted function of arguments that may be abstract, as for a device of `platform`; within `libraries_of`."""
    return function.trace(*arguments).lower(lowering_platforms=(platform,))


def kernels(lowered: jax.stages.Lowered) -> set[str]:
    """The attention kernels that a program calls: "cudnn" or "splash", with " backward" added for its gradient."""
    program, found = lowered.as_text(), set()
    for target in re.findall(r"stablehlo\.custom_call @(__cudnn\$fmha\w+)", program):
        found.add("cudnn backward" if target.endswith("Backward") else "cudnn")
    for line in re.findall(r"stablehlo\.custom_call @tpu_custom_call.*", program):
        forward = "splash_mha_fwd" in line
        assert forward or "splash_mha_dkv" in line, f"unknown kernel: {line[:200]}"
        found.add("splash" if forward else "splash backward")
    return found
