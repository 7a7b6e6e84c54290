"""Fine-tunes a pre-trained model on a task: a sweep over learning rates, epochs and seeds, the best on dev kept.

python -m bertjax.finetune --config=configs/glue.py:sst2 --workdir=DIR --config.init_from=DIR --config.data_dir=DIR

Running the same command again goes on with the runs that are not finished. The workdir then holds results.json, the
best run's checkpoint and predictions, runs.jsonl with the scores of every run, and for GLUE files to submit.
"""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from bertjax import command
from bertjax.command import say
from bertjax.errors import UserError
from bertjax.files import claimed, write_text

if TYPE_CHECKING:
    from bertjax.finetuning.config import FinetuneConfig, Run
    from bertjax.finetuning.setup import Setup, Split
    from bertjax.finetuning.sweep import Result, Sweep
    from bertjax.pretrained import Pretrained

_CONFIG = command.define_config_flag()
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the sweep's files go; it is continued if it is there already.")


def main(args: list[str]) -> None:
    """Reads the flags and fine-tunes, on one task or all of GLUE."""
    values = command.config_value(_CONFIG)
    if args or values is None or _WORKDIR.value is None:
        raise UserError("usage: python -m bertjax.finetune --config=FILE --workdir=DIR [--config.KEY=VALUE …]")
    from bertjax.finetuning.config import from_config_dict

    config = from_config_dict(values)
    if config.task == "glue/all":
        _finetune_all(config, Path(_WORKDIR.value))
    else:
        finetune(config, Path(_WORKDIR.value))


def finetune(config: "FinetuneConfig", workdir: Path) -> dict[str, Any] | None:
    """Runs the sweep and returns what results.json holds; None where a signal stopped it.

    Raises:
      UserError: bad data, a workdir of another sweep, or a loss that is not finite.
    """
    with claimed(workdir, "another process trains here", "--workdir"):
        return _finetune(config, workdir)


def _finetune(config: "FinetuneConfig", workdir: Path) -> dict[str, Any] | None:
    from bertjax import training
    from bertjax.finetuning import batches, setup
    from bertjax.finetuning.sweep import Sweep

    # -- task, data, model
    _check_same_sweep(config, workdir)
    made, source, params = setup.open_setup(config, say)
    train = made.split("train", config.train_examples)
    dev = [made.split(name) for name in made.task.dev]
    sweep = Sweep(config, made, params, train, dev)
    _write_config(config, workdir)
    say(f"{made.task.name}: {len(train.examples):,} examples to learn from, {batches.describe(train.batches)}")

    # -- the runs that are still to do
    done = _read_records(workdir)
    todo = [run for run in config.runs() if run.name not in done]
    with training.StopSignal() as stop:
        for number, run in enumerate(todo, start=len(done) + 1):
            say(f"run {number} of {len(config.runs())}: {run.name}")
            result = _run(sweep, run, stop, workdir)
            if result is None:
                say(f"stopped; {len(done)} runs are finished, the same command goes on with {run.name}")
                return None
            record = _record(run, result)
            if all(sweep.chosen(result.scores) > sweep.chosen(other["scores"]) for other in done.values()):
                _keep(config, made, source, result, record, workdir)
            done[run.name] = record
            _append_record(workdir, record)
            say(f"{run.name}: {_describe(record)}")
    return _report(config, made, dev, [done[run.name] for run in config.runs()], workdir)


def _run(sweep: "Sweep", run: "Run", stop: Any, workdir: Path) -> "Result | None":
    from bertjax.metrics import MetricsWriter

    folder = workdir / "runs" / run.name
    folder.mkdir(parents=True, exist_ok=True)
    writer = MetricsWriter(folder, 0)

    def on_epoch(epoch: int, step: int, scores: dict[str, dict[str, float]]) -> None:
        writer.write(
            step, {f"{split}/{name}": value for split, found in scores.items() for name, value in found.items()}
        )

    try:
        return sweep.train(run, stop, writer.write, on_epoch, shown=True)
    finally:
        writer.close()


def _record(run: "Run", result: "Result") -> dict[str, Any]:
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


