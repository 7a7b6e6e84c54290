"""Reports of a sweep: score tables, predictions of splits, confusion matrices and the GLUE leaderboard."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from bertjax.decoding import Count, Finite
from bertjax.finetuning.task_model import Split
from bertjax.storage.files import atomic_write, write_text
from bertjax.tasks import glue
from bertjax.tasks.kinds.base import Prediction
from bertjax.tasks.task_examples import TaskExamples

_MAX_SIDE = 24  # inches, of a confusion matrix


class RunRecord(TypedDict):
    """A finished run, as a line of runs.jsonl holds it."""

    learning_rate: Finite
    epochs: Count
    seed: Count
    scores: dict[str, dict[str, Finite]]  # by dev split and name
    epoch: Count  # the epoch with the best score
    steps: Count
    seconds: Finite
    examples_per_second: Finite


class ScoreSummary(TypedDict):
    """Statistics of a score over seeds; the deviation is that of a sample, 0 for one run."""

    mean: float
    deviation: float
    best: float


class SettingSummary(TypedDict):
    """The scores of all runs with the same learning rate and number of epochs."""

    learning_rate: float
    epochs: int
    seeds: int
    scores: dict[str, ScoreSummary]


class SweepResults(TypedDict):
    """The content of results.json."""

    task: str
    metric: str
    best: RunRecord
    summary: dict[str, list[SettingSummary]]  # by dev split
    runs: list[RunRecord]


def summarize(metric: str, split: str, records: Sequence[RunRecord]) -> list[SettingSummary]:
    """Summarizes the scores of a split by learning rate and number of epochs, the best mean of `metric` first."""
    groups: dict[tuple[float, int], list[RunRecord]] = {}
    for record in records:
        groups.setdefault((record["learning_rate"], record["epochs"]), []).append(record)
    summaries: list[SettingSummary] = []
    for (rate, epochs), group in groups.items():
        scores: dict[str, ScoreSummary] = {}
        for name in group[0]["scores"][split]:
            values = [record["scores"][split][name] for record in group]
            deviation = statistics.stdev(values) if len(values) > 1 else 0.0
            scores[name] = {"mean": statistics.fmean(values), "deviation": deviation, "best": max(values)}
        summaries.append({"learning_rate": rate, "epochs": epochs, "seeds": len(group), "scores": scores})
    return sorted(summaries, key=lambda summary: -summary["scores"][metric]["mean"])


def format_results(results: SweepResults) -> str:
    """Formats the tables of all dev splits."""
    return "\n".join(
        format_table(results["metric"], split, summaries) for split, summaries in results["summary"].items()
    )


def format_table(metric: str, split: str, summaries: Sequence[SettingSummary]) -> str:
    """Formats the summary of a split as a table: mean ± standard deviation over the seeds."""
    names = [name for name in summaries[0]["scores"] if not name.endswith(("total", "thresh"))]
    names.sort(key=lambda name: name != metric)
    lines = [["rate", "epochs", "seeds", *(f"{split} {name}" for name in names), f"best {names[0]}"]]
    for summary in summaries:
        scores = summary["scores"]
        cells = [f"{summary['learning_rate']:g}", str(summary["epochs"]), str(summary["seeds"])]
        cells += [f"{scores[name]['mean']:.2f} ± {scores[name]['deviation']:.2f}" for name in names]
        lines.append([*cells, f"{scores[names[0]]['best']:.2f}"])
    return _align_columns(lines)


def format_leaderboard(columns: Mapping[str, float]) -> str:
    """Formats the scores of a sweep as a line of the GLUE leaderboard, above those of the BERT paper.

    The last two columns are the averages over 9 columns and over 8 tasks.
    """
    lines = [["", *glue.AVERAGED, *glue.averages(columns)]]
    entries: dict[str, Mapping[str, float]] = {"this sweep (dev)": columns}
    for name, scores in glue.PUBLISHED.items():
        entries[f"{name} (paper, test)"] = {column: scores[column] for column in glue.AVERAGED}
    for name, scores in entries.items():
        values = [*(scores.get(column, math.nan) for column in glue.AVERAGED), *glue.averages(scores).values()]
        lines.append([name, *("-" if math.isnan(value) else f"{value:.1f}" for value in values)])
    return _align_columns(lines)


def _align_columns(lines: Sequence[Sequence[str]]) -> str:
    """Pads cells to columns; the first column is flush left, the others are flush right."""
    first_width, *widths = (max(map(len, column)) for column in zip(*lines, strict=True))
    aligned = []
    for first, *cells in lines:
        flush_right = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        aligned.append("  ".join([first.ljust(first_width), *flush_right]).rstrip())
    return "\n".join(aligned)


def write_predictions(
    task: TaskExamples, split: Split, predictions: Sequence[Prediction], folder: Path, threshold: float
) -> None:
    """Writes SPLIT.jsonl, one line per example with its id, prediction, label and probabilities.

    For questions it also writes SPLIT.json and SPLIT.null_odds.json, which SQuAD's official script reads. A question
    whose `null_odds` exceed `threshold` is predicted to have no answer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    records = [
        task.kind.describe(example, prediction, task.labels, threshold)
        for example, prediction in zip(split.examples, predictions, strict=True)
    ]
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    write_text(folder / f"{split.name}.jsonl", "\n".join([*lines, ""]))
    for suffix, content in task.kind.score_files(split.examples, predictions).items():
        write_text(folder / f"{split.name}.{suffix}", json.dumps(content, ensure_ascii=False) + "\n")


def draw_confusion(task: TaskExamples, split: Split, predictions: Sequence[Prediction], path: Path) -> None:
    """Draws the confusion matrix of a classification: rows are the labels, columns the predictions."""
    from matplotlib.figure import Figure  # without pyplot, whose backend belongs to the application
    from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix

    classes = range(len(task.labels))
    labels = [example.label for example in split.examples]
    matrix = confusion_matrix(labels, [prediction.value for prediction in predictions], labels=classes)
    side = min(3 + 0.6 * len(task.labels), _MAX_SIDE)
    figure = Figure(figsize=(side, side), dpi=120, layout="constrained")
    axes = figure.subplots()
    legible = side < _MAX_SIDE  # names and numbers of more classes would overlap
    names = [name.replace("$", r"\$") for name in task.labels]  # matplotlib reads $ as the start of a formula
    display = ConfusionMatrixDisplay(matrix, display_labels=names if legible else None)
    display.plot(
        ax=axes,
        include_values=legible,
        colorbar=not legible,
        xticks_rotation=45,  # pyright: ignore[reportArgumentType]  # degrees are valid
    )
    if not legible:
        axes.set(xticks=[], yticks=[])
    axes.set_title(f"{task.name}, {split.name}")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png")
