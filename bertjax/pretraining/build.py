"""Builds the parts of a pre-training run from config and corpus: objective, optimizer, batches and state."""

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from bertjax.arrays.trees import named_leaves
from bertjax.arrays.types import Params
from bertjax.checkpoints import store
from bertjax.checkpoints.meta import CheckpointMeta
from bertjax.config.model import ModelConfig
from bertjax.config.pretraining import Config, Phase
from bertjax.config.resume import resume_conflict
from bertjax.corpus import staging
from bertjax.corpus.format import Corpus
from bertjax.data.batch import BatchShape
from bertjax.data.masking import UNITS
from bertjax.data.pipeline import BatchSource
from bertjax.data.token_info import Vocabulary
from bertjax.errors import UserError
from bertjax.model import fused_attention
from bertjax.model.computation import computation_of
from bertjax.model.flops import training_flops
from bertjax.model.pretraining import PretrainingModel
from bertjax.objectives import pretraining as losses
from bertjax.optimizers.registry import OPTIMIZERS
from bertjax.optimizers.schedules import learning_rate
from bertjax.parallel import sharding
from bertjax.parallel.mesh import compute_dtype, put_array
from bertjax.pretraining import distillation
from bertjax.pretraining.objectives import OBJECTIVES
from bertjax.text.tokenizer import Tokenizer
from bertjax.trainer.step import Objective, TrainState

_LOG = logging.getLogger(__name__)


def make_objective(config: Config, platform: str = "") -> Objective:
    """Returns the model of `config` with its pre-training objective; `platform` as in `Computation`."""
    model = PretrainingModel(config.model, config.pairs, computation_of(config.layout, config.dtype, platform))
    if config.distillation.teacher:
        base = distillation.objective(config, model)
    else:
        base = Objective(model, losses.terms, losses.weights)
    return OBJECTIVES.get(config.objective, "config.objective")(config, base)


def find_extensions(config: Config) -> dict[str, str]:
    """Returns the modules that registered the objective, the optimizer and the masking unit of a config.

    Raises:
      UserError: one of them is not registered.
    """
    OBJECTIVES.get(config.objective, "config.objective")
    OPTIMIZERS.get(config.optimizer.name, "config.optimizer.name")
    UNITS.get(config.masking.unit, "config.masking.unit")
    sources = {
        "objective": OBJECTIVES.source(config.objective),
        "optimizer": OPTIMIZERS.source(config.optimizer.name),
        "masking unit": UNITS.source(config.masking.unit),
    }
    return {noun: source for noun, source in sources.items() if source}


def require_extensions(config: Config, sources: Mapping[str, str], where: Path) -> None:
    """Checks that what the evaluation of a checkpoint needs is registered; `sources` as `find_extensions` returned.

    Raises:
      UserError: the objective or the masking unit is missing; the message names the module to import.
    """
    OBJECTIVES.require(config.objective, sources.get("objective", ""), str(where))
    UNITS.require(config.masking.unit, sources.get("masking unit", ""), str(where))


def check_mesh(config: Config, mesh: Mesh) -> None:
    """Checks that the mesh axes divide the axes of the model and of the batches.

    Raises:
      UserError: an axis is not divisible; names the setting and the mesh axis.
    """
    sharding.check_model(config.model, mesh)
    for index, phase in enumerate(config.phases):
        where = f"config.phases[{index}]"
        sharding.check_divides("batch", phase.batch, mesh, f"{where}.batch", config.layout.accumulation)
        sharding.check_divides("length", phase.length, mesh, f"{where}.length")


def attention_impl(config: Config, phase: Phase, mesh: Mesh, platform: str = "") -> str:
    """Returns the attention implementation of a phase's train step: "xla" (plain), "cudnn" or "splash".

    If layers with a window use another one than layers without, names both, as in "cudnn and xla". `platform` is one
    of `fused_attention.platform`; "": that of the mesh's devices.

    Raises:
      UserError: the implementation that config.layout.attention_impl requests does not support the phase.
    """
    platform = platform or fused_attention.platform(mesh.devices.flat[0])
    request = fused_attention.AttentionRequest(
        platform=platform,
        dtype=compute_dtype(config.dtype, platform),
        length=phase.length,
        head_size=config.model.head_size,
        dropout=config.model.attention_probs_dropout_prob > 0,
        split=mesh.shape["sequence"] > 1,
    )
    model = config.model
    windows = {model.attention_window if model.is_local(layer) else 0 for layer in range(model.num_hidden_layers)}
    requests = [dataclasses.replace(request, window=window) for window in windows]
    impls = {fused_attention.choose_impl(config.layout.attention_impl, request) for request in requests}
    return " and ".join(sorted(impls))


