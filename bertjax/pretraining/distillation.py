"""Distillation in pre-training: a frozen teacher on the student's mesh, run on each batch before the student."""

import dataclasses
from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import Mesh

from bertjax.arrays.trees import named_leaves, path_name
from bertjax.arrays.types import Batch, Params
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
from bertjax.objectives.terms import Term
from bertjax.parallel import sharding
from bertjax.parallel.mesh import put_array
from bertjax.text.tokenizer import Tokenizer
from bertjax.trainer.step import Objective, TeacherForward, apply_model

TEACHER_PARTS = ("embeddings", "encoder", "masked_lm_head")  # the parameters that a teacher's outputs depend on


def load_source_model(path: str, name: str, config: Config, tokenizer: Tokenizer) -> Pretrained:
    """Loads a pre-trained model to start from or to distil; messages call it `name`.

    Raises:
      UserError: there is no model, it is fine-tuned, or has another tokenizer than the corpus.
    """
    source = load_model(path)
    pretrained.check_pretraining(source)
    if source.tokenizer.hash() != tokenizer.hash():
        raise UserError(
            f"{name} has another tokenizer than the corpus {config.corpus}; "
            "prepare the corpus with --tokenizer of that model"
        )
    return source


def load_teacher(config: Config, tokenizer: Tokenizer) -> Pretrained:
    """Loads the model of `config.distillation.teacher`.

    Raises:
      UserError: there is no model, it is fine-tuned or has no masked-LM head, or its tokenizer, hidden size or length
        does not fit.
    """
    path = config.distillation.teacher
    source = load_source_model(path, f"the teacher {path}", config, tokenizer)
    if config.distillation.soft_weight:
        pretrained.check_masked_lm(source)
    for name in ("vocab_size", "hidden_size"):
        student_size, teacher_size = getattr(config.model, name), getattr(source.config.model, name)
        if student_size != teacher_size:
            raise UserError(
                f"config.model.{name} is {student_size}, but {teacher_size} in the teacher {path}; "
                f"set it to {teacher_size}"
            )
    longest = max(phase.length for phase in config.phases)
    if longest > source.config.model.max_position_embeddings:
        raise UserError(
            f"config.phases has a length of {longest}, but the teacher {path} supports at most "
            f"{source.config.model.max_position_embeddings} tokens; use shorter phases"
        )
    return source


def fingerprint(teacher: Pretrained) -> str:
    """Returns a digest that is equal for teachers with equal outputs."""
    return teacher.fingerprint(TEACHER_PARTS)


def teacher_forward(teacher: Pretrained, config: Config, mesh: Mesh) -> tuple[TeacherForward, Params]:
    """Returns (the forward pass of `make_forward`, the teacher's parameters on the mesh)."""
    host = {name: teacher.params[name] for name in TEACHER_PARTS}
    sharding.check_model(teacher.config.model, mesh)
    params = jax.tree.map(put_array, host, state_shardings(host, mesh))
    return make_forward(teacher.config.model, config), params


def make_forward(teacher: ModelConfig, config: Config, platform: str = "") -> TeacherForward:
    """Returns a function that adds `teacher_logits` and `teacher_states` to a batch; `platform` as in `Computation`."""
    computation = computation_of(dataclasses.replace(config.layout, remat="none"), config.dtype, platform)
    model = PretrainingModel(teacher, pairs="", computation=computation, states=True)

    def forward(params: Params, batch: Batch) -> Batch:
        outputs = apply_model(model, params, batch)
        return dict(batch) | {"teacher_logits": outputs["masked_lm_logits"], "teacher_states": outputs["states"]}

    return forward


def objective(config: Config, model: PretrainingModel) -> Objective:
    """Returns the student's objective: its own terms and the distillation terms, weighted by `config.distillation`."""
    settings = config.distillation

    def terms(outputs: Mapping[str, jax.Array], batch: Batch) -> dict[str, Term]:
        return pretraining.terms(outputs, batch) | distillation.terms(outputs, batch, settings.temperature)

    def weights(batch: Batch) -> dict[str, jax.Array]:
        return pretraining.weights(batch) | distillation.weights(batch)

    scales = {
        "soft_loss": settings.soft_weight,
        "mlm_loss": settings.masked_lm_weight,
        "cosine_loss": settings.cosine_weight,
    }
    return Objective(dataclasses.replace(model, states=True), terms, weights, scales)


def init_student(teacher: Pretrained, config: ModelConfig, params: Params) -> Params:
    """Returns the student's `params` with the teacher's embeddings, heads and evenly spaced layers.

    A student of 6 layers takes layers 0, 2, 4, 6, 8, 10 of 12. Parameters that the teacher lacks keep their values.

    Raises:
      UserError: layers share parameters, or parameters have different shapes.
    """
    for model in (config, teacher.config.model):
        if len(layer_stacks(model)) != 1 or layer_stacks(model)[0].shared:
            raise UserError(
                "config.distillation.initialize needs layers of equal structure without shared parameters, in student "
                "and teacher; set config.distillation.initialize to False"
            )
    student_layers, teacher_layers = config.num_hidden_layers, teacher.config.model.num_hidden_layers
    chosen = np.arange(student_layers) * teacher_layers // student_layers
    arrays = named_leaves(teacher.params)

    def initial_value(path: jax.tree_util.KeyPath, leaf: jax.Array) -> jax.Array:
        name = path_name(path)
        if name not in arrays:
            return leaf
        array = arrays[name][chosen] if is_stacked(name) else arrays[name]
        if array.shape != leaf.shape:
            raise UserError(
                f"{name} is {array.shape} in the teacher and {leaf.shape} in the student; set config.model as in the "
                "teacher, or config.distillation.initialize to False"
            )
        return put_array(array, leaf.sharding)

    return jax.tree_util.tree_map_with_path(initial_value, params)
