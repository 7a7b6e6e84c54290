"""Features from a frozen encoder, computed once for all runs of a sweep.

Devlin et al. 2018 (arXiv:1810.04805), section 5.3.
"""

import dataclasses
import logging
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from bertjax.arrays.types import Batch, Params
from bertjax.errors import UserError
from bertjax.finetuning.task_model import Split, TaskModel
from bertjax.inference.runner import Runner
from bertjax.model.partitioning import state_shardings
from bertjax.tasks.encoding import empty_inputs
from bertjax.trainer.step import apply_model

_LOG = logging.getLogger(__name__)


def compute_features(task_model: TaskModel, params: Params, splits: Sequence[Split], max_gb: float) -> list[Split]:
    """Returns the splits with features instead of ids, f32 in host memory.

    Args:
      task_model: the task and the model.
      params: the parameters of the encoder.
      splits: the splits to compute.
      max_gb: the memory that the features may take, in GB.

    Raises:
      UserError: the features need more memory.
    """
    model, mesh, pooled = task_model.model, task_model.mesh, task_model.task.kind.pooled
    name = task_model.config.features

    def encode(params: Params, batch: Batch) -> jax.Array:
        return apply_model(model, params, batch, method="encode").astype(jnp.float32)

    tokens = sum(1 if pooled else len(row.input_ids) for split in splits for row in split.batches.rows)
    shape = jax.eval_shape(encode, params, empty_inputs((1, 8), 0)).shape[-2:]
    size = tokens * math.prod(shape) * np.float32().nbytes / 1e9
    if size > max_gb:
        raise UserError(
            f"config.features={name}: the features need {size:.3g} GB, but config.features_memory allows {max_gb:g}; "
            "raise config.features_memory, or use fewer examples, shorter rows or config.features=last"
        )
    _LOG.info(f"computing features ({name}): {size:.3g} GB of memory")
    runner = Runner(encode, mesh, task_model.shapes)
    params = jax.device_put(params, state_shardings(params, mesh))
    feature_splits = []
    for split in splits:
        rows = list(split.batches.rows)
        for number, features in runner.stream(params, rows):
            row = rows[number]
            if pooled:  # the head reads only [CLS], and rows of one token all have the same shape
                row = dataclasses.replace(row, input_ids=row.input_ids[:1], segment_b=1)
            else:
                features = features[: len(row.input_ids)]
            # A view would keep the whole padded batch in memory.
            rows[number] = dataclasses.replace(row, features=features.copy())
        feature_splits.append(dataclasses.replace(split, batches=task_model.batches(rows)))
    return feature_splits
