"""A teacher for pre-training: frozen, on the student's mesh, it reads each batch before the student does."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from bertjax.arrays.trees import named_leaves, path_name
from bertjax.checkpoints import pretrained
from bertjax.checkpoints.pretrained import Pretrained
from bertjax.config.model import ModelConfig
from bertjax.config.pretraining import Config
from bertjax.errors import UserError
from bertjax.interop.loading import load_model
from bertjax.model.computation import computation_of
from bertjax.model.layer_stacks import layer_stacks
from bertjax.model.partitioning import is_stacked, state_shardings
from bertjax.model.pretraining import PretrainingModel
from bertjax.objectives import distillation, pretraining
from bertjax.parallel import sharding
from bertjax.parallel.mesh import put
from bertjax.text.tokenizer import Tokenizer
from bertjax.trainer.step import Objective, TeacherForward, apply_model

READ = ("embeddings", "encoder", "masked_lm_head")  # what a teacher answers with


def open_source(path: str, name: str, config: Config, tokenizer: Tokenizer) -> Pretrained:
    """A pre-trained model to start or to learn from, which messages call by `name`.

    Raises:
      UserError: there is none, it is fine-tuned, or has another tokenizer than the corpus.
    """
    source = load_model(path)
    pretrained.check_pretraining(source)
    if source.tokenizer.hash() != tokenizer.hash():
        raise UserError(
            f"{name} has another tokenizer than the corpus {config.corpus}; "
            "prepare the corpus with --tokenizer of that model"
        )
    return source


def open_teacher(config: Config, tokenizer: Tokenizer) -> Pretrained:
    """The model of `config.distillation.teacher`.

    Raises:
      UserError: there is none, it is fine-tuned, has another tokenizer, or states of another width.
    """
    path = config.distillation.teacher
    source = open_source(path, f"the teacher {path}", config, tokenizer)
    for name in ("vocab_size", "hidden_size"):
        ours, theirs = getattr(config.model, name), getattr(source.config.model, name)
        if ours != theirs:
            raise UserError(f"config.model.{name} is {ours}, but {theirs} in the teacher {path}; set it to that")
    longest = max(phase.length for phase in config.phases)
    if longest > source.config.model.max_position_embeddings:
        raise UserError(
            f"the teacher {path} reads {source.config.model.max_position_embeddings} tokens at most, and config.phases "
            f"has {longest}; shorten them"
        )
    return source


def fingerprint(teacher: Pretrained) -> str:
    """Two teachers with the same one teach the same."""
    return teacher.fingerprint(READ)


def teacher_forward(teacher: Pretrained, config: Config, mesh: Mesh) -> tuple[TeacherForward, Any]:
    """(what adds `teacher_logits` and `teacher_states` to a batch, within a train step; the parameters on the mesh)."""
    host = {name: teacher.params[name] for name in READ}
    sharding.check_model(teacher.config.model, mesh)
    params = jax.tree.map(put, host, state_shardings(host, mesh))
    return make_forward(teacher.config.model, config), params


def make_forward(teacher: ModelConfig, config: Config, platform: str = "") -> TeacherForward:
    """What adds `teacher_logits` and `teacher_states` to a batch, for a platform as `Computation` names it."""
    computation = computation_of(dataclasses.replace(config.layout, remat="none"), config.dtype, platform)
    model = PretrainingModel(teacher, pairs="", computation=computation, states=True)

    def forward(params: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
        outputs = apply_model(model, params, batch)
        return dict(batch) | {"teacher_logits": outputs["masked_lm_logits"], "teacher_states": outputs["states"]}

    return forward


def objective(config: Config, model: PretrainingModel) -> Objective:
    """The student's objective: its own terms and the teacher's, by the weights of `config.distillation`."""
    settings = config.distillation

    def terms(outputs: Any, batch: Any) -> Any:
        return pretraining.terms(outputs, batch) | distillation.terms(outputs, batch, settings.temperature)

    def weights(batch: Any) -> Any:
        return pretraining.weights(batch) | distillation.weights(batch)

    scales = {
        "soft_loss": settings.soft_weight,
        "mlm_loss": settings.masked_lm_weight,
        "cosine_loss": settings.cosine_weight,
    }
    return Objective(dataclasses.replace(model, states=True), terms, weights, scales)


def init_student(teacher: Pretrained, config: ModelConfig, params: Any) -> Any:
    """The student's `params` with what the teacher has of them: embeddings, heads, and layers evenly chosen.

    Of 12 layers these are 0, 2, 4, 6, 8, 10 for a student of 6. What the teacher lacks stays as it is.

    Raises:
      UserError: layers that are shared or of another shape.
    """
    for side in (config, teacher.config.model):
        if len(layer_stacks(side)) != 1 or layer_stacks(side)[0].shared:
            raise UserError(
                "a student can start only from layers of one kind, each with parameters of its own; set "
                "config.distillation.initialize to False"
            )
    ours, theirs = config.num_hidden_layers, teacher.config.model.num_hidden_layers
    chosen = np.arange(ours) * theirs // ours
    found = named_leaves(teacher.params)

    def one(path: Any, leaf: jax.Array) -> jax.Array:
        name = path_name(path)
        if name not in found:
            return leaf
        array = found[name][chosen] if is_stacked(name) else found[name]
        if array.shape != leaf.shape:
            raise UserError(
                f"the teacher's {name} is {array.shape} and the student's {leaf.shape}; set config.model as in the "
                "teacher, or config.distillation.initialize to False"
            )
        return put(array, leaf.sharding)

    return jax.tree_util.tree_map_with_path(one, params)
