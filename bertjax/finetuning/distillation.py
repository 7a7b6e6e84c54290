"""Task-specific distillation from a teacher that is fine-tuned for the same task.

The frozen teacher runs on each batch before the student, as for DistilBERT on SQuAD (Sanh et al. 2019,
arXiv:1910.01108, section 4.1).
"""

import logging

import jax

from bertjax.arrays.types import Batch, Params
from bertjax.errors import UserError
from bertjax.finetuning.task_model import TaskModel
from bertjax.interop.loading import load_model
from bertjax.model.computation import Computation
from bertjax.model.partitioning import state_shardings
from bertjax.parallel import sharding
from bertjax.parallel.mesh import put_array
from bertjax.tasks.metadata import TaskMetadata
from bertjax.trainer.step import TeacherForward, apply_model

_LOG = logging.getLogger(__name__)


def load_teacher(task_model: TaskModel) -> tuple[TeacherForward, Params, str]:
    """Loads the teacher of `config.distillation`.

    Returns:
      forward: adds `teacher_logits`, of the shape of the logits, to a batch; called within a train step.
      params: the teacher's parameters, on the mesh.
      fingerprint: the digest of the teacher.

    Raises:
      UserError: the model does not exist, or has another task, other labels or another tokenizer.
    """
    config, task = task_model.config, task_model.task
    path = config.distillation.teacher
    teacher = load_model(path)
    metadata = teacher.task or TaskMetadata("", "pre-training")
    for name, expected in {"kind": task.kind.name, "labels": task.labels}.items():
        if getattr(metadata, name) != expected:
            raise UserError(
                f"{path}: the teacher has {name} {getattr(metadata, name)!r}, {task.name} has {expected!r}; "
                "fine-tune a teacher for this task"
            )
    if metadata.features not in ("", "last"):
        raise UserError(
            f"{path}: the teacher is feature-based ({metadata.features}); use a teacher that is fine-tuned as a whole"
        )
    if teacher.tokenizer.hash() != task_model.tokenizer.hash():
        raise UserError(
            f"{path}: the tokenizer of the teacher differs from that of {config.init_from}; "
            "use a teacher with the same tokenizer"
        )
    if teacher.config.model.max_position_embeddings < config.length:
        raise UserError(
            f"{path}: the teacher reads at most {teacher.config.model.max_position_embeddings} tokens, but "
            f"config.length is {config.length}; lower config.length"
        )
    computation = Computation(task_model.model.computation.dtype, config.layout.unroll)
    model = task.kind.model(teacher.config.model, task.labels).clone(computation=computation)
    sharding.check_model(teacher.config.model, task_model.mesh)
    params = jax.tree.map(put_array, teacher.params, state_shardings(teacher.params, task_model.mesh))

    def forward(params: Params, batch: Batch) -> Batch:
        return dict(batch) | {"teacher_logits": apply_model(model, params, batch)["logits"]}

    _LOG.info(f"distilling from {path}")
    return forward, params, teacher.fingerprint()
