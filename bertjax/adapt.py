"""Adapts a pre-trained model to a domain and exports it for transformers.

python -m bertjax.adapt --from=DIR --source=text:DIR --workdir=DIR [--add_words=1000 | --tokenizer=new:wordpiece:30522]
    [--general=text:DIR] [--steps=2000] [--length=128] [--batch=32] [--learning_rate=5e-5]

Continues the pre-training of the model --from on the text of --source. The vocabulary is that of the model, extended by
--add_words or replaced by --tokenizer; the embedding of a new token starts as the mean over the old tokens of its text.
The report compares the losses on held-out text of the domain and of --general before and after.

The workdir holds corpus/, start/ (the initial model with its final vocabulary), run/ (the training), report.json, and
exported/ for transformers. The same command continues a stopped adaptation.
"""

import dataclasses
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from absl import flags

from bertjax import cli
from bertjax.errors import UserError

if TYPE_CHECKING:
    from bertjax.checkpoints.pretrained import Pretrained
    from bertjax.config.pretraining import Config

_LOG = logging.getLogger(__name__)

_FROM = flags.DEFINE_string(
    "from", None, "Workdir, checkpoint, or model folder of another framework (docs/reference/model-folders.md)."
)
_SOURCE = flags.DEFINE_multi_string("source", [], "Text of the domain: KIND:LOCATION[@WEIGHT], as for bertjax.prepare.")
_GENERAL = flags.DEFINE_multi_string(
    "general", [], "General text on which the report measures forgetting, as for --source."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the adaptation, created if missing.")
_ADD_WORDS = flags.DEFINE_integer(
    "add_words", 0, "Number of words of the domain to add to the vocabulary (WordPiece only).", lower_bound=0
)
_TOKENIZER = flags.DEFINE_string("tokenizer", None, "New vocabulary: a tokenizer folder, or new:KIND:SIZE.")
_HELDOUT = flags.DEFINE_float("heldout", 0.02, "Fraction of the domain's documents held out for evaluation.", 0.0, 0.5)
_STEPS = flags.DEFINE_integer("steps", 2000, "Training steps.", lower_bound=1)
_LENGTH = flags.DEFINE_integer("length", 128, "Tokens per sequence.", lower_bound=8)
_BATCH = flags.DEFINE_integer("batch", 32, "Sequences per step.", lower_bound=1)
_RATE = flags.DEFINE_float(
    "learning_rate",
    5e-5,
    "Peak learning rate, after a warm-up of a tenth of the steps. 5e-5 suits BERT-Base; small models take up to 5e-4.",
    lower_bound=0.0,
)
_SEED = flags.DEFINE_integer("seed", 0, "Random seed of the training.", lower_bound=0)


@dataclasses.dataclass(frozen=True)
class _Start:
    """The content of from.json."""

    parameters: str  # fingerprint of the model
    warmup_steps: int


Report: TypeAlias = dict[str, dict[str, dict[str, float]]]  # before or after → corpus → scores


def main(args: list[str]) -> None:
    """Prepares the corpus, trains, reports and exports."""
    from bertjax.storage.files import local_path, write_text

    if args or not (_FROM.value and _SOURCE.value and _WORKDIR.value):
        required = {"--from": _FROM.value, "--source": _SOURCE.value, "--workdir": _WORKDIR.value}
        usage = "python -m bertjax.adapt --from=DIR --source=KIND:LOCATION --workdir=DIR [--add_words=NUMBER]"
        raise cli.usage_error(args, required, usage)
    if _ADD_WORDS.value and _TOKENIZER.value:
        raise UserError("--add_words extends the vocabulary, but --tokenizer replaces it; give only one of them")
    workdir = local_path(_WORKDIR.value, "--workdir").absolute()

    from bertjax.checkpoints import pretrained
    from bertjax.interop import huggingface
    from bertjax.interop.loading import load_model
    from bertjax.pretraining import run
    from bertjax.pretraining.evaluation import describe_scores

    # -- the corpora, and the initial model with the vocabulary of the corpus
    model = load_model(_FROM.value)
    pretrained.check_pretraining(model)
    warmup = _check_same_model(model, workdir)
    model.tokenizer.save(workdir / "tokenizer")
    corpora = _prepare(workdir)
    if not (workdir / "start").is_dir():
        _write_folder(workdir / "start", lambda folder: pretrained.save(folder, _initial_model(model, workdir)))
    start = load_model(workdir / "start")
    # A random masked-LM head, of a model that is only an encoder, has no scores.
    scored = {} if start.lacks_masked_lm_head else corpora
    report: Report = {"before": {name: _score(start, corpus) for name, corpus in scored.items()}}
    for name, scores in report["before"].items():
        _LOG.info(f"before, {name}: {describe_scores(scores)}")

    # -- the training, and the adapted model
    run.train(_training_config(start, workdir, warmup), workdir / "run")
    adapted = load_model(workdir / "run")
    if adapted.step < _STEPS.value:  # stopped by a signal
        return
    report["after"] = {name: _score(adapted, corpus) for name, corpus in corpora.items()}
    write_text(workdir / "report.json", json.dumps(report, indent=2) + "\n")
    _write_folder(workdir / "exported", lambda folder: huggingface.export_model(adapted, folder))
    print(_format_table(report))
    _LOG.info(f"wrote {workdir}/report.json and {workdir}/exported, a model for transformers")
    _LOG.info(f'next: python -m bertjax.predict fill-mask --checkpoint={workdir}/exported "A sentence with a mask."')


def _check_same_model(model: "Pretrained", workdir: Path) -> int:
    """Refuses a workdir in which another model was adapted; records the model and the warm-up in a new one.

    Returns the number of warm-up steps, which stays the same if the adaptation continues with other `--steps`.
    """
    from bertjax import decoding
    from bertjax.pretraining import distillation
    from bertjax.storage.files import write_text

    path, parameters, warmup = workdir / "from.json", distillation.fingerprint(model), _STEPS.value // 10
    if not path.is_file():
        workdir.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(decoding.sealed({"parameters": parameters, "warmup_steps": warmup})) + "\n")
        return warmup
    start = decoding.read_sealed(path, _Start, "use a new --workdir")
    if start.parameters != parameters:
        raise UserError(f"{workdir}: contains the adaptation of a model other than {_FROM.value}; use a new --workdir")
    return start.warmup_steps


