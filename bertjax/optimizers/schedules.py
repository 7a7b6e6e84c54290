"""Learning-rate schedules: a linear warm-up, then linear, cosine, constant or warmup-stable-decay."""

import jax.numpy as jnp
import optax

from bertjax.config import OptimizerConfig


def learning_rate(config: OptimizerConfig, total_steps: int) -> optax.Schedule:
    """The learning rate of step n, counted from 0, over a training of `total_steps`.

    `linear` follows google-research/bert: in the warm-up the rate is peak × n / warmup, and afterwards it lies on
    the one straight line from the peak at step 0 to `final_fraction` × peak at the end, so that it drops
    by the warm-up's share when the warm-up ends. `wsd` decays as 1-sqrt over the last `decay_steps`
    (Hägele et al. 2024, arXiv:2405.18392).
    """
    peak, end = config.learning_rate, config.learning_rate * config.final_fraction
    if config.schedule == "linear":
        after = optax.linear_schedule(peak, end, total_steps)
    elif config.schedule == "cosine":
        length = max(total_steps - config.warmup_steps, 1)
        cosine = optax.cosine_decay_schedule(peak, length, config.final_fraction)
        after = lambda step: cosine(step - config.warmup_steps)  # noqa: E731
    elif config.schedule == "constant":
        after = optax.constant_schedule(peak)
    else:
        after = _stable_then_decay(peak, end, total_steps, config.decay_steps)

    def schedule(step):
        warmup = peak * step / max(config.warmup_steps, 1)
        return jnp.asarray(jnp.where(step < config.warmup_steps, warmup, after(step)), jnp.float32)

    return schedule


def _stable_then_decay(peak: float, end: float, total_steps: int, decay_steps: int) -> optax.Schedule:
    def schedule(step):
        progress = jnp.clip((step - (total_steps - decay_steps)) / decay_steps, 0, 1)
        return end + (peak - end) * (1 - jnp.sqrt(progress))

    return schedule
