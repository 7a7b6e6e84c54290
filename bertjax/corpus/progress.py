"""Progress display and interruption of a corpus build."""

import logging
import signal
import time

_LOG = logging.getLogger(__name__)


class BuildProgress:
    """Shows the progress of a build as a bar, or as a line every ten seconds. SIGTERM interrupts it like Ctrl-C.

    Attributes:
      megabytes_per_second: speed of this call over all stages, in MB of tokenized text; 0 if there was nothing to do.
        Set on exit.
    """

    _SECONDS = 10.0

    def __init__(self, show_bar: bool):
        self._show_bar = show_bar
        self._start = self._last = time.monotonic()
        self._megabytes = self.megabytes_per_second = 0.0
        self._bar = None
        self._stage = None

    def __enter__(self) -> "BuildProgress":
        self._previous_handler = signal.signal(signal.SIGTERM, signal.default_int_handler)
        if self._show_bar:
            from rich import progress
            from rich.console import Console

            columns = (
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.TextColumn("{task.completed:,.0f} documents {task.fields[speed]}"),
                progress.TimeElapsedColumn(),
                progress.TimeRemainingColumn(),
            )
            self._bar = progress.Progress(*columns, console=Console(stderr=True))
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        signal.signal(signal.SIGTERM, self._previous_handler)
        self.megabytes_per_second = self._megabytes / (time.monotonic() - self._start)
        if self._bar:
            self._bar.stop()
        if kind is KeyboardInterrupt:
            _LOG.info("interrupted; run the same command again to resume")

    def __call__(self, stage: str, done: int, total: int, megabytes: float) -> None:
        """Shows the progress; the arguments are those of `build.Progress`."""
        now = time.monotonic()
        self._megabytes = megabytes
        if stage == self._stage and done != total and now - self._last < (0.1 if self._bar else self._SECONDS):
            return
        self._last = now
        speed = f"{megabytes / (now - self._start):.1f} MB/s" if megabytes else ""
        if self._bar is None:
            count = f": {done:,}{f' of {total:,}' if total else ''} documents {speed}".rstrip() if done else ""
            _LOG.info(f"{stage}{count}")
        elif stage != self._stage:
            for task in self._bar.task_ids:
                self._bar.remove_task(task)
            self._task = self._bar.add_task(stage, completed=done, total=total or None, speed=speed)
        else:
            self._bar.update(self._task, completed=done, total=total or None, speed=speed)
        self._stage = stage
