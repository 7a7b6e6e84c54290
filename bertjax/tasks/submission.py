"""Files as the GLUE server wants them (gluebenchmark.com/faq)."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bertjax.errors import UserError
from bertjax.storage import files
from bertjax.tasks import glue
from bertjax.tasks.examples import TextExample
from bertjax.tasks.task_examples import TaskExamples


def write(
    task: TaskExamples, split: str, examples: Sequence[TextExample], predictions: Sequence[Any], folder: str | Path
) -> Path:
    """Writes the predictions of a test split of a GLUE task; returns the file's path, e.g. FOLDER/MNLI-mm.tsv.

    Rows are sorted by their index. Classes are written as the task's own files write them, similarities with three
    decimals between 0 and 5.

    Raises:
      UserError: the task or split is not submitted, or an index comes twice.
    """
    if (task.name, split) not in glue.COLUMNS:
        raise UserError(f"{task.name}, split {split}: nothing that the GLUE server takes; submit test splits of GLUE")
    spec = glue.TASKS[task.name.partition("/")[2]]
    written = {}
    for example, prediction in zip(examples, predictions, strict=True):
        index = int(example.id)
        if index in written:
            raise UserError(f"{example.where}: the index {index} comes twice; get the file again")
        if not task.labels:
            written[index] = f"{min(max(float(prediction), 0.0), 5.0):.3f}"
        else:
            written[index] = spec.code(task.labels[prediction])
    path = Path(folder) / f"{glue.COLUMNS[task.name, split]}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{index}\t{prediction}\n" for index, prediction in sorted(written.items())]
    files.write_text(path, "".join(["index\tprediction\n", *lines]))
    return path


def archive(folder: str | Path) -> tuple[Path, list[str]]:
    """Zips the submission files of a folder into its submission.zip; returns that and the names of files still missing.

    The server takes a submission only if all eleven files are in it.
    """
    names = [f"{column}.tsv" for column in glue.COLUMNS.values()]
    present = [name for name in names if (Path(folder) / name).is_file()]
    path = Path(folder) / "submission.zip"
    with files.written_whole(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name in present:
            zipped.write(Path(folder) / name, name)
    return path, [name for name in names if name not in present]