def _write_folder(folder: Path, write: Callable[[Path], object]) -> None:
    """Replaces a folder with the output of `write`; the new folder appears only when it is complete."""
    temporary = folder.with_name(f".{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)  # left by a killed process
    write(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def _prepare(workdir: Path) -> dict[str, Path]:
    """Builds the corpora of the domain and of general text; returns their folders by name."""
    original = str(workdir / "tokenizer")
    tokenizer = _TOKENIZER.value or (f"extend:{_ADD_WORDS.value}:{original}" if _ADD_WORDS.value else original)
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

    options = build.BuildOptions(tokenizer, heldout)
    with BuildProgress(cli.show_progress()) as progress:
        summary = build.build_corpus(
            output, sources.parse_sources(specs), options, processes=cli.cores(), progress=progress
        )
    _LOG.info(f"wrote {output}: {summary.total.documents:,} documents, {summary.total.tokens:,} tokens")
    log_counts(_LOG, str(output), TextCounts(summary.total.tokens, summary.total.unknown))


def _initial_model(model: "Pretrained", workdir: Path) -> "Pretrained":
    """Returns the model with the vocabulary of the corpus."""
    from bertjax.checkpoints import embedding_transfer
    from bertjax.text.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(workdir / "corpus/tokenizer")
    model = dataclasses.replace(model, config=dataclasses.replace(model.config, corpus=""), step=0)
    if tokenizer.hash() == model.tokenizer.hash():
        return model
    return embedding_transfer.transfer_embeddings(model, tokenizer)


def _training_config(start: "Pretrained", workdir: Path, warmup: int) -> "Config":
    """Returns the config of the training: that of the model, with a short warm-up and the flags."""
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
        mesh=MeshConfig(),  # the model may have been trained on other devices
        layout=LayoutConfig(),
        profile_steps=(),
        optimizer=OptimizerConfig(learning_rate=_RATE.value, warmup_steps=warmup, beta2=0.98, bias_correction=True),
        eval_every=max(1, _STEPS.value // 10),
        checkpoint_every=max(1, _STEPS.value // 10),
    )
    return from_config_dict(to_dict(config))


def _score(model: "Pretrained", corpus: Path) -> dict[str, float]:
    """Returns the scores on held-out text, always with the same masks."""
    from bertjax.pretraining import evaluation

    return evaluation.score(model, corpus, _LENGTH.value, _BATCH.value)


def _format_table(report: Report) -> str:
    lines = ["held-out masked-LM loss, nats per masked token", f"{'':10}{'before':>10}{'after':>10}{'change':>10}"]
    for name, scores in report["after"].items():
        after = scores["eval/mlm_loss"]
        if name in report["before"]:
            before = report["before"][name]["eval/mlm_loss"]
            lines.append(f"{name:10}{before:10.3f}{after:10.3f}{after - before:+10.3f}")
        else:
            lines.append(f"{name:10}{'–':>10}{after:10.3f}{'–':>10}")
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main, keep_freed_memory=True)
