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
from bertjax.finetuning.task_model import Setup, Split
from bertjax.model.finetuning import POOLED
from bertjax.model.partitioning import state_shardings
from bertjax.parallel.mesh import put_batch
from bertjax.trainer.step import Batch, make_predict_step

_LOG = logging.getLogger(__name__)


def computed(setup: Setup, params: Any, splits: Sequence[Split], most: float) -> list[Split]:
    """The splits with features in place of ids, f32 in the host's memory; `params` are the encoder's.

    Raises:
      UserError: they would take more than `most` GB.
    """
    encode = make_predict_step(setup.model, setup.mesh, method="encode")
    params = jax.device_put(params, state_shardings(params, setup.mesh))
    shape = jax.eval_shape(encode, params, next(splits[0].batches.sorted())[1]).shape[-2:]
    size = sum(_vectors(setup, split) for split in splits) * math.prod(shape) * np.float32().nbytes / 1e9
    name = setup.model.features
    if size > most:
        raise UserError(
            f"features of config.features={name} take {size:.3g} GB, config.features_memory allows {most:g}; "
            "raise it, or take fewer examples, shorter rows or last"
        )
    _LOG.info(f"computing features ({name}): {size:.3g} GB of memory")
    return [_computed(setup, params, split, encode) for split in splits]


def _vectors(setup: Setup, split: Split) -> int:
    """How many tokens there are features of."""
    rows = split.batches.rows
    return len(rows) if setup.task.kind in POOLED else sum(len(row.input_ids) for row in rows)


def _computed(setup: Setup, params: Any, split: Split, encode: Callable[[Any, Batch], jax.Array]) -> Split:
    rows, choices, pooled = split.batches.rows, split.batches.choices, setup.task.kind in POOLED
    features: list[Any] = [None] * len(rows)
    for units, batch in split.batches.sorted():
        found = np.asarray(jax.device_get(encode(params, put_batch(batch, setup.mesh))), np.float32)
        for place, number in enumerate(unit * choices + choice for unit in units for choice in range(choices)):
            # A copy: the whole batch with its padding would be kept.
            features[number] = (found[place] if pooled else found[place, : len(rows[number].input_ids)]).copy()
    if pooled:  # nothing else of the rows is read, so all are of one length
        rows = [dataclasses.replace(row, input_ids=row.input_ids[:1], second=1) for row in rows]
    return dataclasses.replace(split, batches=setup.batches(rows, features))
