"""Extensions from a user's own module: task kinds, objectives, optimizers and masking units.

A registered name is used in configs like a built-in one. A config file is the natural place to register: `train` and
`finetune` execute it first. A checkpoint records the module's name, or the path of its file, but does not load it: pass
`--import=MODULE` to `predict`, `evaluate` and `convert` (their error message names the module), or `extensions=` to
`bertjax.load_model`.
"""

from collections.abc import Callable
from typing import TypeVar

from bertjax.config.registry import calling_module, registering
from bertjax.data.masking import UNITS, MaskingUnit
from bertjax.errors import UserError
from bertjax.optimizers.registry import OPTIMIZERS, MakeOptimizer
from bertjax.pretraining.objectives import OBJECTIVES, MakeObjective
from bertjax.tasks.kinds.base import TaskKind
from bertjax.tasks.kinds.catalog import KINDS

KindClass = TypeVar("KindClass", bound=type[TaskKind])


def register_task_kind(kind: KindClass) -> KindClass:
    """Registers a task kind; a class decorator.

    >>> from bertjax.tasks.kinds.classification import Classification
    >>> @bertjax.register_task_kind
    ... class Ordinal(Classification):
    ...     name = "ordinal"

    Fine-tune with it on a table of your own: `config.task = "table/ordinal"`.

    Args:
      kind: a subclass of `bertjax.tasks.kinds.base.TaskKind`, whose docstrings explain what it may override.

    Raises:
      UserError: the name is taken.
    """
    if not (isinstance(kind, type) and issubclass(kind, TaskKind)):
        raise UserError(f"register_task_kind: {kind!r} is not a subclass of bertjax.tasks.kinds.base.TaskKind")
    KINDS.add(kind.name, kind(), calling_module(1))
    return kind


def register_objective(name: str) -> Callable[[MakeObjective], MakeObjective]:
    """Registers a pre-training objective; a decorator. Select it with `config.objective = NAME`.

    >>> import dataclasses
    >>> import jax.numpy as jnp
    >>> from bertjax.objectives.terms import weighted
    >>> @bertjax.register_objective("masked_lm_with_z_loss")
    ... def masked_lm_with_z_loss(config, base):
    ...     def terms(outputs, batch):
    ...         logits, weights = outputs["masked_lm_logits"], batch["masked_lm_weights"]
    ...         z = jnp.square(jnp.log(jnp.sum(jnp.exp(logits), axis=-1)))
    ...         return base.terms(outputs, batch) | {"z_loss": weighted(1e-4 * z, weights)}
    ...     def weights(batch):
    ...         return base.weights(batch) | {"z_loss": jnp.sum(batch["masked_lm_weights"])}
    ...     return dataclasses.replace(base, terms=terms, weights=weights)

    Args:
      name: the name in configs. The decorated function takes the pre-training config and the built-in
        `bertjax.trainer.step.Objective`, and returns an Objective. Terms named `…_loss` add up to the loss.

    Raises:
      UserError: the name is taken.
    """
    return registering(OBJECTIVES, name)


def register_optimizer(name: str) -> Callable[[MakeOptimizer], MakeOptimizer]:
    """Registers an optimizer of pre-training; a decorator. Select it with `config.optimizer.name = NAME`.

    >>> import optax
    >>> @bertjax.register_optimizer("lion")
    ... def lion(config, schedule):
    ...     return optax.lion(schedule, b1=config.beta1, b2=config.beta2, weight_decay=config.weight_decay)

    Args:
      name: the name in configs. The decorated function takes `config.optimizer` and the learning-rate schedule (step →
        rate), and returns an `optax.GradientTransformation`.

    Raises:
      UserError: the name is taken.
    """
    return registering(OPTIMIZERS, name)


def register_masking_unit(name: str) -> Callable[[MaskingUnit], MaskingUnit]:
    """Registers a masking unit: a group of tokens that is masked together; a decorator.

    Select it with `config.masking.unit = NAME`.

    >>> @bertjax.register_masking_unit("token_pair")
    ... def token_pair(input_ids, special, vocabulary):
    ...     return (~special).cumsum(axis=1) // 2

    Args:
      name: the name in configs. The decorated function takes `input_ids` int32 [batch, length], `special` bool [batch,
        length] and the `Vocabulary`, and returns for each token the index of its unit, integers [batch, length] that do
        not decrease along a row. Special tokens are never masked.

    Raises:
      UserError: the name is taken.
    """
    return registering(UNITS, name)
