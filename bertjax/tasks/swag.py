"""SWAG (Zellers et al. 2018, arXiv:1808.05326): which of four endings goes on from a sentence."""

from pathlib import Path

from bertjax.errors import UserError, shown
from bertjax.tasks import line_formats, scores, tfds
from bertjax.tasks.examples import ChoiceExample
from bertjax.tasks.kinds.choice import Choice
from bertjax.tasks.task_examples import TaskExamples

_FILES = {"train": ("train.csv",), "dev": ("val.csv",), "test": ("test.csv",)}
_ENDINGS = ("ending0", "ending1", "ending2", "ending3")


def open_swag(name: str, data_dir: str) -> TaskExamples:
    """Binds SWAG to its folder: the text is `sent1`, each choice `sent2` and an ending."""

    def read(split: str) -> list[ChoiceExample]:
        if tfds.named(data_dir):
            raise tfds.not_read(data_dir)
        return _read(line_formats.find([Path(data_dir)], _FILES[split]), split != "test")

    return TaskExamples(
        name=name,
        kind=Choice(),
        labels=(),
        read=read,
        score=scores.of_labels(scores.accuracy),
        metric="accuracy",
        choices=len(_ENDINGS),
    )


def _read(path: Path, labelled: bool) -> list[ChoiceExample]:
    sheet = line_formats.quoted(path, ",")
    first, second, *endings = (
        sheet.position(column, "is this SWAG's own file?") for column in ("sent1", "sent2", *_ENDINGS)
    )
    label = sheet.position("label", "is this SWAG's own file?") if labelled else None
    index = sheet.columns.get("")  # the first column has no name
    examples = []
    for where, cells in sheet.rows:
        if label is not None and cells[label] not in ("0", "1", "2", "3"):
            raise UserError(f"{where}: the label {shown(cells[label])} is none of 0, 1, 2, 3; put the row right")
        choices = tuple(f"{cells[second]} {cells[ending]}".strip() for ending in endings)
        identity = str(len(examples)) if index is None else cells[index]
        right = None if label is None else int(cells[label])
        examples.append(ChoiceExample(identity, where, cells[first], choices, right))
    if not examples:
        raise UserError(f"{path}: there are no examples in it; get the file again")
    return examples
