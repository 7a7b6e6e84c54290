"""All tasks by name."""

import difflib
from collections.abc import Sequence

from bertjax.config.finetuning import Table
from bertjax.errors import UserError
from bertjax.tasks import conll, glue, sick, squad, swag
from bertjax.tasks.conll import open_conll
from bertjax.tasks.kinds.catalog import KINDS
from bertjax.tasks.table import open_table
from bertjax.tasks.task_examples import TaskExamples
from bertjax.tasks.text_task import open_text_task

_TEXT_TASKS = {f"glue/{name}": spec for name, spec in glue.TASKS.items()} | {
    f"sick/{name}": spec for name, spec in sick.TASKS.items()
}
_TABLES = {f"table/{kind.name}": kind for kind in KINDS.values() if kind.own_table}


def names() -> tuple[str, ...]:
    """The names of all tasks."""
    return (*_TEXT_TASKS, "squad/v1.1", "squad/v2.0", "swag", *conll.TASKS, *_TABLES)


def open_task(
    name: str, data_dir: str, table: Table | None = None, labels: Sequence[str] | None = None
) -> TaskExamples:
    """Binds a task to its data.

    Args:
      name: one of `names()`.
      data_dir: the folder with its files, or tfds[:DIR].
      table: files and columns, for table/…; of conll2003/ner and conllu/upos it may name the files.
      labels: the classes in a model's order, where a model knows them.

    Raises:
      UserError: an unknown name (the nearest one is named), no data_dir, labels that are not the task's.
    """
    if name not in names():
        nearest = difflib.get_close_matches(name, names(), n=1, cutoff=0)
        raise UserError(f"unknown task {name!r}; did you mean {nearest[0]!r}? There are: {', '.join(names())}")
    if not data_dir:
        raise UserError(f"{name} needs its data; give data_dir the folder with its files, or tfds")
    if name in _TEXT_TASKS:
        return open_text_task(_TEXT_TASKS[name], name, data_dir, labels)
    if name in conll.TASKS:
        return open_conll(conll.TASKS[name], name, data_dir, table, labels)
    if name == "swag":
        return swag.open_swag(name, data_dir)
    if name.startswith("squad/"):
        return squad.open_squad(name, data_dir)
    return open_table(_TABLES[name], data_dir, table, labels)
