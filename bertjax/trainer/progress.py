"""Progress of a run, as a bar or as log lines."""

import contextlib
import logging
from collections.abc import Callable, Iterator

_LOG = logging.getLogger(__name__)


@contextlib.contextmanager
def progress_bar(total: int, start: int, show_bar: bool) -> Iterator[Callable[..., None]]:
    """Yields a function `show(step, text="")` that moves a bar on stderr and shows a text beside it.

    Without a bar, `show` logs a line for each text.
    """
    if not show_bar:

        def log(step: int, text: str = "") -> None:
            if text:
                _LOG.info(f"step {step}/{total}: {text}")

        yield log
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as bar:
        task = bar.add_task("step", total=total, completed=start, text="")

        def show(step: int, text: str = "") -> None:
            bar.update(task, completed=step)
            if text:
                bar.update(task, text=text)

        yield show
