"""How parameters are updated."""

import dataclasses

from bertjax.config.fields import NON_NEGATIVE, POSITIVE, Range, setting
from bertjax.config.validation import require

OPTIMIZERS = ("adamw", "lamb", "stable_adamw", "muon")
SCHEDULES = ("linear", "cosine", "constant", "wsd")
STATE_DTYPES = ("float32", "bfloat16")
_BETA = Range(at_least=0, below=1)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """How parameters are updated. As published for BERT: AdamW, no bias correction, eps 1e-6, clipping at 1."""

    name: str = setting("adamw", "Update rule; lamb is for batches of tens of thousands.", OPTIMIZERS)
    learning_rate: float = setting(1e-4, "Peak of the learning rate.", POSITIVE)
    schedule: str = setting("linear", "Decay of the learning rate; wsd: warm-up, stable, 1-sqrt decay.", SCHEDULES)
    warmup_steps: int = setting(10_000, "Steps of linear warm-up.", NON_NEGATIVE)
    decay_steps: int = setting(0, "Steps of the final decay (wsd only).", NON_NEGATIVE)
    decay_power: float = setting(1.0, "Power of the decay (linear only); below 1 the rate stays high longer.", POSITIVE)
    final_fraction: float = setting(0.0, "Learning rate after the decay, as a fraction of its peak.", NON_NEGATIVE)
    beta1: float = setting(0.9, "Decay rate of the first moment.", _BETA)
    beta2: float = setting(0.999, "Decay rate of the second moment.", _BETA)
    eps: float = setting(1e-6, "Added to the denominator of the update.", POSITIVE)
    bias_correction: bool = setting(False, "Correct the bias of the moments towards zero.")
    weight_decay: float = setting(0.01, "Weight decay; none for biases and LayerNorm.", NON_NEGATIVE)
    clip_norm: float = setting(1.0, "Largest global gradient norm; 0: no clipping.", NON_NEGATIVE)
    state_dtype: str = setting("float32", "Dtype of both moments between steps; bfloat16 halves them.", STATE_DTYPES)

    def check(self) -> None:
        """Raises UserError for settings that contradict one another."""
        wide = self.name != "muon" or self.state_dtype == "float32"
        require(wide, "optimizer.state_dtype", self.state_dtype, "float32 with muon")
        decays = self.schedule != "wsd" or self.decay_steps > 0
        require(decays, "optimizer.decay_steps", self.decay_steps, "set where the schedule is wsd")
