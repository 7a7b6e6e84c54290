"""A fine-tuning from beginning to end: its workdir, the runs that are still to do, and what they leave.

A workdir holds config.json, data.json (digests of examples and models), runs.jsonl with the scores of every finished
run, the best run's checkpoint, and in the end results.json, predictions/, pictures, and for GLUE submission/.
"""

import contextlib
import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from bertjax import decoding
from bertjax.arrays.trees import size_of
from bertjax.checkpoints import pretrained
from bertjax.checkpoints.pretrained import Pretrained
from bertjax.config.finetuning import FinetuneConfig, Run
from bertjax.config.parse import build, to_dict
from bertjax.config.pretraining import Config, Phase
from bertjax.config.resume import resume_conflict
from bertjax.decoding import Count, DecodingError, Finite
from bertjax.errors import UserError
from bertjax.finetuning import dataset, distillation, evaluation, features, report
from bertjax.finetuning.sweep import Result, Sweep
from bertjax.finetuning.task_model import ENCODER, RANDOM, Split, TaskModel, open_task_model
from bertjax.interop.loading import load_model
from bertjax.storage.files import check_room, claimed, write_text, writing
from bertjax.tasks import glue, submission
from bertjax.tasks.encoding import check_lengths
from bertjax.tasks.kinds.base import Prediction
from bertjax.tasks.line_formats import MissingFileError
from bertjax.tasks.metadata import SentenceMetadata, TaskMetadata
from bertjax.tasks.registry import open_task
from bertjax.tasks.table import COLUMNS
from bertjax.tasks.task_examples import TaskExamples
from bertjax.text.text_counts import log_counts
from bertjax.trainer import metrics
from bertjax.trainer.loop import StopSignal

_LOG = logging.getLogger(__name__)

_CURE = "put it back as it was, or use a new --workdir"


@dataclasses.dataclass(frozen=True)
class _Record:
    """What runs.jsonl says of a finished run."""

    learning_rate: Finite
    epochs: Count
    seed: Count
    scores: Mapping[str, Mapping[str, Finite]]  # split → score
    epoch: Count
    steps: Count
    seconds: Finite
    examples_per_second: Finite


def finetune(config: FinetuneConfig, workdir: Path, show_progress: bool = False) -> dict[str, Any] | None:
    """Runs the sweep and returns what results.json holds; None where a signal stopped it.

    `show_progress` draws a progress bar instead of logging lines.

    Raises:
      UserError: bad data, a workdir of another sweep, or a loss that is not finite.
    """
    with claimed(workdir, "another process trains here", "--workdir"), writing(workdir):
        return _finetune(config, workdir, show_progress)


def _finetune(config: FinetuneConfig, workdir: Path, show_progress: bool) -> dict[str, Any] | None:
    # -- task, data, model
    _check_same_sweep(config, workdir)
    task_model, source, params = open_task_model(config)
    check_room(workdir, "--workdir", size_of(source.params), "the best run's checkpoint")
    _check_splits(task_model.task)
    train = task_model.split("train", config.train_examples)
    dev = [task_model.split(name) for name in task_model.task.dev]
    _LOG.info(
        f"{task_model.task.name}: {len(train.examples):,} examples to learn from, {dataset.describe(train.batches)}"
    )
    _log_counts(task_model, train, dev)
    _check_different(dev)
    used = {split.name: split.batches.digest() for split in (train, *dev)}
    used["init_from"] = RANDOM * config.init_from.startswith(RANDOM) + source.fingerprint()
    taught = None
    if config.distillation.teacher:
        *taught, used["teacher"] = distillation.reader(task_model)
    _check_same_data(used, workdir)
    if config.features:  # of the encoder the runs see no more than these
        train, *dev = features.computed(task_model, params, [train, *dev], config.features_memory)
        params = {}
    sweep = Sweep(task_model, params, train, dev, teacher=taught)
    _write(workdir / "config.json", decoding.sealed(to_dict(config)))
    _write(workdir / "data.json", decoding.sealed(used))

    # -- the runs that are still to do
    done, predictions = _read_records(workdir, [split.name for split in dev], task_model.task.metric), {}
    todo = [run for run in config.runs() if run.name not in done]
    with StopSignal() as stop:
        last = len(done) + len(todo)
        for number, run in enumerate(todo, start=len(done) + 1):
            _LOG.info(f"run {number} of {last}: {run.name}")
            result = _run(sweep, run, stop, workdir, show_progress)
            if result is None:
                _LOG.info(f"stopped; {len(done)} runs are finished, the same command goes on with {run.name}")
                return None
            record = _record(run, result)
            if all(sweep.chosen(result.scores) > sweep.chosen(other["scores"]) for other in done.values()):
                _keep(task_model, source, result, record | {"number": number}, workdir)
                predictions = result.predictions
            done[run.name] = record
            lines = (json.dumps(decoding.sealed(record)) + "\n" for record in done.values())
            write_text(workdir / "runs.jsonl", "".join(lines))
            _LOG.info(f"{run.name}: {_describe(record)}")
    return _report(task_model, dev, list(done.values()), predictions, workdir)


