"""SWAG (Zellers et al. 2018, arXiv:1808.05326): which of four endings continues a sentence."""

from pathlib import Path

from bertjax.errors import UserError, short_repr
from bertjax.tasks import line_formats, scores, tfds
from bertjax.tasks.examples import ChoiceExample
from bertjax.tasks.kinds.choice import Choice
from bertjax.tasks.task_examples import TaskExamples

_FILES = {"train": ("train.csv",), "dev": ("val.csv",), "test": ("test.csv",)}
_ENDINGS = ("ending0", "ending1", "ending2", "ending3")
_REMEDY = "use SWAG's original file"


def open_swag(name: str, data_dir: str) -> TaskExamples[ChoiceExample]:
    """Binds SWAG to its folder: the text is `sent1`, each choice is `sent2` with an ending."""

    def read(split: str) -> list[ChoiceExample]:
        if tfds.is_tfds(data_dir):
            raise tfds.unsupported(data_dir)
        return _read(line_formats.find_file([Path(data_dir)], _FILES[split]), split != "test")

    return TaskExamples(
        name=name,
        kind=Choice(),
        labels=(),
        read=read,
        score=scores.label_score(scores.accuracy),
        metric="accuracy",
        choices=len(_ENDINGS),
    )


def _read(path: Path, labeled: bool) -> list[ChoiceExample]:
    sheet = line_formats.open_quoted(path, ",")
    first, second, *endings = (sheet.position(column, _REMEDY) for column in ("sent1", "sent2", *_ENDINGS))
    label = sheet.position("label", _REMEDY) if labeled else None
    index = sheet.columns.get("")  # the first column has no name
    examples = []
    for where, cells in sheet.records:
        if label is not None and cells[label] not in ("0", "1", "2", "3"):
            raise UserError(f"{where}: label {short_repr(cells[label])} is none of 0, 1, 2, 3; correct the label")
        choices = tuple(f"{cells[second]} {cells[ending]}".strip() for ending in endings)
        identity = str(len(examples)) if index is None else cells[index]
        right = None if label is None else int(cells[label])
        examples.append(ChoiceExample(identity, where, cells[first], choices, right))
    if not examples:
        raise UserError(f"{path}: no examples; download the file again, or restore it from a copy")
    return examples
