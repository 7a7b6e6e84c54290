"""What all runs of a sweep share: task, data, model, mesh, and the parameters that they start from."""

import dataclasses
import functools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from bertjax.checkpoints import pretrained
from bertjax.config.finetuning import FinetuneConfig, SentenceConfig, TaskDistillation
from bertjax.config.model import ModelConfig
from bertjax.errors import UserError
from bertjax.finetuning.dataset import MULTIPLE, Batches
from bertjax.interop.loading import load_model
from bertjax.model.finetuning import FinetuningModel
from bertjax.model.sentence import SentenceModel
from bertjax.objectives import finetuning as losses
from bertjax.objectives import sentence
from bertjax.parallel import sharding
from bertjax.parallel.mesh import compute_dtype, make_mesh, put_batch
from bertjax.tasks import inputs, outputs
from bertjax.tasks.examples import APART, Task
from bertjax.tasks.metadata import TokenLimits
from bertjax.tasks.registry import open_task
from bertjax.text.tokenizer import Tokenizer
from bertjax.trainer.step import Batch, Objective, make_predict_step

_LOG = logging.getLogger(__name__)

RANDOM = "random:"  # before init_from: its shape and tokenizer, but not its parameters
ENCODER = ("embeddings", "encoder")  # its parameters
_MODEL_INPUTS = ("input_ids", "token_type_ids", "attention_mask")
_TARGETS = ("labels", "weights")


@dataclasses.dataclass(frozen=True)
class Split:
    """A split of a task's data, ready for the model."""

    name: str
    examples: Sequence[Any]
    batches: Batches


@dataclasses.dataclass(frozen=True)
class Setup:
    """A task on a model; see `open_setup`."""

    task: Task
    model: FinetuningModel
    mesh: Mesh
    tokenizer: Tokenizer
    limits: TokenLimits
    batch: int
    row_multiple: int  # of rows of a batch, for devices and accumulation to share
    sentence: SentenceConfig
    distillation: TaskDistillation

    def split(self, name: str, limit: int = 0) -> Split:
        """A split of the data, or its first `limit` examples.

        Raises:
          UserError: what is wrong with its file, or with a text.
        """
        examples = self.task.read(name)
        examples = examples[:limit] if limit else examples
        rows = inputs.rows(self.task.kind, examples, self.tokenizer, self.limits, len(self.task.labels))
        return Split(name, examples, self.batches(rows))

    def batches(self, rows: Sequence[inputs.Row], features: Sequence[np.ndarray] | None = None) -> Batches:
        """The batches of rows, or of their features."""
        task, labels = self.task, len(self.task.labels)
        return Batches(task.kind, rows, self.tokenizer, self.batch, task.choices, labels, features, self.row_multiple)

    @functools.cached_property
    def objective(self) -> Objective:
        """The model with the loss of the task's kind, and its teacher's."""
        taught, apart = self.distillation, self.sentence
        if self.task.kind in APART:
            terms = sentence.terms(self.task.kind, self.task.choices, apart.scale, apart.lowest, apart.highest)
            return Objective(self.model, terms, losses.weights)
        if taught.teacher:
            scales = {"task_loss": 1 - taught.soft_weight, "soft_loss": taught.soft_weight}
            terms = losses.taught_terms(self.task.kind, taught.temperature)
            return Objective(self.model, terms, losses.taught_weights, scales)
        return Objective(self.model, losses.terms(self.task.kind), losses.weights)

    @functools.cached_property
    def _predict_step(self) -> Callable[[Any, Batch], dict[str, jax.Array]]:
        return make_predict_step(self.model, self.mesh)

    def predictions(self, params: Any, split: Split) -> list[outputs.Prediction]:
        """A prediction for each example of a split.

        Raises:
          UserError: the model's scores are not finite.
        """
        batches, scores = split.batches, [np.zeros(0)] * len(split.batches.rows)
        pending = []
        for units, batch in batches.sorted():
            batch = {name: batch[name] for name in batch if name not in _TARGETS}
            pending.append((units, self._predict_step(params, put_batch(batch, self.mesh))))
        if self.task.kind == "retrieval":
            vectors = np.zeros((len(split.examples), batches.choices, self.model.config.hidden_size), np.float32)
            for units, result in pending:
                vectors[units] = jax.device_get(result["vectors"])[: len(units)]
            _check_finite(vectors, split.name)
            return outputs.ranked(vectors, split.examples)
        for units, result in pending:
            logits = jax.device_get(result["logits"])
            _check_finite(logits, split.name)
            for place, unit in enumerate(units):
                for choice in range(batches.choices):
                    scores[unit * batches.choices + choice] = logits[place * batches.choices + choice]
        found = outputs.predictions(self.task.kind, split.examples, batches.rows, scores, self.limits)
        if self.task.kind == "similarity":  # from cosines to the labels' scale
            lowest, highest = self.sentence.lowest, self.sentence.highest
            found = [dataclasses.replace(one, value=lowest + one.value * (highest - lowest)) for one in found]
        return found

    def scores(self, split: Split, predictions: Sequence[outputs.Prediction]) -> dict[str, float]:
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