def _run(sweep: Sweep, run: Run, stop: StopSignal, workdir: Path, show_progress: bool) -> Result | None:
    folder = workdir / "runs" / run.name
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(metrics.MetricsWriter(folder, 0)) as writer:
        try:
            return sweep.train(run, stop, writer.write, show_progress)
        except UserError as error:
            raise UserError(f"{run.name}: {error}") from error


def _record(run: Run, result: Result) -> dict[str, Any]:
    return dataclasses.asdict(run) | {
        "scores": result.scores,
        "epoch": result.epoch,
        "steps": result.steps,
        "seconds": round(result.seconds, 3),
        "examples_per_second": round(result.examples_per_second, 2),
    }


def _describe(record: dict[str, Any]) -> str:
    scores = [
        f"{split} {name} {value:.2f}" for split, found in record["scores"].items() for name, value in found.items()
    ]
    return f"{', '.join(scores)}; {record['examples_per_second']:,.0f} examples/s"


def _keep(task_model: TaskModel, source: Pretrained, result: Result, record: dict[str, Any], workdir: Path) -> None:
    """Writes the best run so far as the workdir's only checkpoint."""
    config, examples, sentence = task_model.config, task_model.task, task_model.config.sentence
    vectors = SentenceMetadata(sentence.pooling, sentence.normalize, sentence.lowest, sentence.highest)
    task = TaskMetadata(
        name=examples.name,
        kind=examples.kind.name,
        labels=examples.labels,
        limits=task_model.limits,
        columns={name: getattr(config.table, name) for name in COLUMNS} if examples.name.startswith("table/") else {},
        threshold=result.scores[examples.dev[0]].get("best_f1_thresh"),
        features=config.features,
        sentence=vectors if examples.kind.bi_encoder else None,
        run=json.loads(json.dumps(record)),
    )
    shape = Config(model=task_model.model.config, next_sentence=False, phases=(Phase(1, config.length, config.batch),))
    frozen = {name: source.params[name] for name in ENCODER if name not in result.params}
    model = dataclasses.replace(
        source,
        config=shape,
        params=frozen | jax.device_get(result.params),
        step=record["number"],
        task=task,
        sentence=task.sentence,  # not how the model that it started from made its vectors
    )
    pretrained.overwrite(workdir, model)


def _name(record: dict[str, Any]) -> str:
    return Run(record["learning_rate"], record["epochs"], record["seed"]).name


def _check_splits(task: TaskExamples) -> None:
    """Refuses a task without data to choose by, and test files that cannot be read, before anything is trained."""
    if not task.dev or task.dev[0] == "test":
        raise UserError(f"{task.name}: there is no dev data to choose the best run by; give table.dev")
    for name in task.test:
        with contextlib.suppress(MissingFileError):
            check_lengths(task.read(name))


def _log_counts(task_model: TaskModel, train: Split, dev: Sequence[Split]) -> None:
    """Logs how much of the examples the model can read."""
    limit = task_model.task.kind.length_limit
    now, longest = getattr(task_model.limits, limit), task_model.model.config.max_position_embeddings
    remedy = f"raise config.{limit} ({now}; the model reads up to {longest} tokens), or shorten the texts"
    log_counts(_LOG, "train", task_model.counts([train]), remedy)
    log_counts(_LOG, "dev", task_model.counts(dev), remedy)


def _check_different(splits: Sequence[Split]) -> None:
    """Refuses numbers to predict of which none differs from the others: no score says anything of them."""
    for split in splits:
        labels = [getattr(example, "label", None) for example in split.examples]
        if isinstance(labels[0], float) and len(set(labels)) == 1:
            where = split.examples[0].where
            raise UserError(f"{where}: all labels of {split.name} are {labels[0]:g}; correlations need different ones")


def _check_same_sweep(config: FinetuneConfig, workdir: Path) -> None:
    """Refuses a workdir of a sweep whose runs would not be comparable with those to come."""
    path = workdir / "config.json"
    if not path.is_file():
        if (workdir / "checkpoints").is_dir():  # which the best run's checkpoint would replace
            raise UserError(f"{workdir} holds a model that no sweep made; give a new --workdir")
        return
    try:
        values = decoding.read(path, dict[str, Any], _CURE)
        # First whether it is a sweep's at all: the config.json of a pre-training run has no seal.
        before = build(FinetuneConfig, decoding.without_seal(values), "config")
        decoding.unsealed(values, path, _CURE)
    except UserError as error:
        raise UserError(f"{path} cannot be read as a sweep's ({error}); use a new --workdir") from error
    conflict = resume_conflict(before, config)
    if conflict:
        raise UserError(
            f"{workdir} holds a sweep with another config.{conflict}; give that value again, or a new --workdir"
        )