def _keep(
    config: "FinetuneConfig",
    made: "Setup",
    source: "Pretrained",
    result: "Result",
    record: dict[str, Any],
    workdir: Path,
) -> None:
    """Writes the best run so far as the workdir's only checkpoint."""
    import jax

    from bertjax import pretrained
    from bertjax.config import Config, Phase

    place = [run.name for run in config.runs()].index(_name(record)) + 1
    task = {"name": made.task.name, "kind": made.task.kind, "labels": list(made.task.labels)}
    task |= {"limits": dataclasses.asdict(made.limits), "run": record}
    chosen = result.scores[made.task.dev[0]]
    if "best_f1_thresh" in chosen:  # null_odds above it mean that there is no answer
        task["threshold"] = chosen["best_f1_thresh"]
    shape = Config(model=made.model.config, next_sentence=False, phases=(Phase(1, config.length, config.batch),))
    model = dataclasses.replace(
        source, config=shape, params=jax.device_get(result.params), step=place, task=json.loads(json.dumps(task))
    )
    pretrained.replace(workdir, model)


def _name(record: dict[str, Any]) -> str:
    from bertjax.finetuning.config import Run

    return Run(record["learning_rate"], record["epochs"], record["seed"]).name


def _check_same_sweep(config: "FinetuneConfig", workdir: Path) -> None:
    """Refuses a workdir of a sweep whose runs would not be comparable with those to come."""
    from bertjax.config import to_dict

    path = workdir / "config.json"
    if not path.is_file():
        return
    try:
        before = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path} cannot be read ({error}); use a new --workdir") from error
    now = json.loads(json.dumps(to_dict(config)))
    free = {"learning_rates", "epochs", "seeds", "mesh", "layout", "log_every", "data_dir"}
    for key in sorted((before.keys() | now.keys()) - free):
        if before.get(key) != now.get(key):
            raise UserError(
                f"{workdir} holds a sweep with config.{key}={before.get(key)!r}, not {now.get(key)!r}; "
                "give that value again, or a new --workdir"
            )


def _write_config(config: "FinetuneConfig", workdir: Path) -> None:
    from bertjax.config import to_dict

    try:
        write_text(workdir / "config.json", json.dumps(to_dict(config), indent=2) + "\n")
    except OSError as error:
        raise UserError(f"cannot write to {workdir}: {error.strerror}; choose another --workdir") from error


def _read_records(workdir: Path) -> dict[str, dict[str, Any]]:
    """The finished runs, by name."""
    from bertjax import metrics

    path = workdir / "runs.jsonl"
    return {_name(record): record for record in metrics.read(path)} if path.is_file() else {}


def _append_record(workdir: Path, record: dict[str, Any]) -> None:
    with (workdir / "runs.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")


def _report(
    config: "FinetuneConfig", made: "Setup", dev: list["Split"], records: list[dict[str, Any]], workdir: Path
) -> dict[str, Any]:
    """Writes results, predictions of the best run, pictures and files to submit; prints the table."""
    from bertjax import pretrained
    from bertjax.finetuning import report, scoring

    best = max(records, key=lambda record: record["scores"][dev[0].name][made.task.metric])
    summary = {split.name: report.summary(made.task, split.name, records) for split in dev}
    results = {"task": made.task.name, "metric": made.task.metric, "best": best, "summary": summary, "runs": records}
    write_text(workdir / "results.json", json.dumps(results, indent=2) + "\n")
    model = pretrained.load(workdir, say)
    scoring.predict_all(made, model.params, dev, workdir, say)
    for split in dev:
        print(report.table(made.task, split.name, summary[split.name]))
    say(f"best: {_name(best)}: {_describe(best)}")
    say(f"wrote {workdir}/results.json, predictions/ and checkpoints/")
    say(f"next: python -m bertjax.predict {scoring.PREDICT[made.task.kind]} --checkpoint={workdir} …")
    return results


def _finetune_all(config: "FinetuneConfig", workdir: Path) -> None:
    """Every task of GLUE, each in a folder of its own, and the leaderboard's row."""
    from bertjax.finetuning import report, scoring
    from bertjax.tasks import glue, submission

    columns: dict[str, float] = {}
    for name in (name for name in glue.TASKS if name != "ax"):
        folder = workdir / name
        results = finetune(dataclasses.replace(config, task=f"glue/{name}"), folder)
        if results is None:
            return
        for split, scores in results["best"]["scores"].items():
            columns[glue.column(f"glue/{name}", split)] = scores[results["metric"]]
    scoring.predict_diagnostics(workdir / "mnli", config.data_dir, workdir / "ax", say)
    scoring.gather_submissions(workdir)
    path, missing = submission.archive(workdir / "submission")
    print(report.leaderboard(columns))
    say(f"wrote {path}" + (f", in which {', '.join(missing)} are missing" if missing else ""))


if __name__ == "__main__":
    command.run(main)
