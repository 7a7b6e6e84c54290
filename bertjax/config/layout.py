"""How the computation is laid out on devices; nothing here changes results beyond rounding."""

import dataclasses

from bertjax.config.fields import AT_LEAST_ONE, Range, setting
from bertjax.config.validation import require

DTYPES = ("auto", "float32", "bfloat16")
_DEVICES = Range(at_least=1, special=-1)


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis of the mesh; one may be -1, which takes all that are left.

    Outermost first: neighbouring devices have the fastest links, and tensor parallelism talks most.
    """

    data: int = setting(-1, "Replicas of all parameters, which share the batch.", _DEVICES)
    fsdp: int = setting(1, "Devices that share the batch and shard parameters and optimizer state.", _DEVICES)
    sequence: int = setting(1, "Devices that share each sequence, a stretch each.", _DEVICES)
    tensor: int = setting(1, "Devices that share attention heads, MLP columns and the vocabulary.", _DEVICES)

    def check(self) -> None:
        """Raises UserError for settings that contradict one another."""
        sizes = dataclasses.asdict(self)
        require(list(sizes.values()).count(-1) <= 1, "mesh", sizes, "-1 at one axis only")


@dataclasses.dataclass(frozen=True)
class LayoutConfig:
    """How the same mathematics is laid out on the machine."""

    unroll: int = setting(1, "Layers per scan step; num_hidden_layers unrolls them all.", AT_LEAST_ONE)
    remat: str = setting("none", "What the backward pass recomputes to save memory.", ("none", "bert", "dots", "full"))
    accumulation: int = setting(1, "Microbatches per step, computed one after the other.", AT_LEAST_ONE)
    attention_impl: str = setting(
        "auto",
        "Attention: xla (plain), cudnn (NVIDIA), splash (TPU); auto: the fastest that supports it.",
        ("auto", "xla", "cudnn", "splash"),
    )
