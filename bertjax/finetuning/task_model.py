"""What all runs of a sweep share: task, data, model, mesh, and the parameters that they start from."""

import dataclasses
import functools
import logging
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from bertjax.checkpoints import pretrained
from bertjax.config.finetuning import FinetuneConfig
from bertjax.config.model import ModelConfig
from bertjax.errors import UserError
from bertjax.finetuning.dataset import MULTIPLE, Batches, BatchLayout
from bertjax.inference.runner import BatchShapes, Runner
from bertjax.interop.loading import load_model
from bertjax.model.computation import computation_of
from bertjax.model.finetuning import FinetuningModel
from bertjax.model.sentence import SentenceModel
from bertjax.parallel import sharding
from bertjax.parallel.mesh import make_mesh
from bertjax.tasks.encoding import EncodedExample, ExampleEncoder, count_texts, empty_inputs
from bertjax.tasks.kinds.base import Prediction
from bertjax.tasks.kinds.catalog import bi_encoder_of
from bertjax.tasks.metadata import TokenLimits
from bertjax.tasks.registry import open_task
from bertjax.tasks.task_examples import TaskExamples
from bertjax.text.text_counts import TextCounts
from bertjax.text.tokenizer import Tokenizer
from bertjax.trainer.step import Batch, Objective, apply_model

_LOG = logging.getLogger(__name__)

RANDOM = "random:"  # before init_from: its shape and tokenizer, but not its parameters
ENCODER = ("embeddings", "encoder")  # its parameters


@dataclasses.dataclass(frozen=True)
class Split:
    """A split of a task's data, ready for the model."""

    name: str
    examples: Sequence[Any]
    batches: Batches


@dataclasses.dataclass(frozen=True)
class TaskModel:
    """A task on a model; see `open_task_model`."""

    config: FinetuneConfig
    task: TaskExamples
    model: FinetuningModel | SentenceModel
    mesh: Mesh
    tokenizer: Tokenizer

    @property
    def limits(self) -> TokenLimits:
        """How much of a text is read."""
        config = self.config
        return TokenLimits(config.length, config.stride, config.question_length, config.answer_length)

    def split(self, name: str, limit: int = 0) -> Split:
        """A split of the data, or its first `limit` examples.

        Raises:
          UserError: what is wrong with its file, or with a text.
        """
        examples = self.task.read(name)[: limit or None]
        encoder = ExampleEncoder(self.tokenizer, self.limits, len(self.task.labels))
        return Split(name, examples, self.batches(self.task.kind.encode_all(examples, encoder)))

    def counts(self, splits: Sequence[Split]) -> TextCounts:
        """How much of the texts of splits the model can read; the splits have ids, not features."""
        return sum((count_texts(split.batches.rows, self.tokenizer) for split in splits), TextCounts())

    def batches(self, rows: Sequence[EncodedExample]) -> Batches:
        """The batches of rows."""
        config, task = self.config, self.task
        multiple = sharding.batch_shards(self.mesh) * config.layout.accumulation
        layout = BatchLayout(config.batch, self.tokenizer.pad_id, len(task.labels), task.choices, multiple)
        return Batches(task.kind, rows, layout)

    @functools.cached_property
    def objective(self) -> Objective:
        """The model with the loss of the task's kind, and its teacher's."""
        kind, distillation = self.task.kind, self.config.distillation
        if not distillation.teacher:
            return Objective(self.model, kind.terms, kind.weights)
        scales = {"task_loss": 1 - distillation.soft_weight, "soft_loss": distillation.soft_weight}
        terms = functools.partial(kind.distillation_terms, temperature=distillation.temperature)
        return Objective(self.model, terms, kind.distillation_weights, scales)

    @functools.cached_property
    def shapes(self) -> BatchShapes:
        """As many tokens at once as padded batches for training have."""
        choices, longest = self.task.choices, self.config.length
        group = choices if self.task.kind.bi_encoder else 1
        return BatchShapes(self.config.batch * choices * longest, longest, self.tokenizer.pad_id, group)

    @functools.cached_property
    def _runner(self) -> Runner:
        def compute(params: Any, batch: Batch) -> jax.Array:
            return self.task.kind.row_scores(apply_model(self.model, params, batch))

        return Runner(compute, self.mesh, self.shapes)

    def predictions(self, params: Any, split: Split) -> list[Prediction]:
        """A prediction for each example of a split; `params` lie on the mesh.

        Raises:
          UserError: the model's scores are not finite.
        """
        rows = split.batches.rows
        scores = self._runner(params, rows)
        if not all(np.isfinite(score).all() for score in scores):  # classes of others would pass for predictions
            raise UserError(f"what the model says of {split.name} is not finite; train with a lower learning rate")
        return self.task.kind.predictions(split.examples, rows, scores, self.limits)

    def scores(self, split: Split, predictions: Sequence[Prediction]) -> dict[str, float]:
        """The task's official scores, in per cent.

        Raises:
          UserError: one is not finite.
        """
        scores = self.task.score(split.examples, [prediction.value for prediction in predictions])
        for name, value in scores.items():
            if not math.isfinite(value):
                raise UserError(
                    f"{self.task.name}: {name} on {split.name} is {value}, as of predictions that are all the same or "
                    "not finite; train with a lower learning rate or other seeds"
                )
        return scores


