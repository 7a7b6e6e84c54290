"""The definition of a downstream task: its examples by split, and its scores.

A new task defines how its files are read and which scores it reports; its kind (`bertjax/tasks/kinds/`) does the rest.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic

from bertjax.tasks.kinds.base import ExampleT, TaskKind
from bertjax.tasks.scores import Score


@dataclass(frozen=True)
class TaskExamples(Generic[ExampleT]):
    """A task bound to its data.

    Attributes:
      name: name of the task.
      kind: kind of the task.
      labels: class names in the order of the model's outputs; () if the kind has no classes.
      read: split → examples; raises UserError with the file and the place of an invalid example.
      score: (examples, values of their predictions) → scores by name, in percent.
      metric: the score that selects the best run.
      dev: splits that are scored; the first selects the best run.
      test: splits that are predicted for a submission; they may lack labels.
      choices: sequences per example: choices, or separately encoded texts.
    """

    name: str
    kind: TaskKind[ExampleT]
    labels: tuple[str, ...]
    read: Callable[[str], list[ExampleT]]
    score: Score
    metric: str
    dev: tuple[str, ...] = ("dev",)
    test: tuple[str, ...] = ("test",)
    choices: int = 1