def _check_finite(scores: np.ndarray, split: str) -> None:
    """The classes of scores that are not finite would pass for predictions."""
    if not np.isfinite(scores).all():
        raise UserError(f"what the model says of {split} is not finite; train with a lower learning rate")


def open_setup(config: FinetuneConfig) -> tuple[Setup, pretrained.Pretrained, dict[str, Any]]:
    """(the setup, the model that it starts from, the parameters to start from, which lack at least the new head).

    Raises:
      UserError: no such task, data or model, or a mesh that does not fit.
    """
    source = load_model(config.init_from.removeprefix(RANDOM))
    task = open_task(config.task, config.data_dir, config.table)
    shape = dataclasses.replace(
        source.config.model,
        hidden_dropout_prob=config.hidden_dropout_prob,
        attention_probs_dropout_prob=config.attention_probs_dropout_prob,
        attention_output_dropout_prob=-1.0,
    )
    setup = make_setup(config, task, shape, source.tokenizer)
    if config.init_from.startswith(RANDOM):
        if config.features:
            raise UserError(
                f"config.features={config.features} needs a trained encoder; config.init_from is {config.init_from}"
            )
        _LOG.info(f"starting from random parameters of the shape of {source.path}")
        return setup, source, {}
    params = {name: source.params[name] for name in ENCODER}
    if config.features:
        return setup, source, params
    return setup, source, params | _started_head(source, _shapes(setup))


def _started_head(source: pretrained.Pretrained, shapes: Mapping[str, Any]) -> dict:
    """What of a head does not start afresh: the pooler, or ModernBERT's prediction head."""
    reads_others = source.task is not None and source.task.features not in ("", "last")
    if "prediction_head" in shapes:
        if "prediction_head" in source.params and not reads_others:
            return {"prediction_head": source.params["prediction_head"]}
        if "masked_lm_head" in source.params:  # as in transformers, where both have one name
            head = source.params["masked_lm_head"]
            return {"prediction_head": {name: head[name] for name in ("dense", "layer_norm")}}
    elif "pooler" in shapes:
        if "pooler" in source.params and not reads_others:
            return {"pooler": source.params["pooler"]}
        _LOG.info(f"{source.path} has no pooler, which reads the last layer's [CLS]: it starts afresh")
    return {}


def make_setup(config: FinetuneConfig, task: Task, shape: ModelConfig, tokenizer: Tokenizer) -> Setup:
    """The setup of a task on a model of this shape.

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
    task = _apart(task, config)
    mesh = make_mesh(config.mesh)
    sharding.check_model(shape, mesh)
    if MULTIPLE % config.mesh.sequence:
        raise UserError(
            f"config.mesh.sequence is {config.mesh.sequence}, but rows have any multiple of {MULTIPLE} tokens here; "
            f"take 1, 2 or {MULTIPLE}"
        )
    sharding.check_divides("batch", config.batch, mesh, "config.batch", config.layout.accumulation)
    computed = {
        "dtype": compute_dtype(config.dtype),
        "unroll": config.layout.unroll,
        "remat": config.layout.remat,
        "attention": config.layout.attention_impl,
    }
    count = {"span": 2}.get(task.kind) or len(task.labels) or 1
    if task.kind in APART:
        model = SentenceModel(shape, task.kind, count, task.choices, config.sentence.pooling, **computed)
    else:
        model = FinetuningModel(shape, task.kind, count, features=config.features, **computed)
    limits = limits_of(config)
    devices = math.prod(mesh.shape[axis] for axis in sharding.RULES["batch"])
    multiple = devices * config.layout.accumulation
    return Setup(task, model, mesh, tokenizer, limits, config.batch, multiple, config.sentence, config.distillation)


def _apart(task: Task, config: FinetuneConfig) -> Task:
    """The task with its texts read apart, if the config asks for it."""
    kinds = {"regression": ("similarity", "spearman"), "classification": ("comparison", task.metric)}
    several = config.sentence.apart or task.kind == "retrieval"
    if config.layout.accumulation > 1 and (several or (task.kind == "choice" and config.features)):
        raise UserError(
            f"config.layout.accumulation is {config.layout.accumulation}, but the rows that {task.name} compares must "
            "be computed at once; leave it out, or use more devices"
        )
    if several and (config.features or config.distillation.teacher):
        name = "features" if config.features else "distillation.teacher"
        raise UserError(f"config.{name} is not for texts that are read apart; leave it out")
    if not config.sentence.apart or task.kind == "retrieval":
        return task
    if task.kind not in kinds:
        raise UserError(
            f"config.sentence.apart: {task.name} is {task.kind}; regressions and classifications of two texts can be "
            "read apart, and table/retrieval"
        )
    kind, metric = kinds[task.kind]
    return dataclasses.replace(task, kind=kind, metric=metric, choices=2)


def limits_of(config: FinetuneConfig) -> TokenLimits:
    """The limits that a config sets."""
    return TokenLimits(**{field.name: getattr(config, field.name) for field in dataclasses.fields(TokenLimits)})


def _shapes(setup: Setup) -> dict[str, Any]:
    batch = {name: np.zeros((setup.batch * setup.task.choices, 8), np.int32) for name in _MODEL_INPUTS}
    return jax.eval_shape(lambda: setup.model.init(jax.random.key(0), batch)["params"])
