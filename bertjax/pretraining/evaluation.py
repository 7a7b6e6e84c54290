"""Held-out evaluation of pre-trained models."""

import dataclasses
import functools
import logging
import math
from pathlib import Path

import jax
from jax.sharding import Mesh

from bertjax.arrays.types import Params
from bertjax.checkpoints import pretrained
from bertjax.config.layout import LayoutConfig, MeshConfig
from bertjax.config.model import ModelConfig
from bertjax.config.pretraining import Config, Phase
from bertjax.corpus import staging
from bertjax.corpus.format import Corpus
from bertjax.data import heldout
from bertjax.data.pipeline import row_format
from bertjax.data.stream import check_documents
from bertjax.data.token_info import Vocabulary
from bertjax.errors import UserError
from bertjax.model.partitioning import state_shardings
from bertjax.parallel import sharding
from bertjax.parallel.mesh import local_rows, make_mesh
from bertjax.pretraining import build
from bertjax.trainer.step import EvalStep, evaluate, make_eval_step

_LOG = logging.getLogger(__name__)

_BUILT_IN_LOSSES = ("eval/mlm_loss", "eval/nsp_loss", "eval/sop_loss")


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Scores parameters on the held-out split of a corpus, always on the same examples and masks."""

    config: Config
    mesh: Mesh
    vocabulary: Vocabulary
    train: Corpus
    split: Corpus  # the held-out split
    _eval_steps: dict[ModelConfig, EvalStep] = dataclasses.field(default_factory=dict)  # by model; phases may share it

    @functools.cached_property
    def entropy(self) -> float:
        """The loss of a unigram model, in nats per token."""
        return heldout.unigram_entropy(self.train, self.split)

    def _eval_step(self, phase: Phase) -> EvalStep:
        config = self.config.for_phase(phase)
        if config.model not in self._eval_steps:
            self._eval_steps[config.model] = make_eval_step(build.make_objective(config), self.mesh)
        return self._eval_steps[config.model]

    def scores(self, params: Params, phase: Phase) -> dict[str, float]:
        """Returns held-out metrics, computed with the sequence length and the microbatch size of a phase.

        `eval/mlm_loss` (nats per masked token), its perplexity, the accuracies, and `eval/unigram_entropy`.
        """
        rows = phase.batch // self.config.layout.accumulation
        batches = heldout.heldout_batches(
            self.split,
            self.vocabulary,
            row_format(self.config, phase),
            rows,
            limit=self.config.eval_sequences,
            rows=local_rows(self.mesh, rows),
        )
        means = evaluate(self._eval_step(phase), params, batches, self.mesh)
        if "mlm_loss" in means:  # an objective of a user may have other terms
            means["mlm_perplexity"] = math.exp(min(means["mlm_loss"], 700.0))
            means["unigram_entropy"] = self.entropy
        return {f"eval/{name}": value for name, value in means.items()}


def open_held_out(config: Config, mesh: Mesh, vocabulary: Vocabulary, train: Corpus) -> HeldOut:
    """Opens the held-out split of the corpus of the training split `train`.

    Raises:
      UserError: the split is damaged, or too small for the evaluations of `config`; raised before the first step.
    """
    split = Corpus.open(train.directory, split="heldout")
    check_documents(split, config.pairs)
    return HeldOut(config, mesh, vocabulary, train, split)


def score(model: pretrained.Pretrained, directory: str | Path, length: int, batch: int) -> dict[str, float]:
    """Returns held-out metrics of a pre-trained model on a corpus, in rows of `length` tokens, `batch` per step.

    Raises:
      UserError: the model is fine-tuned or has no masked-LM head, the corpus was prepared with another tokenizer, or
        the model does not support that length.
    """
    pretrained.check_masked_lm(model)
    if model.untrained_heads:
        heads = ", ".join(model.untrained_heads)
        _LOG.warning(f"{model.path}: its {heads} is random, because its source has none; ignore the scores of pairs")
    build.require_extensions(model.config, model.extensions, model.path)
    corpus = Corpus.open(staging.local_copy(str(directory)), split="train")
    build.check_tokenizer(corpus, model.tokenizer, model.path, "prepare a corpus with the model's tokenizer")
    config = dataclasses.replace(model.config, mesh=MeshConfig(), layout=LayoutConfig())
    if length > config.model.max_position_embeddings:
        raise UserError(
            f"the length is {length}, but {model.path} supports at most {config.model.max_position_embeddings} tokens; "
            "choose a smaller length"
        )
    mesh = make_mesh(config.mesh)
    sharding.check_divides("batch", batch, mesh, "the batch")
    held_out = open_held_out(config, mesh, Vocabulary.of(model.tokenizer), corpus)
    params = jax.device_put(model.params, state_shardings(model.params, mesh))
    return held_out.scores(params, Phase(1, length, batch))


def describe_scores(scores: dict[str, float]) -> str:
    """Returns a line with the loss, the unigram baseline and the accuracies; of other objectives, all scores."""
    if "eval/mlm_loss" not in scores:
        return "held-out " + ", ".join(f"{name.removeprefix('eval/')} {value:.3f}" for name, value in scores.items())
    text = (
        f"held-out masked-LM loss {scores['eval/mlm_loss']:.3f} (perplexity {scores['eval/mlm_perplexity']:.1f}, "
        f"unigram baseline {scores['eval/unigram_entropy']:.3f}), accuracy {scores['eval/mlm_accuracy']:.1%}"
    )
    for name, task in (("nsp", "next sentence"), ("sop", "sentence order")):
        if f"eval/{name}_accuracy" in scores:
            text += f", {task} {scores[f'eval/{name}_accuracy']:.1%}"
    own = [name for name in scores if name.endswith("_loss") and name not in _BUILT_IN_LOSSES]
    return ", ".join([text, *(f"{name.removeprefix('eval/')} {scores[name]:.3f}" for name in own)])
