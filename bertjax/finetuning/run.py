"""A fine-tuning sweep from data to report.

A workdir holds config.json, data.json (digests of the examples and models), runs.jsonl with the scores of every
finished run, and the checkpoint of the best run. At the end it also holds results.json, predictions/, confusion
matrices, and submission/ for GLUE.
"""

import contextlib
import dataclasses
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import jax

from bertjax import decoding
from bertjax.arrays.trees import tree_bytes
from bertjax.checkpoints import pretrained
from bertjax.checkpoints.pretrained import Pretrained
from bertjax.config.finetuning import FinetuneConfig, RunConfig
from bertjax.config.parse import build, to_dict
from bertjax.config.pretraining import Config, Phase
from bertjax.config.resume import resume_conflict
from bertjax.decoding import DecodingError
from bertjax.errors import UserError
from bertjax.finetuning import dataset, distillation, evaluation, features, report
from bertjax.finetuning.report import RunRecord, SweepResults
from bertjax.finetuning.sweep import RunResult, Sweep
from bertjax.finetuning.task_model import ENCODER_PARAMS, RANDOM_PREFIX, Split, TaskModel, open_task_model
from bertjax.interop.loading import load_model
from bertjax.storage.files import check_room, exclusive_lock, writable_folder, write_text
from bertjax.tasks import glue, submission
from bertjax.tasks.encoding import check_lengths
from bertjax.tasks.kinds.base import Prediction
from bertjax.tasks.kinds.catalog import KINDS
from bertjax.tasks.line_formats import MissingFileError
from bertjax.tasks.metadata import SentenceMetadata, TaskMetadata
from bertjax.tasks.registry import open_task
from bertjax.tasks.table import COLUMNS
from bertjax.tasks.task_examples import TaskExamples
from bertjax.text.text_counts import log_counts
from bertjax.trainer import metrics
from bertjax.trainer.loop import StopSignal

_LOG = logging.getLogger(__name__)

_REMEDY = "restore the file, or use a new workdir (--workdir)"


@dataclasses.dataclass(frozen=True)
class FinetuningEvent:
    """What a sweep reports while it trains: the metrics of a logged step, or dev scores."""

    run: str  # name of the run, e.g. rate-3e-05-epochs-3-seed-0
    step: int  # steps done
    metrics: Mapping[str, float]  # by name, e.g. train/loss or dev/accuracy


def finetune(
    config: FinetuneConfig,
    workdir: Path,
    show_progress: bool = False,
    callback: Callable[[FinetuningEvent], None] | None = None,
) -> SweepResults | None:
    """Runs a sweep, or the remaining runs of a stopped one.

    Args:
      config: the task, the model and the grid of runs.
      workdir: the folder of the sweep.
      show_progress: whether to draw a progress bar instead of logging lines.
      callback: receives every event.

    Returns:
      The content of results.json; None if a signal stopped the sweep.

    Raises:
      UserError: the data is invalid, the workdir belongs to another sweep, or a loss is not finite.
    """
    with exclusive_lock(workdir, "another run is active here", "workdir (--workdir)"), writable_folder(workdir):
        return _finetune(config, workdir, show_progress, callback)


def _finetune(
    config: FinetuneConfig,
    workdir: Path,
    show_progress: bool,
    callback: Callable[[FinetuningEvent], None] | None,
) -> SweepResults | None:
    _check_same_sweep(config, workdir)
    sweep, dev, task_model, source, digests = _open_sweep(config, workdir)
    _write(workdir / "config.json", decoding.sealed(to_dict(config)))
    _write(workdir / "data.json", decoding.sealed(digests))
    done, predictions = _read_records(workdir, [split.name for split in dev], task_model.task.metric), {}
    remaining = [run for run in config.runs() if run.name not in done]
    with StopSignal() as stop:
        total = len(done) + len(remaining)
        for number, run in enumerate(remaining, start=len(done) + 1):
            _LOG.info(f"run {number} of {total}: {run.name}")
            result = _train(sweep, run, stop, workdir, show_progress, callback)
            if result is None:
                _LOG.info(f"stopped with {len(done)} finished runs; the same command continues with {run.name}")
                return None
            record = _record(run, result)
            if all(
                sweep.selection_score(result.scores) > sweep.selection_score(other["scores"]) for other in done.values()
            ):
                _save_checkpoint(task_model, source, result, record, number, workdir)
                predictions = result.predictions
            done[run.name] = record
            lines = (json.dumps(decoding.sealed(record)) + "\n" for record in done.values())
            write_text(workdir / "runs.jsonl", "".join(lines))
            _LOG.info(f"{run.name}: {_describe(record)}")
    return _write_results(task_model, dev, list(done.values()), predictions, workdir)


