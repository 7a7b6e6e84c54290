"""A teacher for a task: a model that is fine-tuned for it, frozen, and reads each batch before the student does.

Task-specific distillation, as DistilBERT on SQuAD (Sanh et al. 2019, arXiv:1910.01108, section 4.1).
"""

import logging
from typing import Any

import jax

from bertjax.errors import UserError
from bertjax.finetuning.task_model import TaskModel
from bertjax.interop.loading import load_model
from bertjax.model.computation import Computation
from bertjax.model.partitioning import state_shardings
from bertjax.parallel import sharding
from bertjax.parallel.mesh import put
from bertjax.tasks.metadata import TaskMetadata
from bertjax.trainer.step import Batch, TeacherForward, apply_model

_LOG = logging.getLogger(__name__)


def reader(task_model: TaskModel) -> tuple[TeacherForward, Any, str]:
    """(what adds `teacher_logits`, of the logits' shape, to a batch; parameters for it, on the mesh; its fingerprint).

    The first is called within a train step.

    Raises:
      UserError: no such model, or one for another task, with other labels or another tokenizer.
    """
    config, task = task_model.config, task_model.task
    path = config.distillation.teacher
    source = load_model(path)
    theirs = source.task or TaskMetadata("", "pre-training")
    for name, ours in {"kind": task.kind.name, "labels": task.labels}.items():
        if getattr(theirs, name) != ours:
            raise UserError(
                f"the teacher {path} has {name} {getattr(theirs, name)!r}, {task.name} has {ours!r}; fine-tune a "
                "teacher for this task"
            )
    if theirs.features not in ("", "last"):
        raise UserError(f"the teacher {path} is feature-based ({theirs.features}); fine-tune one whole")
    if source.tokenizer.hash() != task_model.tokenizer.hash():
        raise UserError(f"the teacher {path} has another tokenizer than {config.init_from}; take one with the same")
    if source.config.model.max_position_embeddings < config.length:
        raise UserError(
            f"the teacher {path} reads {source.config.model.max_position_embeddings} tokens at most and config.length "
            f"is {config.length}; lower it"
        )
    computation = Computation(task_model.model.computation.dtype, config.layout.unroll)
    model = task.kind.model(source.config.model, task.labels).clone(computation=computation)
    sharding.check_model(source.config.model, task_model.mesh)
    params = jax.tree.map(put, source.params, state_shardings(source.params, task_model.mesh))

    def forward(params: Any, batch: Batch) -> dict[str, Any]:
        return dict(batch) | {"teacher_logits": apply_model(model, params, batch)["logits"]}

    _LOG.info(f"{path} teaches")
    return forward, params, source.fingerprint()
