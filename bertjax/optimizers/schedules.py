"""Learning-rate schedules: linear warm-up, then linear, cosine, constant or warmup-stable-decay."""

import itertools
from collections.abc import Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import optax

from bertjax.config.optimizer import OptimizerConfig
from bertjax.config.pretraining import Phase

Number: TypeAlias = int | float | jax.Array


def learning_rate(config: OptimizerConfig, phases: Sequence[Phase]) -> optax.Schedule:
    """Returns the learning rate as a function of the step, counted from 0, over all `phases`.

    A phase that sets a learning rate restarts the schedule with that peak and its own warm-up. A schedule ends with the
    phase before the next such phase, or with the last phase.
    """
    stretches: list[list[Phase]] = []
    for phase in phases:
        if phase.learning_rate or not stretches:
            stretches.append([])
        stretches[-1].append(phase)
    lengths = [sum(phase.steps for phase in stretch) for stretch in stretches]
    settings = [stretch[0] if stretch[0].learning_rate else config for stretch in stretches]
    schedules = [
        make_schedule(config, setting.learning_rate, setting.warmup_steps, length)
        for setting, length in zip(settings, lengths, strict=True)
    ]
    return optax.join_schedules(schedules, list(itertools.accumulate(lengths[:-1])))


def make_schedule(config: OptimizerConfig, peak: Number, warmup_steps: Number, total_steps: Number) -> optax.Schedule:
    """Returns one schedule of `total_steps` with a warm-up from 0 to `peak`; its numbers may be traced.

    `linear` follows google-research/bert: during warm-up the rate is peak × n / warmup, afterwards it lies on the
    straight line from the peak at step 0 to `final_fraction` × peak at the end. At the end of warm-up it therefore
    drops by the fraction of the steps spent in warm-up. `decay_power` is the exponent of that line, as in TensorFlow's
    polynomial decay. `wsd` decays as 1-sqrt over the last `decay_steps` (Hägele et al. 2024, arXiv:2405.18392).
    """
    end = peak * config.final_fraction

    def decay(step: Number) -> Number:
        """The rate after warm-up, scaled to 1 at the peak and 0 at the end."""
        if config.schedule == "linear":
            return jnp.clip(1 - step / total_steps, 0, 1) ** config.decay_power
        if config.schedule == "cosine":
            progress = (step - warmup_steps) / jnp.maximum(total_steps - warmup_steps, 1)
            return 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(progress, 0, 1)))
        progress = (step - (total_steps - config.decay_steps)) / config.decay_steps
        return 1 - jnp.sqrt(jnp.clip(progress, 0, 1))

    def schedule(step: Number) -> jax.Array:
        warmup = peak * step / jnp.maximum(warmup_steps, 1)
        after = peak if config.schedule == "constant" else end + (peak - end) * decay(step)
        return jnp.asarray(jnp.where(step < warmup_steps, warmup, after), jnp.float32)

    return schedule  # pyright: ignore[reportReturnType]  # optax's type admits complex steps
