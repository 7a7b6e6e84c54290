"""Layout of the computation on devices. These options change speed and memory, never results (beyond rounding)."""

import dataclasses

from bertjax.config.fields import AT_LEAST_ONE, Range, setting
from bertjax.config.validation import require

DTYPES = ("auto", "float32", "bfloat16")
_DEVICES = Range(at_least=1, special=-1)


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis of the mesh; one axis may be -1, which takes all remaining devices.

    Outermost axis first: neighboring devices have the fastest links, and tensor parallelism communicates most.
    """

    data: int = setting(
        -1, "Replicas of all parameters, each with its share of the batch; -1: all remaining devices.", _DEVICES
    )
    fsdp: int = setting(1, "Devices that split the batch, the parameters and the optimizer state.", _DEVICES)
    sequence: int = setting(1, "Devices that split the tokens of each row.", _DEVICES)
    tensor: int = setting(1, "Devices that split the attention heads, MLP columns and vocabulary.", _DEVICES)

    def check(self) -> None:
        """Raises UserError if settings contradict one another."""
        sizes = dataclasses.asdict(self)
        require(list(sizes.values()).count(-1) <= 1, "mesh", sizes, "-1 on one axis at most")


@dataclasses.dataclass(frozen=True)
class LayoutConfig:
    """Layout of the computation on each device."""

    unroll: int = setting(
        1,
        "Layers per iteration of the loop over layers; num_hidden_layers unrolls the loop completely.",
        AT_LEAST_ONE,
    )
    remat: str = setting(
        "none",
        "Recomputation in the backward pass to save memory: none, or increasingly more with bert, dots and full.",
        ("none", "bert", "dots", "full"),
    )
    accumulation: int = setting(
        1, "Microbatches per step, computed sequentially with accumulated gradients.", AT_LEAST_ONE
    )
    attention_impl: str = setting(
        "auto",
        "Attention implementation: xla (plain), cudnn (NVIDIA), splash (TPU); auto: the fastest one supported.",
        ("auto", "xla", "cudnn", "splash"),
    )