def open_task_model(config: FinetuneConfig) -> tuple[TaskModel, pretrained.Pretrained, dict[str, Any]]:
    """(the task model, the model that it starts from, the parameters to start from, which lack at least the new head).

    Raises:
      UserError: no such task, data or model, or a mesh that does not fit.
    """
    source = load_model(config.init_from.removeprefix(RANDOM))
    task = open_task(config.task, config.data_dir, config.table)
    task_model = make_task_model(config, task, with_dropout(source.config.model, config), source.tokenizer)
    if config.init_from.startswith(RANDOM):
        if config.features:
            raise UserError(
                f"config.features={config.features} needs a trained encoder; config.init_from is {config.init_from}"
            )
        _LOG.info(f"starting from random parameters of the shape of {source.path}")
        return task_model, source, {}
    if "sentence_dense" in source.params:
        _LOG.info(f"{source.path}: its layers between pooled states and vectors are left out; a task has none")
    params = {name: source.params[name] for name in ENCODER}
    if config.features:
        return task_model, source, params
    return task_model, source, params | _started_head(source, task_model)


def with_dropout(shape: ModelConfig, config: FinetuneConfig) -> ModelConfig:
    """A pre-trained model's shape with the dropout of fine-tuning."""
    return dataclasses.replace(
        shape,
        hidden_dropout_prob=config.hidden_dropout_prob,
        attention_probs_dropout_prob=config.attention_probs_dropout_prob,
        attention_output_dropout_prob=-1.0,
    )


def _started_head(source: pretrained.Pretrained, task_model: TaskModel) -> dict:
    """What of a head does not start afresh: the pooler, or ModernBERT's prediction head."""
    batch = empty_inputs((task_model.config.batch * task_model.task.choices, 8), 0)
    shapes = jax.eval_shape(lambda: task_model.model.init(jax.random.key(0), batch)["params"])
    part = next((name for name in ("prediction_head", "pooler") if name in shapes), None)
    reads_others = source.task is not None and source.task.features not in ("", "last")
    if part in source.params and not reads_others:
        return {part: source.params[part]}
    if part == "prediction_head" and "masked_lm_head" in source.params:  # one name for both in transformers
        head = source.params["masked_lm_head"]
        return {part: {name: head[name] for name in ("dense", "layer_norm")}}
    if part == "pooler":
        _LOG.info(f"{source.path} has no pooler, which reads the last layer's [CLS]: it starts afresh")
    return {}


def make_task_model(
    config: FinetuneConfig, task: TaskExamples, shape: ModelConfig, tokenizer: Tokenizer, platform: str = ""
) -> TaskModel:
    """A task on a model of this shape, for a platform as `Computation` names it.

    Raises:
      UserError: the mesh does not fit the model or the batch, or rows are too long for the model.
    """
    if config.length > shape.max_position_embeddings:
        raise UserError(
            f"config.length is {config.length}; the model reads at most {shape.max_position_embeddings} tokens"
        )
    if config.features == "concat_last_4" and shape.num_hidden_layers < 4:
        raise UserError(
            f"config.features=concat_last_4 needs four layers, the model has {shape.num_hidden_layers}; "
            "take last or weighted_sum"
        )
    task = _with_kind(task, config)
    mesh = make_mesh(config.mesh)
    sharding.check_model(shape, mesh)
    if MULTIPLE % config.mesh.sequence:
        raise UserError(
            f"config.mesh.sequence is {config.mesh.sequence}, but rows have any multiple of {MULTIPLE} tokens here; "
            f"take 1, 2 or {MULTIPLE}"
        )
    sharding.check_divides("batch", config.batch, mesh, "config.batch", config.layout.accumulation)
    model = task.kind.model(shape, task.labels).clone(computation=computation_of(config.layout, config.dtype, platform))
    if config.features:
        model = model.clone(features=config.features)
    return TaskModel(config, task, model, mesh, tokenizer)


def _with_kind(task: TaskExamples, config: FinetuneConfig) -> TaskExamples:
    """The task with its kind configured, which encodes each text on its own if the config asks for it."""
    separate = config.sentence.bi_encoder or task.kind.bi_encoder
    if config.layout.accumulation > 1 and (separate or (task.choices > 1 and config.features)):
        raise UserError(
            f"config.layout.accumulation is {config.layout.accumulation}, but the rows that {task.name} compares must "
            "be computed at once; leave it out, or use more devices"
        )
    if separate and (config.features or config.distillation.teacher):
        name = "features" if config.features else "distillation.teacher"
        raise UserError(f"config.{name} is not for texts that are encoded on their own; leave it out")
    if not separate:
        return task
    if (kind := bi_encoder_of(task.kind)) is None:
        raise UserError(
            f"config.sentence.bi_encoder: {task.name} is {task.kind.name}; regressions and classifications of two "
            "texts can be encoded on their own, and table/retrieval"
        )
    choices = task.choices if kind is task.kind else kind.texts
    kind = dataclasses.replace(kind, sentence=config.sentence, texts=choices)
    return dataclasses.replace(task, kind=kind, metric=kind.default_metric or task.metric, choices=choices)
