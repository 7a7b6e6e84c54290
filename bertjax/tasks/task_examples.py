"""What a downstream task is: examples by split, and how predictions are scored.

Adding a task means saying how its files are read and which scores count; everything else follows from its kind
(`bertjax/tasks/kinds/`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bertjax.tasks.kinds.base import TaskKind


@dataclass(frozen=True)
class TaskExamples:
    """A task bound to its data."""

    name: str
    kind: TaskKind
    labels: tuple[str, ...]  # the classes, in the order of a model's outputs; () where there are none
    read: Callable[[str], list[Any]]  # split → its examples; UserError for what is wrong with a file, with its row
    score: Callable[[Sequence[Any], Sequence[Any]], dict[str, float]]  # (examples, predictions) → by name, in per cent
    metric: str  # the score that chooses among runs
    dev: tuple[str, ...] = ("dev",)  # the splits that are scored; the first one chooses
    test: tuple[str, ...] = ("test",)  # those to predict for a submission; may be without labels
    choices: int = 1  # rows per example: the number of choices, or of texts that are encoded on their own