def _open_sweep(
    config: FinetuneConfig, workdir: Path
) -> tuple[Sweep, list[Split], TaskModel, Pretrained, dict[str, str]]:
    """Opens and checks all that a sweep needs.

    Returns:
      the sweep, its dev splits, the task model, the initial model, and the digests of data.json.
    """
    task_model, source, params = open_task_model(config)
    check_room(workdir, "workdir (--workdir)", tree_bytes(source.params), "the best run's checkpoint")
    _check_splits(task_model.task)
    train = task_model.split("train", config.train_examples)
    dev = [task_model.split(name) for name in task_model.task.dev]
    sequences = len(train.batches.rows)
    in_sequences = f" ({sequences:,} sequences)" if sequences != len(train.examples) else ""
    _LOG.info(
        f"{task_model.task.name}: {len(train.examples):,} training examples{in_sequences}, "
        f"{dataset.describe_padding(train.batches)}"
    )
    _log_counts(task_model, train, dev)
    _check_labels_differ(dev)
    digests = {split.name: split.batches.digest() for split in (train, *dev)}
    digests["init_from"] = RANDOM_PREFIX * config.init_from.startswith(RANDOM_PREFIX) + source.fingerprint()
    teacher = None
    if config.distillation.teacher:
        forward, teacher_params, digests["teacher"] = distillation.load_teacher(task_model)
        teacher = forward, teacher_params
    _check_same_data(digests, workdir)
    if config.features:  # the runs train on features alone, without the encoder
        train, *dev = features.compute_features(task_model, params, [train, *dev], config.features_memory)
        params = {}
    return Sweep(task_model, params, train, dev, teacher=teacher), dev, task_model, source, digests


def _train(
    sweep: Sweep,
    run: RunConfig,
    stop: StopSignal,
    workdir: Path,
    show_progress: bool,
    callback: Callable[[FinetuningEvent], None] | None,
) -> RunResult | None:
    folder = workdir / "runs" / run.name
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(metrics.MetricsWriter(folder, 0)) as writer:

        def write(step: int, values: Mapping[str, float]) -> None:
            writer.write(step, values)
            if callback:
                callback(FinetuningEvent(run.name, step, values))

        try:
            return sweep.train(run, stop, write, show_progress)
        except UserError as error:
            raise UserError(f"{run.name}: {error}") from error


def _record(run: RunConfig, result: RunResult) -> RunRecord:
    return {
        "learning_rate": run.learning_rate,
        "epochs": run.epochs,
        "seed": run.seed,
        "scores": result.scores,
        "epoch": result.epoch,
        "steps": result.steps,
        "seconds": round(result.seconds, 3),
        "examples_per_second": round(result.examples_per_second, 2),
    }


def _describe(record: RunRecord) -> str:
    scores = [
        f"{split} {name} {value:.2f}"
        for split, split_scores in record["scores"].items()
        for name, value in split_scores.items()
    ]
    return f"{', '.join(scores)}; {record['examples_per_second']:,.0f} examples/s"


