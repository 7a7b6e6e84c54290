"""How far a run is: a bar on a terminal, lines elsewhere."""

from types import TracebackType

from bertjax.cli import say, show_progress


class Progress:
    """A bar on a terminal, or lines where there is none; nothing at all where it is not `shown`."""

    def __init__(self, total: int, start: int, shown: bool = True) -> None:
        self._total, self._shown, self._bar = total, shown, None
        if shown and show_progress():
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def step(self, step: int) -> None:
        """Moves the bar."""
        if self._bar:
            self._bar.update(self._task, completed=step)

    def report(self, step: int, text: str) -> None:
        """Says something about `step`: beside the bar, or as a line."""
        if self._bar:
            self._bar.update(self._task, completed=step, text=text)
        elif self._shown:
            say(f"step {step}/{self._total}: {text}")

    def line(self, text: str) -> None:
        """A line that stays, above the bar."""
        if self._bar:
            self._bar.console.print(text, markup=False, highlight=False)
        elif self._shown:
            say(text)
