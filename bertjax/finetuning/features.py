"""Features of texts: what a frozen encoder gives of them, computed once for all runs of a sweep.

Devlin et al. 2018 (arXiv:1810.04805), section 5.3.
"""

import dataclasses
import logging
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bertjax.errors import UserError
from bertjax.finetuning.task_model import Split, TaskModel
from bertjax.inference.runner import Runner
from bertjax.model.partitioning import state_shardings
from bertjax.tasks.encoding import empty_inputs
from bertjax.trainer.step import Batch, apply_model

_LOG = logging.getLogger(__name__)


def computed(task_model: TaskModel, params: Any, splits: Sequence[Split], most: float) -> list[Split]:
    """The splits with features in place of ids, f32 in the host's memory; `params` are the encoder's.

    Raises:
      UserError: they would take more than `most` GB.
    """
    model, mesh, pooled = task_model.model, task_model.mesh, task_model.task.kind.pooled

    def encode(params: Any, batch: Batch) -> jax.Array:
        return apply_model(model, params, batch, method="encode").astype(jnp.float32)

    tokens = sum(1 if pooled else len(row.input_ids) for split in splits for row in split.batches.rows)
    shape = jax.eval_shape(encode, params, empty_inputs((1, 8), 0)).shape[-2:]
    size = tokens * math.prod(shape) * np.float32().nbytes / 1e9
    if size > most:
        raise UserError(
            f"features of config.features={model.features} take {size:.3g} GB, config.features_memory allows "
            f"{most:g}; raise it, or take fewer examples, shorter rows or last"
        )
    _LOG.info(f"computing features ({model.features}): {size:.3g} GB of memory")
    runner = Runner(encode, mesh, task_model.shapes)
    params = jax.device_put(params, state_shardings(params, mesh))
    found = []
    for split in splits:
        rows = list(split.batches.rows)
        for number, features in runner.stream(params, rows):
            row = rows[number]
            if pooled:  # nothing else of the rows is read, so all are of one length
                row = dataclasses.replace(row, input_ids=row.input_ids[:1], segment_b=1)
            else:
                features = features[: len(row.input_ids)]
            # A copy: the whole batch with its padding would be kept.
            rows[number] = dataclasses.replace(row, features=features.copy())
        found.append(dataclasses.replace(split, batches=task_model.batches(rows)))
    return found
