"""Adapts a pre-trained model to a domain: from a folder of text and a model to an adapted Hugging Face model.

python -m bertjax.adapt --from=DIR --source=text:DIR --workdir=DIR [--words=1000 | --tokenizer=new:wordpiece:30522]
    [--general=text:DIR] [--steps=2000] [--length=128] [--batch=32] [--learning_rate=5e-5]

--from is any model that bertjax reads (docs/interop.md). It is trained further on the text of --source, with its own
vocabulary, with --words of the text added to it, or with a new one; pieces that are new start as the mean of those
that their text had before. The report says what held-out text of the domain and of --general cost before and after.

The workdir gets corpus/, start/ (the model before, with the vocabulary that it gets), run/ (the training), report.json
and exported/, which transformers loads. The same command goes on where it was stopped.
"""

import dataclasses
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from bertjax import cli
from bertjax.errors import UserError

_LOG = logging.getLogger(__name__)

if TYPE_CHECKING:
    from bertjax.checkpoints.pretrained import Pretrained
    from bertjax.config.pretraining import Config

_FROM = flags.DEFINE_string("from", None, "The model: a workdir, a checkpoint, or a folder of another framework.")
_SOURCE = flags.DEFINE_multi_string("source", [], "Text of the domain, as bertjax.prepare takes it; several times.")
_GENERAL = flags.DEFINE_multi_string("general", [], "Other text, to see what is forgotten.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The folder of it all.")
_WORDS = flags.DEFINE_integer("words", 0, "Words of the domain to add to the vocabulary (WordPiece).", lower_bound=0)
_TOKENIZER = flags.DEFINE_string("tokenizer", None, "Another vocabulary: a folder, or new:KIND:SIZE.")
_HELDOUT = flags.DEFINE_float("heldout", 0.02, "Share of the domain's documents to measure on.", 0.0, 0.5)
_STEPS = flags.DEFINE_integer("steps", 2000, "Of training.", lower_bound=1)
_LENGTH = flags.DEFINE_integer("length", 128, "Tokens a sequence.", lower_bound=8)
_BATCH = flags.DEFINE_integer("batch", 32, "Sequences a step.", lower_bound=1)
_RATE = flags.DEFINE_float("learning_rate", 5e-5, "The schedule's peak, after a tenth of the steps.", 0.0)
_SEED = flags.DEFINE_integer("seed", 0, "Of the training.", lower_bound=0)


def main(args: list[str]) -> None:
    """Prepares, trains further, reports and exports."""
    from bertjax.storage.files import local_path, write_text

    cli.keep_memory()
    if args or not (_FROM.value and _SOURCE.value and _WORKDIR.value):
        raise UserError("usage: python -m bertjax.adapt --from=DIR --source=SPEC --workdir=DIR [--words=N]")
    if _WORDS.value and _TOKENIZER.value:
        raise UserError("--words adds to the model's vocabulary and --tokenizer replaces it; give one of them")
    workdir = local_path(_WORKDIR.value, "--workdir").absolute()

    from bertjax.checkpoints import pretrained
    from bertjax.interop import huggingface
    from bertjax.interop.loading import load_model
    from bertjax.pretraining import run

    # -- text, and the model before, with the vocabulary that it gets
    model = load_model(_FROM.value)
    pretrained.check_pretraining(model)
    _claim(model, workdir)
    model.tokenizer.save(workdir / "tokenizer")
    corpora = _prepare(workdir)
    if not (workdir / "start").is_dir():
        _write_folder(workdir / "start", lambda folder: pretrained.save(folder, _start(model, workdir)))
    start = load_model(workdir / "start")
    report = {"before": {name: _score(start, corpus) for name, corpus in corpora.items()}}

    # -- training, and the model after
    run.train(_config(start, workdir), workdir / "run")
    after = load_model(workdir / "run")
    if after.step < _STEPS.value:
        return
    report["after"] = {name: _score(after, corpus) for name, corpus in corpora.items()}
    write_text(workdir / "report.json", json.dumps(report, indent=2) + "\n")
    _write_folder(workdir / "exported", lambda folder: huggingface.export_model(after, folder))
    print(_table(report))
    _LOG.info(f"wrote {workdir}/report.json and exported/, which transformers loads")
    _LOG.info(f'next: python -m bertjax.predict fill-mask --checkpoint={workdir}/exported "A sentence with a mask."')


