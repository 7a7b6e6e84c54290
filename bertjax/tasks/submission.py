"""Submission files of the GLUE server (gluebenchmark.com/faq)."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

from bertjax.errors import UserError
from bertjax.storage import files
from bertjax.tasks import glue
from bertjax.tasks.examples import TextExample
from bertjax.tasks.task_examples import TaskExamples


def write(
    task: TaskExamples,
    split: str,
    examples: Sequence[TextExample],
    predictions: Sequence[int | float],
    folder: str | Path,
) -> Path:
    """Writes the predictions of a test split of a GLUE task; returns the file's path, e.g. FOLDER/MNLI-mm.tsv.

    Lines are sorted by index. Classes are named as in the task's own files; similarities are clipped to [0, 5] and
    have three decimals.

    Raises:
      UserError: the server does not accept the task or split, or an index occurs twice.
    """
    if (task.name, split) not in glue.COLUMNS:
        raise UserError(f"{task.name}, split {split}: not accepted by the GLUE server; submit test splits of GLUE")
    spec = glue.TASKS[task.name.partition("/")[2]]
    written = {}
    for example, prediction in zip(examples, predictions, strict=True):
        index = int(example.id)
        if index in written:
            raise UserError(
                f"{example.where}: duplicate index {index}; download the file again, or restore it from a copy"
            )
        if not task.labels:
            written[index] = f"{min(max(float(prediction), 0.0), 5.0):.3f}"
        else:
            written[index] = spec.code(task.labels[int(prediction)])
    path = Path(folder) / f"{glue.COLUMNS[task.name, split]}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{index}\t{prediction}\n" for index, prediction in sorted(written.items())]
    files.write_text(path, "".join(["index\tprediction\n", *lines]))
    return path


def archive(folder: str | Path) -> tuple[Path, list[str]]:
    """Zips the submission files of a folder into submission.zip; returns its path and the names of missing files.

    The server accepts only submissions with all eleven files.
    """
    names = [f"{column}.tsv" for column in glue.COLUMNS.values()]
    present = [name for name in names if (Path(folder) / name).is_file()]
    path = Path(folder) / "submission.zip"
    with files.atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name in present:
            zipped.write(Path(folder) / name, name)
    return path, [name for name in names if name not in present]
