"""Features of texts: what a frozen encoder gives of them, computed once for all runs of a sweep.

Devlin et al. 2018 (arXiv:1810.04805), section 5.3.
"""

import dataclasses
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from bertjax.errors import UserError
from bertjax.finetuning.task_model import Split, TaskModel
from bertjax.model.partitioning import state_shardings
from bertjax.parallel.mesh import put_batch
from bertjax.trainer import loop

_LOG = logging.getLogger(__name__)


def computed(task_model: TaskModel, params: Any, splits: Sequence[Split], most: float) -> list[Split]:
    """The splits with features in place of ids, f32 in the host's memory; `params` are the encoder's.

    Raises:
      UserError: they would take more than `most` GB.
    """
    encode = loop.make_predict_step(task_model.model, task_model.mesh, method="encode")
    params = jax.device_put(params, state_shardings(params, task_model.mesh))
    shape = jax.eval_shape(encode, params, next(splits[0].batches.sorted())[1]).shape[-2:]
    size = sum(_vectors(task_model, split) for split in splits) * math.prod(shape) * np.float32().nbytes / 1e9
    name = task_model.model.features
    if size > most:
        raise UserError(
            f"features of config.features={name} take {size:.3g} GB, config.features_memory allows {most:g}; "
            "raise it, or take fewer examples, shorter rows or last"
        )
    _LOG.info(f"computing features ({name}): {size:.3g} GB of memory")
    return [_computed(task_model, params, split, encode) for split in splits]


def _vectors(task_model: TaskModel, split: Split) -> int:
    """How many tokens there are features of."""
    rows = split.batches.rows
    return len(rows) if task_model.task.kind.pooled else sum(len(row.input_ids) for row in rows)


def _computed(
    task_model: TaskModel, params: Any, split: Split, encode: Callable[[Any, loop.Batch], jax.Array]
) -> Split:
    task = task_model.task
    rows, choices, pooled = split.batches.rows, task.choices, task.kind.pooled
    features: list[Any] = [None] * len(rows)
    for units, batch in split.batches.sorted():
        found = np.asarray(jax.device_get(encode(params, put_batch(batch, task_model.mesh))), np.float32)
        for place, number in enumerate(unit * choices + choice for unit in units for choice in range(choices)):
            # A copy: the whole batch with its padding would be kept.
            features[number] = (found[place] if pooled else found[place, : len(rows[number].input_ids)]).copy()
    if pooled:  # nothing else of the rows is read, so all are of one length
        rows = [dataclasses.replace(row, input_ids=row.input_ids[:1], segment_b=1) for row in rows]
    rows = [dataclasses.replace(row, features=found) for row, found in zip(rows, features, strict=True)]
    return dataclasses.replace(split, batches=task_model.batches(rows))