def make_optimizer(config: Config) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Returns the optimizer of a run and its learning-rate schedule."""
    schedule = learning_rate(config.optimizer, config.phases)
    optimizer = OPTIMIZERS.get(config.optimizer.name, "config.optimizer.name")
    return optimizer(config.optimizer, schedule), schedule


class TrainingData(NamedTuple):
    """The data of a run, with the config that fits it."""

    config: Config  # with the vocabulary size resolved
    corpus: Corpus
    tokenizer: Tokenizer
    vocabulary: Vocabulary
    source: BatchSource


def open_training_data(config: Config) -> TrainingData:
    """Opens the training split of the corpus of a run, with its tokenizer and its batches.

    Raises:
      UserError: config.corpus is not set, or the corpus is damaged or does not fit the config.
    """
    if not config.corpus:
        raise UserError(
            "config.corpus is not set; prepare a corpus with python -m bertjax.prepare and set "
            "config.corpus (--config.corpus=DIR)"
        )
    corpus = Corpus.open(staging.local_copy(config.corpus), split="train")
    tokenizer = corpus.load_tokenizer()
    config = resolve_vocab_size(config, tokenizer, corpus.directory)
    vocabulary = Vocabulary.of(tokenizer)
    return TrainingData(config, corpus, tokenizer, vocabulary, BatchSource(corpus, vocabulary, config))


def resolve_vocab_size(config: Config, tokenizer: Tokenizer, where: Path) -> Config:
    """Returns `config` with a vocabulary size of 0 replaced by the tokenizer's.

    Raises:
      UserError: the model's vocabulary is smaller than that of the tokenizer at `where`.
    """
    size = config.model.vocab_size or tokenizer.vocab_size
    if size < tokenizer.vocab_size:
        raise UserError(
            f"config.model.vocab_size is {size}, but the tokenizer of {where} has {tokenizer.vocab_size} entries; "
            "set it to that number, or to 0 to use the tokenizer's"
        )
    return dataclasses.replace(config, model=dataclasses.replace(config.model, vocab_size=size))


def check_tokenizer(corpus: Corpus, tokenizer: Tokenizer, where: Path, remedy: str) -> None:
    """Checks that the ids of the corpus are those of `tokenizer`; an equal vocabulary size is not enough.

    Raises:
      UserError: the corpus was prepared with another tokenizer than that of `where`; the message ends with `remedy`.
    """
    if corpus.tokenizer_hash != tokenizer.hash():
        raise UserError(f"{corpus.directory}: prepared with another tokenizer than that of {where}; {remedy}")


def abstract_batch(config: Config, phase: Phase) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns shapes and dtypes of the global batch of a phase."""
    predictions = config.masking.predictions(phase.length, config.packing)
    shape = BatchShape(phase.batch, phase.length, predictions, config.packing, config.pairs)
    return {array.name: jax.ShapeDtypeStruct(shape.shape(array), array.dtype) for array in shape.arrays()}


def step_flops(config: Config, phase: Phase) -> float:
    """Returns the model FLOPs of a step of a phase, over all devices and without recomputation."""
    predictions = config.masking.predictions(phase.length, config.packing)
    return phase.batch * training_flops(config.model, phase.length, predictions, bool(config.pairs))


def restore_run(
    workdir: Path, corpus: Corpus, meta: CheckpointMeta, abstract: TrainState
) -> tuple[TrainState, CheckpointMeta] | None:
    """Returns state and meta of the last readable checkpoint in `workdir`, or None if there is no checkpoint yet.

    `meta` is the meta of the checkpoints to be written.

    Raises:
      UserError: the run has another corpus, tokenizer or teacher, or settings that change its results.
    """
    directory = workdir / "checkpoints"
    if saved := store.latest_meta(directory):
        _check_same_run(workdir, corpus, saved, meta)
    restored = store.restore_latest(directory, abstract.params, abstract.optimizer)
    if restored is None:
        return None
    params, optimizer, saved = restored
    step = put_array(np.array(saved.step, np.int32), abstract.step.sharding)
    return TrainState(step=step, params=params, optimizer=optimizer), saved


def load_initial_params(config: Config, state: TrainState, tokenizer: Tokenizer) -> TrainState:
    """Returns `state` with the parameters of `config.init_from` and the optimizer state unchanged.

    Raises:
      UserError: the model is fine-tuned, or has another tokenizer or parameters of another shape.
    """
    source = distillation.load_source_model(config.init_from, config.init_from, config, tokenizer)
    loaded = {part: tree for part, tree in source.params.items() if part != "sentence_dense"}  # not for pre-training
    expected, actual = _shapes(state.params), _shapes(loaded)
    for name in sorted(expected.keys() | actual.keys()):
        if expected.get(name) != actual.get(name):
            raise UserError(
                f"{config.init_from}: {name} is {actual.get(name, 'missing')}, but {expected.get(name, 'missing')} by "
                "config.model; set config.model as in that model"
            )
    params = jax.tree.map(lambda array, target: put_array(array, target.sharding), loaded, state.params)
    _LOG.info(f"starting from the parameters of {source.path}")
    return dataclasses.replace(state, params=params)


def _shapes(params: Params) -> dict[str, tuple[int, ...]]:
    return {name: x.shape for name, x in named_leaves(params).items()}


def _check_same_run(workdir: Path, corpus: Corpus, saved: CheckpointMeta, meta: CheckpointMeta) -> None:
    if conflict := resume_conflict(saved.config, meta.config, saved.step):
        problem = f"config.{conflict}; set it back, or use a new workdir (--workdir)"
    elif saved.tokenizer.hash != meta.tokenizer.hash:
        problem = f"holds a run with another tokenizer than that of {corpus.directory}; use a new workdir (--workdir)"
    elif saved.teacher != meta.teacher:
        teacher = meta.config.distillation.teacher or "none"
        remedy = "restore the teacher, or use a new workdir (--workdir)"
        problem = f"holds a run with another teacher than config.distillation.teacher ({teacher}); {remedy}"
    elif saved.corpus != meta.corpus:
        remedy = "restore config.corpus, or use a new workdir (--workdir)"
        problem = f"holds a run on another corpus than {corpus.directory}; {remedy}"
    else:
        return
    raise UserError(f"{workdir}: {problem}")


def count_parameters(config: ModelConfig, params: Params) -> int:
    """Returns the number of parameters (arrays or their shapes), without the padding of the vocabulary."""
    padding = (config.padded_vocab_size - config.vocab_size) * (config.embedding_width + 1)
    return sum(x.size for x in jax.tree.leaves(params)) - padding
