"""A pre-training run put together: its objective, optimizer, batches and state, from a config and a corpus."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from bertjax.arrays.trees import named_leaves
from bertjax.checkpoints import store
from bertjax.checkpoints.meta import CheckpointMeta
from bertjax.config.model import ModelConfig
from bertjax.config.pretraining import Config, Phase
from bertjax.config.resume import resume_conflict
from bertjax.corpus.format import Corpus
from bertjax.data.batch import BatchShape
from bertjax.errors import UserError
from bertjax.model import fused_attention
from bertjax.model.computation import computation_of
from bertjax.model.flops import training_flops
from bertjax.model.pretraining import PretrainingModel
from bertjax.objectives import pretraining as losses
from bertjax.optimizers.adamw import adamw
from bertjax.optimizers.lamb import lamb
from bertjax.optimizers.muon import muon
from bertjax.optimizers.schedules import learning_rate
from bertjax.optimizers.stable_adamw import stable_adamw
from bertjax.parallel import sharding
from bertjax.parallel.mesh import compute_dtype, put
from bertjax.pretraining import distillation
from bertjax.text.tokenizer import Tokenizer
from bertjax.trainer.step import Objective, TrainState

_LOG = logging.getLogger(__name__)


def make_objective(config: Config, platform: str = "") -> Objective:
    """The model of `config` with the pre-training objective, for a platform as `Computation` names it."""
    model = PretrainingModel(config.model, config.pairs, computation_of(config.layout, config.dtype, platform))
    if config.distillation.teacher:
        return distillation.objective(config, model)
    return Objective(model, losses.terms, losses.weights)


def check_mesh(config: Config, mesh: Mesh) -> None:
    """Refuses a mesh whose axes do not divide the model's and the batches'.

    Raises:
      UserError: names the setting and the mesh axis.
    """
    sharding.check_model(config.model, mesh)
    for index, phase in enumerate(config.phases):
        where = f"config.phases[{index}]"
        sharding.check_divides("batch", phase.batch, mesh, f"{where}.batch", config.layout.accumulation)
        sharding.check_divides("length", phase.length, mesh, f"{where}.length")


def attention_impl(config: Config, phase: Phase, mesh: Mesh, platform: str = "") -> str:
    """What computes attention in a phase's train step: "xla" (the plain path), "cudnn" or "splash".

    Two of them, as in "cudnn and xla", where layers with windows take another one than those without. `platform`: as
    `fused_attention.platform` names it; "": that of the mesh's devices.

    Raises:
      UserError: config.layout.attention_impl asks for one that cannot.
    """
    platform = platform or fused_attention.platform(mesh.devices.flat[0])
    request = fused_attention.Request(
        platform=platform,
        dtype=compute_dtype(config.dtype, platform),
        length=phase.length,
        head_size=config.model.head_size,
        dropout=config.model.attention_probs_dropout_prob > 0,
        split=mesh.shape["sequence"] > 1,
    )
    model = config.model
    windows = {model.attention_window if model.is_local(layer) else 0 for layer in range(model.num_hidden_layers)}
    asked = [dataclasses.replace(request, window=window) for window in windows]
    return " and ".join(sorted({fused_attention.choose(config.layout.attention_impl, one) for one in asked}))


def make_optimizer(config: Config) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optimizer of a run and its learning rate as a function of the step."""
    schedule = learning_rate(config.optimizer, config.phases)
    make = {"adamw": adamw, "lamb": lamb, "stable_adamw": stable_adamw, "muon": muon}[config.optimizer.name]
    return make(config.optimizer, schedule), schedule


def with_vocabulary(config: Config, tokenizer: Tokenizer, where: Path) -> Config:
    """`config` with the vocabulary size settled: 0 becomes the tokenizer's.

    Raises:
      UserError: the model's vocabulary is too small for the tokenizer at `where`.
    """
    size = config.model.vocab_size or tokenizer.vocab_size
    if size < tokenizer.vocab_size:
        raise UserError(
            f"config.model.vocab_size is {size}, but the tokenizer of {where} has {tokenizer.vocab_size} entries; "
            "set it to that, or to 0 to take the tokenizer's"
        )
    return dataclasses.replace(config, model=dataclasses.replace(config.model, vocab_size=size))


