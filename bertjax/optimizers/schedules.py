"""Learning-rate schedules: a linear warm-up, then linear, cosine, constant or warmup-stable-decay."""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from bertjax.config.optimizer import OptimizerConfig
from bertjax.config.pretraining import Phase


def learning_rate(config: OptimizerConfig, phases: Sequence[Phase]) -> optax.Schedule:
    """The learning rate of step n, counted from 0, over all `phases`.

    A phase with a learning rate of its own begins the schedule anew, with that peak and its own warm-up; its end is
    that of the last phase, or the next such phase.
    """
    stretches: list[list[Phase]] = []
    for phase in phases:
        if phase.learning_rate or not stretches:
            stretches.append([])
        stretches[-1].append(phase)
    lengths = [sum(phase.steps for phase in stretch) for stretch in stretches]
    settings = [stretch[0] if stretch[0].learning_rate else config for stretch in stretches]
    schedules = [
        stretch(config, own.learning_rate, own.warmup_steps, length)
        for own, length in zip(settings, lengths, strict=True)
    ]
    return optax.join_schedules(schedules, list(itertools.accumulate(lengths[:-1])))


Number = int | float | jax.Array


def stretch(config: OptimizerConfig, peak: Number, warmup_steps: Number, total_steps: Number) -> optax.Schedule:
    """One schedule of `total_steps`, with a warm-up from 0 to `peak`; its numbers may be traced.

    `linear` follows google-research/bert: in the warm-up the rate is peak × n / warmup, and afterwards it lies on
    the one straight line from the peak at step 0 to `final_fraction` × peak at the end, so that it drops
    by the warm-up's share when the warm-up ends. With `decay_power` the line's height is taken to that power, as in
    TensorFlow's polynomial decay. `wsd` decays as 1-sqrt over the last `decay_steps` (Hägele et al. 2024,
    arXiv:2405.18392).
    """
    end = peak * config.final_fraction

    def height(step):
        """After the warm-up, between 1, the peak, and 0, the end."""
        if config.schedule == "linear":
            return jnp.clip(1 - step / total_steps, 0, 1) ** config.decay_power
        if config.schedule == "cosine":
            progress = (step - warmup_steps) / jnp.maximum(total_steps - warmup_steps, 1)
            return 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(progress, 0, 1)))
        progress = (step - (total_steps - config.decay_steps)) / config.decay_steps
        return 1 - jnp.sqrt(jnp.clip(progress, 0, 1))

    def schedule(step):
        warmup = peak * step / jnp.maximum(warmup_steps, 1)
        after = peak if config.schedule == "constant" else end + (peak - end) * height(step)
        return jnp.asarray(jnp.where(step < warmup_steps, warmup, after), jnp.float32)

    return schedule
