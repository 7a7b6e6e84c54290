"""The task, data, model, mesh and initial parameters that all runs of a sweep share."""

import dataclasses
import functools
import logging
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from bertjax.arrays.types import Batch, Params
from bertjax.checkpoints.pretrained import Pretrained
from bertjax.config.finetuning import FinetuneConfig
from bertjax.config.model import ModelConfig
from bertjax.errors import UserError
from bertjax.finetuning.dataset import LENGTH_MULTIPLE, Batches, BatchLayout
from bertjax.inference.runner import BatchShapes, Runner
from bertjax.interop.loading import load_model
from bertjax.model.computation import computation_of
from bertjax.model.finetuning import FinetuningModel
from bertjax.model.sentence import SentenceModel
from bertjax.parallel import sharding
from bertjax.parallel.mesh import make_mesh
from bertjax.tasks.encoding import EncodedExample, ExampleEncoder, count_texts, empty_inputs
from bertjax.tasks.kinds.base import Prediction
from bertjax.tasks.kinds.bi_encoder import BiEncoder
from bertjax.tasks.kinds.catalog import bi_encoder_of
from bertjax.tasks.metadata import TokenLimits
from bertjax.tasks.registry import open_task
from bertjax.tasks.task_examples import TaskExamples
from bertjax.text.text_counts import TextCounts
from bertjax.text.tokenizer import Tokenizer
from bertjax.trainer.step import Objective, apply_model

_LOG = logging.getLogger(__name__)

RANDOM_PREFIX = "random:"  # of init_from: use its shape and tokenizer, but random parameters
ENCODER_PARAMS = ("embeddings", "encoder")


@dataclasses.dataclass(frozen=True)
class Split:
    """A split of a task: its examples and their batches."""

    name: str
    examples: Sequence[Any]  # subclasses of `Example`, by kind of task
    batches: Batches


@dataclasses.dataclass(frozen=True)
class TaskModel:
    """A task with the model that is trained or evaluated on it; made by `open_task_model` and `make_task_model`."""

    config: FinetuneConfig
    task: TaskExamples
    model: FinetuningModel | SentenceModel
    mesh: Mesh
    tokenizer: Tokenizer

    @property
    def limits(self) -> TokenLimits:
        """The token limits of the config."""
        config = self.config
        return TokenLimits(config.length, config.stride, config.question_length, config.answer_length)

    def split(self, name: str, limit: int = 0) -> Split:
        """Reads and encodes a split, or its first `limit` examples.

        Raises:
          UserError: its file or one of its texts is invalid.
        """
        examples = self.task.read(name)[: limit or None]
        encoder = ExampleEncoder(self.tokenizer, self.limits, len(self.task.labels))
        return Split(name, examples, self.batches(self.task.kind.encode_all(examples, encoder)))

    def counts(self, splits: Sequence[Split]) -> TextCounts:
        """Counts the tokens and truncated examples of splits with ids; splits with features have no tokens."""
        return sum((count_texts(split.batches.rows, self.tokenizer) for split in splits), TextCounts())

    def batches(self, rows: Sequence[EncodedExample]) -> Batches:
        """Returns the batches of encoded examples."""
        config, task = self.config, self.task
        multiple = sharding.batch_shards(self.mesh) * config.layout.accumulation
        layout = BatchLayout(config.batch, self.tokenizer.pad_id, len(task.labels), task.choices, multiple)
        return Batches(task.kind, rows, layout)

    @functools.cached_property
    def objective(self) -> Objective:
        """The model with the loss of the task, and the distillation loss if the config names a teacher."""
        kind, distillation = self.task.kind, self.config.distillation
        if not distillation.teacher:
            return Objective(self.model, kind.terms, kind.weights)
        scales = {"task_loss": 1 - distillation.soft_weight, "soft_loss": distillation.soft_weight}
        terms = functools.partial(kind.distillation_terms, temperature=distillation.temperature)
        return Objective(self.model, terms, kind.distillation_weights, scales)

    @functools.cached_property
    def shapes(self) -> BatchShapes:
        """The shapes of evaluation batches, which have as many tokens as the longest padded training batch."""
        choices, longest = self.task.choices, self.config.length
        group = choices if self.task.kind.bi_encoder else 1
        return BatchShapes(self.config.batch * choices * longest, longest, self.tokenizer.pad_id, group)

    @functools.cached_property
    def _runner(self) -> Runner:
        def compute(params: Params, batch: Batch) -> jax.Array:
            return self.task.kind.row_scores(apply_model(self.model, params, batch))

        return Runner(compute, self.mesh, self.shapes)

    def predictions(self, params: Params, split: Split) -> list[Prediction]:
        """Predicts each example of a split; `params` are on the mesh.

        Raises:
          UserError: an output of the model is not finite.
        """
        rows = split.batches.rows
        scores = self._runner(params, rows)
        if not all(np.isfinite(score).all() for score in scores):  # the argmax would hide it
            raise UserError(
                f"{self.task.name}: the outputs of the model for {split.name} are not finite; "
                "train with a lower learning rate"
            )
        return self.task.kind.predictions(split.examples, rows, scores, self.limits)

    def scores(self, split: Split, predictions: Sequence[Prediction]) -> dict[str, float]:
        """Returns the official scores of the task, in percent.

        Raises:
          UserError: a score is not finite.
        """
        scores = self.task.score(split.examples, [prediction.value for prediction in predictions])
        for name, value in scores.items():
            if not math.isfinite(value):
                raise UserError(
                    f"{self.task.name}: {name} on {split.name} is {value}, because all predictions are equal or not "
                    "finite; train with a lower learning rate or other seeds"
                )
        return scores


