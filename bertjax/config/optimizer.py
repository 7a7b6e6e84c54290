"""How parameters are updated."""

import dataclasses

OPTIMIZERS = ("adamw", "lamb", "stable_adamw", "muon")
SCHEDULES = ("linear", "cosine", "constant", "wsd")
STATE_DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """How parameters are updated. As published for BERT: AdamW, no bias correction, eps 1e-6, clipping at 1."""

    name: str = "adamw"  # adamw, lamb (for batches of tens of thousands), stable_adamw, muon
    learning_rate: float = 1e-4  # the schedule's peak
    schedule: str = "linear"  # linear, cosine, constant, wsd (warmup, stable, 1-sqrt decay)
    warmup_steps: int = 10_000
    decay_steps: int = 0  # wsd only: the steps of the final decay
    decay_power: float = 1.0  # linear only: the line to this power; under 1 it stays high for longer
    final_fraction: float = 0.0  # of the peak, where the decay ends
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-6
    bias_correction: bool = False
    weight_decay: float = 0.01  # not for biases and LayerNorm
    clip_norm: float = 1.0  # global gradient norm; 0 does not clip
    state_dtype: str = "float32"  # of both moments between steps; bfloat16 halves them
