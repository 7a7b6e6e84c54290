"""The progress of a run."""

import logging

_LOG = logging.getLogger(__name__)


class Progress:
    """A progress bar on stderr, or log lines without one."""

    def __init__(self, total: int, start: int, show_bar: bool) -> None:
        self._total, self._bar = total, None
        if show_bar:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task("step", total=total, completed=start, text="")

    def __enter__(self) -> "Progress":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar:
            self._bar.stop()

    def step(self, step: int) -> None:
        """Moves the bar."""
        if self._bar:
            self._bar.update(self._task, completed=step)

    def report(self, step: int, text: str) -> None:
        """Shows `text` for `step`: beside the bar, or as a log line."""
        if self._bar:
            self._bar.update(self._task, completed=step, text=text)
        else:
            _LOG.info(f"step {step}/{self._total}: {text}")