def open_task_model(config: FinetuneConfig) -> tuple[TaskModel, Pretrained, Params]:
    """Opens the task and the initial model of a config.

    Returns:
      task_model: the task with the model to train.
      source: the initial model.
      params: the initial parameters, without the new head.

    Raises:
      UserError: the task, its data or the model does not exist, or the mesh does not fit.
    """
    source = load_model(config.init_from.removeprefix(RANDOM_PREFIX))
    task = open_task(config.task, config.data_dir, config.table)
    task_model = make_task_model(config, task, with_dropout(source.config.model, config), source.tokenizer)
    if config.init_from.startswith(RANDOM_PREFIX):
        if config.features:
            raise UserError(
                f"config.features={config.features} needs a trained encoder, but config.init_from is "
                f"{config.init_from}; remove the prefix {RANDOM_PREFIX}"
            )
        _LOG.info(f"starting from random parameters with the shape of {source.path}")
        return task_model, source, {}
    if "sentence_dense" in source.params:
        _LOG.info(f"{source.path}: ignoring the dense layers after pooling, which fine-tuning does not support")
    params = {name: source.params[name] for name in ENCODER_PARAMS}
    if config.features:
        return task_model, source, params
    return task_model, source, params | _initial_head(source, task_model)


def with_dropout(shape: ModelConfig, config: FinetuneConfig) -> ModelConfig:
    """Returns the shape of a pre-trained model with the dropout rates of fine-tuning."""
    return dataclasses.replace(
        shape,
        hidden_dropout_prob=config.hidden_dropout_prob,
        attention_probs_dropout_prob=config.attention_probs_dropout_prob,
        attention_output_dropout_prob=-1.0,
    )


def _initial_head(source: Pretrained, task_model: TaskModel) -> Params:
    """Returns the pre-trained part of a head: the pooler, or the prediction head of ModernBERT."""
    batch = empty_inputs((task_model.config.batch * task_model.task.choices, 8), 0)
    shapes = jax.eval_shape(lambda: task_model.model.init(jax.random.key(0), batch)["params"])
    part = next((name for name in ("prediction_head", "pooler") if name in shapes), "")
    reads_other_layers = source.task is not None and source.task.features not in ("", "last")
    if part in source.params and not reads_other_layers:
        return {part: source.params[part]}
    if part == "prediction_head" and "masked_lm_head" in source.params:  # transformers uses one name for both
        head = source.params["masked_lm_head"]
        return {part: {name: head[name] for name in ("dense", "layer_norm")}}
    if part == "pooler":
        _LOG.info(f"{source.path} has no pooler for the last layer's [CLS]; initializing a new one")
    return {}


def make_task_model(
    config: FinetuneConfig, task: TaskExamples, shape: ModelConfig, tokenizer: Tokenizer, platform: str = ""
) -> TaskModel:
    """Returns a task with a model of this shape; `platform` as in `Computation`.

    Raises:
      UserError: the mesh does not fit the model or the batch, or the model cannot read rows of this length.
    """
    if config.length > shape.max_position_embeddings:
        raise UserError(
            f"config.length is {config.length}, but the model reads at most {shape.max_position_embeddings} tokens; "
            "lower it"
        )
    if config.features == "concat_last_4" and shape.num_hidden_layers < 4:
        raise UserError(
            f"config.features=concat_last_4 needs four layers, but the model has {shape.num_hidden_layers}; "
            "use last or weighted_sum"
        )
    task = _with_configured_kind(task, config)
    mesh = make_mesh(config.mesh)
    sharding.check_model(shape, mesh)
    if LENGTH_MULTIPLE % config.mesh.sequence:
        raise UserError(
            f"config.mesh.sequence is {config.mesh.sequence}, but the row lengths of fine-tuning are multiples of "
            f"{LENGTH_MULTIPLE}; use 1, 2 or {LENGTH_MULTIPLE}"
        )
    sharding.check_divides("batch", config.batch, mesh, "config.batch", config.layout.accumulation)
    model = task.kind.model(shape, task.labels).clone(computation=computation_of(config.layout, config.dtype, platform))
    if config.features:
        model = model.clone(features=config.features)
    return TaskModel(config, task, model, mesh, tokenizer)


def _with_configured_kind(task: TaskExamples, config: FinetuneConfig) -> TaskExamples:
    """Returns the task, with the kind of a bi-encoder if the config asks for one."""
    bi_encoder = config.sentence.bi_encoder or task.kind.bi_encoder
    if config.layout.accumulation > 1 and (bi_encoder or (task.choices > 1 and config.features)):
        raise UserError(
            f"config.layout.accumulation is {config.layout.accumulation}, but {task.name} compares rows of one batch, "
            "so they cannot be split into microbatches; set it to 1, or use more devices"
        )
    if bi_encoder and (config.features or config.distillation.teacher):
        name = "features" if config.features else "distillation.teacher"
        raise UserError(f"config.{name} is not supported for bi-encoders; remove it")
    if not bi_encoder:
        return task
    kind = bi_encoder_of(task.kind)
    if not isinstance(kind, BiEncoder):
        raise UserError(
            f"config.sentence.bi_encoder: {task.name} is {task.kind.name}; use a regression or classification of two "
            "texts, or table/retrieval"
        )
    choices = task.choices if kind is task.kind else kind.texts
    kind = dataclasses.replace(kind, sentence=config.sentence, texts=choices)
    return dataclasses.replace(task, kind=kind, metric=kind.default_metric or task.metric, choices=choices)