def _save_checkpoint(
    task_model: TaskModel, source: Pretrained, result: RunResult, record: RunRecord, number: int, workdir: Path
) -> None:
    """Saves the parameters of the best run so far, run `number`, as the only checkpoint of the workdir."""
    config, examples, sentence = task_model.config, task_model.task, task_model.config.sentence
    vectors = SentenceMetadata(
        sentence.pooling,  # pyright: ignore[reportArgumentType]  # the config's choices are those of the Literal
        sentence.normalize,
        sentence.lowest,
        sentence.highest,
    )
    task = TaskMetadata(
        name=examples.name,
        kind=examples.kind.name,
        labels=examples.labels,
        limits=task_model.limits,
        columns={name: getattr(config.table, name) for name in COLUMNS} if examples.name.startswith("table/") else {},
        threshold=result.scores[examples.dev[0]].get("best_f1_thresh"),
        features=config.features,  # pyright: ignore[reportArgumentType]  # as above
        sentence=vectors if examples.kind.bi_encoder else None,
        run=json.loads(json.dumps({**record, "number": number})),
    )
    shape = Config(model=task_model.model.config, next_sentence=False, phases=(Phase(1, config.length, config.batch),))
    frozen = {name: source.params[name] for name in ENCODER_PARAMS if name not in result.params}
    model = dataclasses.replace(
        source,
        config=shape,
        params=frozen | jax.device_get(result.params),
        step=number,
        task=task,
        sentence=task.sentence,  # replaces that of the initial model
        untrained_heads=(),
        extensions={"task kind": source_module} if (source_module := KINDS.source(task.kind)) else {},
    )
    pretrained.overwrite(workdir, model)


def _name(record: RunRecord) -> str:
    return RunConfig(record["learning_rate"], record["epochs"], record["seed"]).name


def _check_splits(task: TaskExamples) -> None:
    """Refuses a task without dev data, and unreadable test files, before the training starts."""
    if not task.dev or task.dev[0] == "test":
        raise UserError(
            f"{task.name}: there is no dev split to select the best run; set config.table.dev, to a "
            "tenth of the rows that training does not use"
        )
    for name in task.test:
        with contextlib.suppress(MissingFileError):
            check_lengths(task.read(name))


def _log_counts(task_model: TaskModel, train: Split, dev: Sequence[Split]) -> None:
    """Logs the shares of unknown tokens and truncated examples."""
    limit = task_model.task.kind.length_limit
    tokens, longest = getattr(task_model.limits, limit), task_model.model.config.max_position_embeddings
    remedy = f"raise config.{limit} ({tokens}; the model reads up to {longest} tokens), or shorten the texts"
    log_counts(_LOG, "train", task_model.counts([train]), remedy)
    log_counts(_LOG, "dev", task_model.counts(dev), remedy)


def _check_labels_differ(splits: Sequence[Split]) -> None:
    """Refuses a regression split whose labels are all equal: its correlations are undefined."""
    for split in splits:
        labels = [getattr(example, "label", None) for example in split.examples]
        if isinstance(labels[0], float) and len(set(labels)) == 1:
            where = split.examples[0].where
            raise UserError(
                f"{where}: all labels of {split.name} are {labels[0]:g}, but a correlation needs labels that differ; "
                "provide some"
            )


def _check_same_sweep(config: FinetuneConfig, workdir: Path) -> None:
    """Refuses the workdir of a sweep whose runs are not comparable with those of `config`."""
    path = workdir / "config.json"
    if not path.is_file():
        if (workdir / "checkpoints").is_dir():  # the checkpoint of the best run would replace them
            raise UserError(f"{workdir}: contains a model that is not from a sweep; use a new workdir (--workdir)")
        return
    try:
        values = decoding.read(path, dict, _REMEDY)
        # The config.json of a pre-training run has no seal, so its keys are checked first.
        before = build(FinetuneConfig, decoding.without_seal(values), "config")
        decoding.unsealed(values, path, _REMEDY)
    except UserError as error:
        raise UserError(f"{path}: not the config of a sweep ({error}); use a new workdir (--workdir)") from error
    conflict = resume_conflict(before, config)
    if conflict:
        raise UserError(f"{workdir}: config.{conflict}; set it back, or use a new workdir (--workdir)")


def _check_same_data(digests: dict[str, str], workdir: Path) -> None:
    """Refuses a workdir whose runs used other examples or models, even from the same paths."""
    path = workdir / "data.json"
    if path.is_file() and (before := decoding.read_sealed(path, dict[str, str], _REMEDY)) != digests:
        changed = ", ".join(name for name in sorted(before | digests) if before.get(name) != digests.get(name))
        raise UserError(
            f"{workdir}: the finished runs used other examples or models (changed: {changed}); restore the files, "
            "or use a new workdir (--workdir)"
        )