def _check_same_data(now: dict[str, str], workdir: Path) -> None:
    """Refuses a workdir whose runs had other examples or models; what lies under a path may change."""
    path = workdir / "data.json"
    if path.is_file() and (before := decoding.read_sealed(path, dict[str, str], _CURE)) != now:
        changed = ", ".join(name for name in sorted(before | now) if before.get(name) != now.get(name))
        raise UserError(
            f"the runs in {workdir} had others ({changed}); give a new --workdir, or the files as they were"
        )


def _write(path: Path, values: dict[str, Any]) -> None:
    write_text(path, json.dumps(values, indent=2) + "\n")


def _read_records(workdir: Path, splits: Sequence[str], metric: str) -> dict[str, dict[str, Any]]:
    """The finished runs, by name, which all have the same scores of these splits, this one among them.

    Raises:
      UserError: a line is not as it was written, or is of another sweep.
    """
    path = workdir / "runs.jsonl"
    if not path.is_file():
        return {}
    records = {}
    for number, line in enumerate(decoding.read_bytes(path, _CURE).removesuffix(b"\n").split(b"\n"), 1):
        where, cure = f"{path}, line {number}", "delete the line, and its run is made again"
        values = decoding.unsealed(decoding.parse(line, where, cure), where, cure)
        record = dataclasses.asdict(decoding.convert(values, _Record, where, cure))
        names = [record["scores"].get(split, {}).keys() for split in splits]
        first = next(iter(records.values()), record)["scores"]
        if any(metric not in found or found != first[split].keys() for split, found in zip(splits, names, strict=True)):
            raise DecodingError("scores: not those of this sweep", where, cure)
        if _name(record) in records:
            raise DecodingError("a run that is there already", where, cure)
        records[_name(record)] = record
    return records


def _report(
    task_model: TaskModel,
    dev: list[Split],
    records: list[dict[str, Any]],
    predictions: Mapping[str, Sequence[Prediction]],
    workdir: Path,
) -> dict[str, Any]:
    """Writes results, predictions of the best run, pictures and files to submit; prints the table.

    `predictions` are the best run's of `dev`, empty where an earlier process trained it.
    """
    task = task_model.task
    best = max(records, key=lambda record: record["scores"][dev[0].name][task.metric])
    summary = {split.name: report.summary(task, split.name, records) for split in dev}
    results = {"task": task.name, "metric": task.metric, "best": best, "summary": summary, "runs": records}
    _write(workdir / "results.json", results)
    model = load_model(workdir)
    evaluation.predict_all(task_model, model.params, dev, workdir, predicted=predictions)
    for split in dev:
        print(report.table(task, split.name, summary[split.name]))
    _LOG.info(f"best: {_name(best)}: {_describe(best)}")
    _LOG.info(f"wrote {workdir}/results.json, predictions/ and checkpoints/")
    _LOG.info(f"next: python -m bertjax.predict {task.kind.predict_mode} --checkpoint={workdir} …")
    return results


def finetune_all(config: FinetuneConfig, workdir: Path, show_progress: bool = False) -> None:
    """Every task of GLUE, each in a folder of its own, and the leaderboard's row."""
    columns: dict[str, float] = {}
    names = [name for name in glue.TASKS if name != "ax"]
    for name in names:  # what is missing is said before hours are spent
        task = open_task(f"glue/{name}", config.data_dir)
        _check_splits(task)
        for split in ("train", *task.dev):
            check_lengths(task.read(split))
    for name in names:
        folder = workdir / name
        results = finetune(dataclasses.replace(config, task=f"glue/{name}"), folder, show_progress)
        if results is None:
            return
        for split, scores in results["best"]["scores"].items():
            columns[glue.COLUMNS[f"glue/{name}", split.replace("dev", "test")]] = scores[results["metric"]]
    with writing(workdir):
        evaluation.predict_diagnostics(workdir / "mnli", config, workdir / "ax")
        evaluation.gather_submissions(workdir)
        path, missing = submission.archive(workdir / "submission")
        _write(workdir / "results.json", {"scores": columns, "averages": glue.averages(columns)})
    print(report.leaderboard(columns))
    _LOG.info(f"wrote {path}" + (f", in which {', '.join(missing)} are missing" if missing else ""))