def check_tokenizer(corpus: Corpus, tokenizer: Tokenizer, where: Path, remedy: str) -> None:
    """Refuses a tokenizer under which the corpus's ids mean something else, even if it is of the same size.

    Raises:
      UserError: the corpus was made with another tokenizer than the one of `where`; ends with `remedy`.
    """
    if corpus.tokenizer_hash != tokenizer.hash():
        raise UserError(f"the corpus {corpus.directory} was made with another tokenizer than {where}; {remedy}")


def abstract_batch(config: Config, phase: Phase) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of the global batch of a phase."""
    predictions = config.masking.predictions(phase.length, config.packing)
    shape = BatchShape(phase.batch, phase.length, predictions, config.packing, config.pairs)
    return {array.name: jax.ShapeDtypeStruct(shape.shape(array), array.dtype) for array in shape.arrays()}


def step_flops(config: Config, phase: Phase) -> float:
    """The model's own FLOPs of a step of a phase, over all devices."""
    predictions = config.masking.predictions(phase.length, config.packing)
    return phase.batch * training_flops(config.model, phase.length, predictions, bool(config.pairs))


def restore_run(
    workdir: Path, corpus: Corpus, meta: CheckpointMeta, abstract: TrainState
) -> tuple[TrainState, CheckpointMeta] | None:
    """State and meta of the last readable checkpoint of the run in `workdir`; None where there is no checkpoint yet.

    `meta` is that of the checkpoints to come.

    Raises:
      UserError: the run was made with another corpus, tokenizer or teacher, or with settings of other mathematics.
    """
    directory = workdir / "checkpoints"
    if saved := store.latest_meta(directory):
        _refuse_other_run(workdir, corpus, saved, meta)
    restored = store.restore_latest(directory, abstract.params, abstract.optimizer)
    if restored is None:
        return None
    params, optimizer, saved = restored
    step = put(np.int32(saved.step), abstract.step.sharding)
    return TrainState(step=step, params=params, optimizer=optimizer), saved


def load_initial_params(config: Config, state: TrainState, tokenizer: Tokenizer) -> TrainState:
    """`state` with the parameters of `config.init_from`; the optimizer starts anew.

    Raises:
      UserError: that model is fine-tuned, has another tokenizer, or parameters of another shape.
    """
    source = distillation.open_source(config.init_from, config.init_from, config, tokenizer)
    found = {part: tree for part, tree in source.params.items() if part != "sentence_dense"}  # of vectors, not of text
    mine, theirs = _shapes(state.params), _shapes(found)
    for name in sorted(mine.keys() | theirs.keys()):
        if mine.get(name) != theirs.get(name):
            raise UserError(
                f"{config.init_from} does not fit config.model: {name} is {theirs.get(name, 'missing')} there and "
                f"{mine.get(name, 'missing')} here; set config.model as in that model"
            )
    params = jax.tree.map(lambda new, old: put(new, old.sharding), found, state.params)
    _LOG.info(f"starting from the parameters of {source.path}")
    return dataclasses.replace(state, params=params)


def _shapes(params: Any) -> dict[str, tuple[int, ...]]:
    return {name: x.shape for name, x in named_leaves(params).items()}


def _refuse_other_run(workdir: Path, corpus: Corpus, saved: CheckpointMeta, now: CheckpointMeta) -> None:
    if conflict := resume_conflict(saved.config, now.config, saved.step):
        problem = f"with another config.{conflict}; give that value again, or a new --workdir"
    elif saved.tokenizer.hash != now.tokenizer.hash:
        problem = f"with another tokenizer than {corpus.directory}; use a new --workdir"
    elif saved.teacher != now.teacher:
        teacher = now.config.distillation.teacher or "none"
        cure = "give that one again, or a new --workdir"
        problem = f"with another teacher than config.distillation.teacher ({teacher}); {cure}"
    elif saved.corpus != now.corpus:
        problem = f"on another corpus than {corpus.directory}; give that one, or a new --workdir"
    else:
        return
    raise UserError(f"{workdir} holds a run {problem}")


def count_parameters(config: ModelConfig, params: Any) -> int:
    """Numbers in a tree of parameters (arrays or their shapes), without the padding of the vocabulary."""
    padding = (config.padded_vocab_size - config.vocab_size) * (config.embedding_width + 1)
    return sum(x.size for x in jax.tree.leaves(params)) - padding
