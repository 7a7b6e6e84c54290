"""What a sweep leaves behind for people: scores of all runs, predictions, a picture, files to submit."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bertjax.finetuning.task_model import Split
from bertjax.storage.files import write_text, written_whole
from bertjax.tasks import glue
from bertjax.tasks.kinds.base import Prediction
from bertjax.tasks.task_examples import TaskExamples

_WIDEST = 24  # inches of a picture's side

Record = Mapping[str, Any]  # of a finished run: learning_rate, epochs, seed, scores and so on


def summary(task: TaskExamples, split: str, records: Sequence[Record]) -> list[dict[str, Any]]:
    """For each rate and number of epochs: how many seeds, mean, standard deviation and best of each score of a split.

    The standard deviation is that of a sample, 0 of one run. Sorted by the mean of the task's metric, the best first.
    """
    groups: dict[tuple[float, int], list[Record]] = {}
    for record in records:
        groups.setdefault((record["learning_rate"], record["epochs"]), []).append(record)
    rows = []
    for (rate, epochs), group in groups.items():
        scores = {}
        for name in group[0]["scores"][split]:
            values = [record["scores"][split][name] for record in group]
            deviation = statistics.stdev(values) if len(values) > 1 else 0.0
            scores[name] = {"mean": statistics.fmean(values), "deviation": deviation, "best": max(values)}
        rows.append({"learning_rate": rate, "epochs": epochs, "seeds": len(group), "scores": scores})
    return sorted(rows, key=lambda row: -row["scores"][task.metric]["mean"])


def table(task: TaskExamples, split: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """`summary` to read: mean ± standard deviation over the seeds."""
    names = [name for name in rows[0]["scores"] if not name.endswith(("total", "thresh"))]
    names.sort(key=lambda name: name != task.metric)
    header = ["rate", "epochs", "seeds", *(f"{split} {name}" for name in names), f"best {names[0]}"]
    lines = []
    for row in rows:
        cells = [f"{row['learning_rate']:g}", str(row["epochs"]), str(row["seeds"])]
        cells += [f"{row['scores'][name]['mean']:.2f} ± {row['scores'][name]['deviation']:.2f}" for name in names]
        lines.append([*cells, f"{row['scores'][names[0]]['best']:.2f}"])
    return aligned([header, *lines])


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as columns; all but the first are flush right."""
    first, *widths = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = []
    for name, *cells in rows:
        flush_right = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        lines.append("  ".join([name.ljust(first), *flush_right]).rstrip())
    return "\n".join(lines)


def leaderboard(columns: Mapping[str, float]) -> str:
    """A row of the GLUE leaderboard with both averages in use, beside those that BERT's paper gives."""
    rows = [["", *glue.AVERAGED, *glue.averages(columns)]]
    published = {f"{name} (paper, test)": scores for name, scores in glue.PUBLISHED.items()}
    for name, scores in ({"this sweep (dev)": columns} | published).items():
        values = [*(scores.get(column, math.nan) for column in glue.AVERAGED), *glue.averages(scores).values()]
        rows.append([name, *("-" if math.isnan(value) else f"{value:.1f}" for value in values)])
    return aligned(rows)


def write_predictions(
    task: TaskExamples, split: Split, predictions: Sequence[Prediction], folder: Path, threshold: float
) -> None:
    """SPLIT.jsonl, a JSON line an example: its id, what is predicted, what is right, and how sure the model is.

    Of questions also SPLIT.json and SPLIT.null_odds.json, as SQuAD's official script takes them. Where `null_odds` are
    above `threshold`, the prediction is that there is no answer.
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
    """The confusion matrix of a classification as a picture: rows are the right classes, columns the predicted ones."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure
    from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix

    places = range(len(task.labels))
    right = [example.label for example in split.examples]
    matrix = confusion_matrix(right, [prediction.value for prediction in predictions], labels=places)
    side = min(3 + 0.6 * len(task.labels), _WIDEST)
    figure = Figure(figsize=(side, side), dpi=120, layout="constrained")
    axes = figure.subplots()
    # Of more classes than fit, neither names nor numbers could be read.
    legible = side < _WIDEST
    names = [name.replace("$", r"\$") for name in task.labels]  # which would begin a formula
    display = ConfusionMatrixDisplay(matrix, display_labels=names if legible else None)
    display.plot(ax=axes, include_values=legible, colorbar=not legible, xticks_rotation=45)
    if not legible:
        axes.set(xticks=[], yticks=[])
    axes.set_title(f"{task.name}, {split.name}")
    with written_whole(path) as temporary:
        figure.savefig(temporary, format="png")
