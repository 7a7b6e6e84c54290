"""Where a run's numbers go: JSON lines and TensorBoard.

`metrics.jsonl` is what the mathematics says and is the same for every run of the same config; `perf.jsonl` is what the
clock says.
"""

import contextlib
import errno
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from bertjax import host_tensorflow
from bertjax.errors import UserError
from bertjax.parallel import processes
from bertjax.storage.files import write_text


class Tracker(Protocol):
    """A place where the metrics of a run go, continued after a step; its methods may raise OSError."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the values of a step."""

    def sync(self) -> None:
        """Puts everything written so far on disk."""

    def close(self) -> None:
        """Writes what is left and closes it."""


def open_trackers(workdir: Path, resume_step: int) -> list[Tracker]:
    """All places where metrics go; another tracker is one more entry."""
    return [
        _JsonLines(workdir / "metrics.jsonl", resume_step, lambda name: not name.startswith("perf/")),
        _JsonLines(workdir / "perf.jsonl", resume_step, lambda name: name.startswith("perf/")),
        _TensorBoard(workdir / "tensorboard", resume_step),
    ]


class MetricsWriter:
    """Writes the metrics of a run to all its trackers; in other processes than the first it writes nothing."""

    def __init__(self, workdir: Path, resume_step: int) -> None:
        """Opens the trackers, to continue after `resume_step`.

        Raises:
          UserError: they cannot be written.
        """
        self._workdir = workdir
        with self._errors_explained():
            self._trackers = open_trackers(workdir, resume_step) if processes.is_first() else []

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the values of a step, by name: `train/…`, `eval/…`, `perf/…`.

        Raises:
          UserError: the disk is full, or the files may not be written any more.
        """
        self._each(lambda tracker: tracker.write(step, values))

    def sync(self) -> None:
        """Puts everything written so far on disk, as a checkpoint must not know more than the metrics.

        Raises:
          UserError: it does not get there, the disk being full for instance.
        """
        self._each(lambda tracker: tracker.sync())

    def close(self) -> None:
        """Closes the trackers.

        Raises:
          UserError: what was still to be written cannot be.
        """
        self._each(lambda tracker: tracker.close())

    def _each(self, act: Callable[[Tracker], None]) -> None:
        with self._errors_explained():
            for tracker in self._trackers:
                act(tracker)

    @contextlib.contextmanager
    def _errors_explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"cannot write the metrics in {self._workdir}: {error.strerror}; "
                "put that right and run the same command again, it continues from the last checkpoint"
            ) from error


class _JsonLines:
    """A file with a line of JSON per step, of the values whose names are chosen."""

    def __init__(self, path: Path, resume_step: int, chosen: Callable[[str], bool]) -> None:
        """Opens the file and cuts it back to what lies at or before `resume_step`."""
        if path.exists():
            kept = [record for record in read(path) if record["step"] <= resume_step]
            write_text(path, "".join(json.dumps(record) + "\n" for record in kept))
        self.file, self._chosen = path.open("a"), chosen

    def write(self, step: int, values: Mapping[str, float]) -> None:
        chosen = {name: value for name, value in values.items() if self._chosen(name)}
        if chosen:
            self.file.write(json.dumps({"step": step} | chosen) + "\n")
            self.file.flush()

    def sync(self) -> None:
        os.fsync(self.file.fileno())

    def close(self) -> None:
        self.file.close()


class _TensorBoard:
    """An event file, written in the calling thread, so that a failed write is seen where it happens.

    It is opened, and TensorFlow imported, at the first write: nothing of that need be done before the first step.
    """

    def __init__(self, folder: Path, resume_step: int) -> None:
        self._folder, self._resume_step = folder, resume_step
        self._tf = self._writer = None

    def _open(self) -> None:
        self._tf = host_tensorflow.load()
        self._folder.mkdir(exist_ok=True)
        continues = any(self._folder.iterdir())  # also at step 0, after a run that ended before its first checkpoint
        with self._as_os_errors():
            self._writer = self._tf.io.TFRecordWriter(str(self._folder / f"events.out.tfevents.{time.time_ns()}"))
            self._event(file_version="brain.Event:2")
            if continues:  # TensorBoard forgets what an earlier file says of later steps
                start = self._tf.compat.v1.SessionLog(status="START")
                self._event(step=self._resume_step + 1, session_log=start)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        if not self._writer:
            self._open()
        scalars = [{"tag": name, "simple_value": value} for name, value in values.items()]
        with self._as_os_errors():
            self._event(step=step, summary=self._tf.compat.v1.Summary(value=scalars))
            self._writer.flush()

    def sync(self) -> None:
        """Does nothing: no checkpoint depends on the events."""

    def close(self) -> None:
        if self._writer:
            with self._as_os_errors():
                self._writer.close()

    def _event(self, **content: Any) -> None:
        self._writer.write(self._tf.compat.v1.Event(wall_time=time.time(), **content).SerializeToString())

    @contextlib.contextmanager
    def _as_os_errors(self) -> Iterator[None]:
        try:
            yield
        except self._tf.errors.OpError as error:
            raise OSError(errno.EIO, error.message) from error


def read(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics file; a last line that was cut off is left out."""
    records = []
    for line in Path(path).read_text().splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records