def _write(path: Path, values: Mapping[str, object]) -> None:
    write_text(path, json.dumps(values, indent=2) + "\n")


def _read_records(workdir: Path, splits: Sequence[str], metric: str) -> dict[str, RunRecord]:
    """Reads the finished runs by name; all have the same scores of these splits, `metric` among them.

    Raises:
      UserError: a line is damaged, or belongs to another sweep.
    """
    path = workdir / "runs.jsonl"
    if not path.is_file():
        return {}
    records: dict[str, RunRecord] = {}
    for number, line in enumerate(decoding.read_bytes(path, _REMEDY).removesuffix(b"\n").split(b"\n"), 1):
        where, remedy = f"{path}, line {number}", "delete the line to repeat its run"
        values = decoding.unsealed(decoding.parse(line, where, remedy), where, remedy)
        record = decoding.convert(values, RunRecord, where, remedy)
        names = [record["scores"].get(split, {}).keys() for split in splits]
        first = next(iter(records.values()), record)["scores"]
        if any(
            metric not in present or present != first[split].keys()
            for split, present in zip(splits, names, strict=True)
        ):
            raise DecodingError("scores: those of another sweep", where, remedy)
        if _name(record) in records:
            raise DecodingError("duplicate of an earlier run", where, remedy)
        records[_name(record)] = record
    return records


def _write_results(
    task_model: TaskModel,
    dev: list[Split],
    records: list[RunRecord],
    predictions: Mapping[str, Sequence[Prediction]],
    workdir: Path,
) -> SweepResults:
    """Writes results.json and the predictions of the best run.

    `predictions` are those of the best run for `dev`; empty if an earlier process trained it.
    """
    task = task_model.task
    best = max(records, key=lambda record: record["scores"][dev[0].name][task.metric])
    results: SweepResults = {
        "task": task.name,
        "metric": task.metric,
        "best": best,
        "summary": {split.name: report.summarize(task.metric, split.name, records) for split in dev},
        "runs": records,
    }
    _write(workdir / "results.json", results)
    model = load_model(workdir)
    evaluation.predict_all(task_model, model.params, dev, workdir, known=predictions)
    _LOG.info(f"best: {_name(best)}: {_describe(best)}")
    _LOG.info(f"wrote {workdir}/results.json, predictions/ and checkpoints/")
    _LOG.info(f"next: python -m bertjax.predict {task.kind.predict_mode} --checkpoint={workdir} …")
    return results


def finetune_all(config: FinetuneConfig, workdir: Path, show_progress: bool = False) -> Iterator[str]:
    """Fine-tunes on every task of GLUE, each in a folder of its own.

    Yields the score tables of each task as it finishes, and finally the line of the leaderboard. A signal ends the
    iteration early.
    """
    columns: dict[str, float] = {}
    names = [name for name in glue.TASKS if name != "ax"]
    for name in names:  # find missing files before hours of training
        task = open_task(f"glue/{name}", config.data_dir)
        _check_splits(task)
        for split in ("train", *task.dev):
            check_lengths(task.read(split))
    for name in names:
        folder = workdir / name
        results = finetune(dataclasses.replace(config, task=f"glue/{name}"), folder, show_progress)
        if results is None:
            return
        yield report.format_results(results)
        for split, scores in results["best"]["scores"].items():
            columns[glue.COLUMNS[f"glue/{name}", split.replace("dev", "test")]] = scores[results["metric"]]
    with writable_folder(workdir):
        evaluation.predict_diagnostics(workdir / "mnli", config, workdir / "ax")
        evaluation.collect_submissions(workdir)
        path, missing = submission.archive(workdir / "submission")
        _write(workdir / "results.json", {"scores": columns, "averages": glue.averages(columns)})
    _LOG.info(f"wrote {path}" + (f"; {', '.join(missing)} are missing" if missing else ""))
    yield report.format_leaderboard(columns)
