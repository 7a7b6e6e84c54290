"""All tasks by name."""

import difflib
from collections.abc import Sequence

from bertjax.config.finetuning import TableConfig
from bertjax.errors import UserError
from bertjax.tasks import conll, glue, sick, squad, swag
from bertjax.tasks.conll import open_conll
from bertjax.tasks.kinds.base import TaskKind
from bertjax.tasks.kinds.catalog import KINDS
from bertjax.tasks.table import open_table
from bertjax.tasks.task_examples import TaskExamples
from bertjax.tasks.text_task import open_text_task

_TEXT_TASKS = {f"glue/{name}": spec for name, spec in glue.TASKS.items()} | {
    f"sick/{name}": spec for name, spec in sick.TASKS.items()
}


def names() -> tuple[str, ...]:
    """Returns the names of all tasks."""
    return (*_TEXT_TASKS, "squad/v1.1", "squad/v2.0", "swag", *conll.TASKS, *_table_kinds())


def open_task(
    name: str, data_dir: str, table: TableConfig | None = None, labels: Sequence[str] | None = None
) -> TaskExamples:
    """Binds a task to its data.

    Args:
      name: one of `names()`.
      data_dir: the folder with the task's files, or tfds[:DIR].
      table: files and columns of table/…; for conll2003/ner and conllu/upos optionally the files.
      labels: class names in the order of an existing model's outputs.

    Raises:
      UserError: the name is unknown (the message suggests the closest one), data_dir is empty, or the labels are not
        the task's.
    """
    if name not in names():
        nearest = difflib.get_close_matches(name, names(), n=1, cutoff=0)
        raise UserError(f"unknown task {name!r}; did you mean {nearest[0]!r}? Tasks: {', '.join(names())}")
    if not data_dir:
        raise UserError(f"{name}: data_dir is empty; set it to the folder with the task's files, or to tfds")
    if name in _TEXT_TASKS:
        return open_text_task(_TEXT_TASKS[name], name, data_dir, labels)
    if name in conll.TASKS:
        return open_conll(conll.TASKS[name], name, data_dir, table, labels)
    if name == "swag":
        return swag.open_swag(name, data_dir)
    if name.startswith("squad/"):
        return squad.open_squad(name, data_dir)
    return open_table(_table_kinds()[name], data_dir, table, labels)


def _table_kinds() -> dict[str, TaskKind]:
    """Returns the kinds of the tasks table/…, including those of users."""
    return {f"table/{kind.name}": kind for kind in KINDS.values() if kind.has_table_task}
