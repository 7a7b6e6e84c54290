"""How the computation is laid out on devices; nothing here changes results beyond rounding."""

import dataclasses

DTYPES = ("auto", "float32", "bfloat16")
REMAT = ("none", "bert", "dots", "full")
ATTENTION = ("auto", "xla", "cudnn", "splash")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis of the mesh; one may be -1, which takes all that are left.

    Outermost first: neighbouring devices have the fastest links, and tensor parallelism talks most.
    """

    data: int = -1  # replicas of everything, which share the batch
    fsdp: int = 1  # these share the batch as well, and store a part of parameters and optimizer state each
    sequence: int = 1  # each computes a stretch of every sequence
    tensor: int = 1  # each computes some heads, MLP columns and vocabulary entries


@dataclasses.dataclass(frozen=True)
class LayoutConfig:
    """How the same mathematics is laid out on the machine."""

    unroll: int = 1  # layers a scan step; num_hidden_layers unrolls them all
    remat: str = "none"  # what the backward pass computes again to save memory: none, bert, dots, full
    accumulation: int = 1  # parts of a batch that a step computes one after the other
    attention: str = "auto"  # xla (the plain path), cudnn (NVIDIA), splash (TPU); auto: what is there and can do it
