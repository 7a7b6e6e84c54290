"""The objectives of pre-training by name."""

from collections.abc import Callable
from typing import TypeAlias

from bertjax.config.pretraining import Config
from bertjax.config.registry import Registry
from bertjax.trainer.step import Objective

# (config, the objective of BERT for this config) → the objective to train
MakeObjective: TypeAlias = Callable[[Config, Objective], Objective]


def masked_lm(config: Config, base: Objective) -> Objective:
    """Returns the objective of BERT: masked LM, with pairs of segments if the config has them."""
    del config
    return base


OBJECTIVES: Registry[MakeObjective] = Registry("objective", {"masked_lm": masked_lm})
