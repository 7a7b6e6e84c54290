"""How good a pre-trained model is on text that it has not been trained on."""

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

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
from bertjax.trainer.step import evaluate, make_eval_step


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Scores parameters on a corpus's held-out split, always on the same examples and masks."""

    config: Config
    mesh: Mesh
    vocabulary: Vocabulary
    train: Corpus
    split: Corpus  # the held-out one
    _eval_steps: dict[ModelConfig, Any] = dataclasses.field(default_factory=dict)  # of each model that a phase trains

    @functools.cached_property
    def entropy(self) -> float:
        """What word counts alone reach, in nats a token."""
        return heldout.unigram_entropy(self.train, self.split)

    def _eval_step(self, phase: Phase) -> Any:
        config = self.config.in_phase(phase)
        if config.model not in self._eval_steps:
            self._eval_steps[config.model] = make_eval_step(build.make_objective(config), self.mesh)
        return self._eval_steps[config.model]

    def scores(self, params: Any, phase: Phase) -> dict[str, float]:
        """As a phase trains, in its sequences, and in batches of as many rows as it computes at once.

        `eval/mlm_loss` (nats a masked token), its perplexity, the accuracies, and `eval/unigram_entropy`.
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
        means["mlm_perplexity"] = math.exp(min(means["mlm_loss"], 700.0))
        means["unigram_entropy"] = self.entropy
        return {f"eval/{name}": value for name, value in means.items()}


def open_held_out(config: Config, mesh: Mesh, vocabulary: Vocabulary, train: Corpus) -> HeldOut:
    """The held-out split that belongs to the training split `train`.

    Raises:
      UserError: it is damaged, or too small for what `config` evaluates; better now than at the first evaluation.
    """
    split = Corpus.open(train.directory, split="heldout")
    check_documents(split, config.pairs)
    return HeldOut(config, mesh, vocabulary, train, split)


def score(model: pretrained.Pretrained, directory: str | Path, length: int, batch: int) -> dict[str, float]:
    """Held-out scores of a pre-trained model on a corpus, in sequences of `length` tokens, `batch` a step.

    Raises:
      UserError: the corpus was made with another tokenizer, or the model cannot read such sequences.
    """
    corpus = Corpus.open(staging.local(str(directory)), split="train")
    build.check_tokenizer(corpus, model.tokenizer, model.path, "prepare one with the model's")
    config = dataclasses.replace(model.config, mesh=MeshConfig(), layout=LayoutConfig())
    if length > config.model.max_position_embeddings:
        raise UserError(
            f"the length is {length}; the model reads at most {config.model.max_position_embeddings} tokens"
        )
    mesh = make_mesh(config.mesh)
    sharding.check_divides("batch", batch, mesh, "the batch")
    held_out = open_held_out(config, mesh, Vocabulary.of(model.tokenizer), corpus)
    params = jax.device_put(model.params, state_shardings(model.params, mesh))
    return held_out.scores(params, Phase(1, length, batch))


def describe_scores(scores: dict[str, float]) -> str:
    """One line: how good the model is, and against what."""
    text = (
        f"held-out masked-LM loss {scores['eval/mlm_loss']:.3f} (perplexity {scores['eval/mlm_perplexity']:.1f}, "
        f"word counts alone {scores['eval/unigram_entropy']:.3f}), accuracy {scores['eval/mlm_accuracy']:.1%}"
    )
    for name, task in (("nsp", "next sentence"), ("sop", "sentence order")):
        if f"eval/{name}_accuracy" in scores:
            text += f", {task} {scores[f'eval/{name}_accuracy']:.1%}"
    return text
