"""The optimizers of pre-training by name."""

from collections.abc import Callable
from typing import TypeAlias

import optax

from bertjax.config.optimizer import OptimizerConfig
from bertjax.config.registry import Registry
from bertjax.optimizers.adamw import adamw
from bertjax.optimizers.lamb import lamb
from bertjax.optimizers.muon import muon
from bertjax.optimizers.stable_adamw import stable_adamw

# (config.optimizer, learning-rate schedule) → optimizer
MakeOptimizer: TypeAlias = Callable[[OptimizerConfig, optax.Schedule], optax.GradientTransformation]

OPTIMIZERS: Registry[MakeOptimizer] = Registry(
    "optimizer", {"adamw": adamw, "lamb": lamb, "stable_adamw": stable_adamw, "muon": muon}
)