def _claim(model: "Pretrained", workdir: Path) -> None:
    """Refuses a workdir in which another model was adapted."""
    from bertjax import decoding
    from bertjax.pretraining import distillation
    from bertjax.storage.files import write_text

    path, now = workdir / "from.json", {"parameters": distillation.fingerprint(model)}
    if not path.is_file():
        workdir.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(decoding.sealed(now)) + "\n")
    elif decoding.read_sealed(path, dict[str, str], "give a new --workdir") != now:
        raise UserError(f"{workdir} holds the adaptation of another model than {_FROM.value}; give a new --workdir")


def _write_folder(folder: Path, write: Callable[[Path], Any]) -> None:
    """Has `write` write a folder, in place of one of fewer steps; it appears only when it is whole."""
    made = folder.with_name(f".{folder.name}")
    shutil.rmtree(made, ignore_errors=True)  # what a killed process left
    write(made)
    shutil.rmtree(folder, ignore_errors=True)
    made.rename(folder)


def _prepare(workdir: Path) -> dict[str, Path]:
    """The corpora of the domain and, if asked for, of general text, by name."""
    own = str(workdir / "tokenizer")
    tokenizer = _TOKENIZER.value or (f"extend:{_WORDS.value}:{own}" if _WORDS.value else own)
    corpora = {"domain": workdir / "corpus"}
    _build(corpora["domain"], _SOURCE.value, tokenizer, _HELDOUT.value)
    if _GENERAL.value:
        corpora["general"] = workdir / "general"
        _build(corpora["general"], _GENERAL.value, str(corpora["domain"] / "tokenizer"), 0.5)
    return corpora


def _build(output: Path, specs: list[str], tokenizer: str, heldout: float) -> None:
    from bertjax.corpus import build
    from bertjax.corpus.progress import BuildProgress
    from bertjax.text import sources
    from bertjax.text.text_counts import TextCounts, log_counts

    options = build.Options(tokenizer, heldout)
    with BuildProgress(cli.show_progress()) as progress:
        summary = build.build(output, sources.parse(specs), options, processes=cli.cores(), progress=progress)
    _LOG.info(f"{output} holds {summary.total.documents:,} documents of {summary.total.tokens:,} tokens")
    log_counts(_LOG, str(output), TextCounts(summary.total.tokens, summary.total.unknown))


def _start(model: "Pretrained", workdir: Path) -> "Pretrained":
    """The model with the vocabulary of the corpus."""
    from bertjax.checkpoints import embedding_transfer
    from bertjax.text.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(workdir / "corpus/tokenizer")
    model = dataclasses.replace(model, config=dataclasses.replace(model.config, corpus=""), step=0)
    if tokenizer.hash() == model.tokenizer.hash():
        return model
    return embedding_transfer.change(model, tokenizer)


def _config(start: "Pretrained", workdir: Path) -> "Config":
    """The further training: the model's own task and rows, without BERT's long warm-up."""
    from bertjax.config.layout import LayoutConfig, MeshConfig
    from bertjax.config.optimizer import OptimizerConfig
    from bertjax.config.parse import from_config_dict, to_dict
    from bertjax.config.pretraining import DistillationConfig, Phase

    config = dataclasses.replace(
        start.config,
        corpus=str(workdir / "corpus"),
        seed=_SEED.value,
        init_from=str(workdir / "start"),
        phases=(Phase(_STEPS.value, _LENGTH.value, _BATCH.value),),
        distillation=DistillationConfig(),
        mesh=MeshConfig(),  # that of the model's own training may be another machine's
        layout=LayoutConfig(),
        profile_steps=(),
        optimizer=OptimizerConfig(
            learning_rate=_RATE.value, warmup_steps=_STEPS.value // 10, beta2=0.98, bias_correction=True
        ),
        eval_every=max(1, _STEPS.value // 10),
        checkpoint_every=max(1, _STEPS.value // 10),
    )
    return from_config_dict(to_dict(config))


def _score(model: "Pretrained", corpus: Path) -> dict[str, float]:
    """Held-out scores; always on the same masks."""
    from bertjax.pretraining import evaluation

    return evaluation.score(model, corpus, _LENGTH.value, _BATCH.value)


def _table(report: dict[str, Any]) -> str:
    lines = ["held-out masked-LM loss, nats a token", f"{'':10}{'before':>10}{'after':>10}{'change':>10}"]
    for name in report["before"]:
        before, after = (report[when][name]["eval/mlm_loss"] for when in ("before", "after"))
        lines.append(f"{name:10}{before:10.3f}{after:10.3f}{after - before:+10.3f}")
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main)
