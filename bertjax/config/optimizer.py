"""The optimizer of pre-training."""

import dataclasses

from bertjax.config.fields import NON_NEGATIVE, POSITIVE, Range, setting
from bertjax.config.validation import require

SCHEDULES = ("linear", "cosine", "constant", "wsd")
STATE_DTYPES = ("float32", "bfloat16")
_BETA = Range(at_least=0, below=1)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Optimizer and learning-rate schedule. The defaults are BERT's: AdamW, no bias correction, eps 1e-6, clipping."""

    name: str = setting(
        "adamw", "Optimizer: adamw, lamb (for batches of tens of thousands of rows), stable_adamw, muon, or your own."
    )
    learning_rate: float = setting(1e-4, "Peak learning rate.", POSITIVE)
    schedule: str = setting(
        "linear", "Learning-rate schedule after warm-up; wsd: constant, then 1-sqrt decay over decay_steps.", SCHEDULES
    )
    warmup_steps: int = setting(10_000, "Steps of linear learning-rate warm-up.", NON_NEGATIVE)
    decay_steps: int = setting(0, "Steps of the final learning-rate decay (schedule wsd only).", NON_NEGATIVE)
    decay_power: float = setting(
        1.0, "Exponent of the learning-rate decay (schedule linear only); below 1 the rate stays high longer.", POSITIVE
    )
    final_fraction: float = setting(
        0.0, "Learning rate at the end of the decay, as a fraction of the peak.", NON_NEGATIVE
    )
    beta1: float = setting(0.9, "Decay rate of the first moment.", _BETA)
    beta2: float = setting(0.999, "Decay rate of the second moment.", _BETA)
    eps: float = setting(1e-6, "Constant added to the denominator of the update.", POSITIVE)
    bias_correction: bool = setting(False, "Correct the moments for their initialization at zero.")
    weight_decay: float = setting(
        0.01, "Weight-decay coefficient; biases and LayerNorm parameters are not decayed.", NON_NEGATIVE
    )
    clip_norm: float = setting(1.0, "Maximum global gradient norm; 0: no clipping.", NON_NEGATIVE)
    state_dtype: str = setting(
        "float32", "Dtype of both moments between steps; bfloat16 halves their memory.", STATE_DTYPES
    )

    def check(self) -> None:
        """Raises UserError if settings contradict one another."""
        supported = self.name != "muon" or self.state_dtype == "float32"
        require(supported, "optimizer.state_dtype", self.state_dtype, "float32 with optimizer.name muon")
        decays = self.schedule != "wsd" or self.decay_steps > 0
        require(decays, "optimizer.decay_steps", self.decay_steps, "positive with optimizer.schedule wsd")
