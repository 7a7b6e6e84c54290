"""Metrics of a run, written as JSON lines and as TensorBoard events.

`metrics.jsonl` holds the results, which are equal for every run of the same config; `perf.jsonl` holds measurements of
time.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from bertjax import decoding
from bertjax.decoding import Count, DecodingError, FilePrefix, ShortText
from bertjax.errors import UserError
from bertjax.parallel import processes
from bertjax.storage.files import atomic_write, file_sha256

if TYPE_CHECKING:
    from tensorboard.summary.writer.record_writer import RecordWriter

Record: TypeAlias = dict[str, float]  # the metrics of a step by name, and "step", an int

_MAX_BYTES = 2**31
_SHA256_OF_NOTHING = hashlib.sha256(b"").hexdigest()
_REMEDY = "restore the file, or, if you edited it on purpose, run python -m bertjax.convert --reseal --from=WORKDIR"


@dataclasses.dataclass(frozen=True)
class _Head:
    step: Count


class Tracker(Protocol):
    """A destination for the metrics of a run, continued after a step; its methods may raise OSError."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the metrics of a step."""

    def sync(self) -> None:
        """Flushes everything written to disk."""

    def close(self) -> None:
        """Writes pending metrics and closes the tracker."""


def open_trackers(workdir: Path, resume_step: int) -> list[Tracker]:
    """Opens all trackers of a run; add a further one here."""
    return [
        _JsonLines(workdir / "metrics.jsonl", resume_step, lambda name: not name.startswith("perf/")),
        _JsonLines(workdir / "perf.jsonl", resume_step, lambda name: name.startswith("perf/")),
        _TensorBoard(workdir / "tensorboard", resume_step),
    ]


class MetricsWriter:
    """Writes the metrics of a run to all trackers; does nothing in processes other than the first."""

    def __init__(self, workdir: Path, resume_step: int) -> None:
        """Opens the trackers, to continue after `resume_step`.

        Raises:
          UserError: a tracker cannot be written.
        """
        self._workdir = workdir
        with _os_errors_as_user_errors(workdir):
            self._trackers = open_trackers(workdir, resume_step) if processes.is_first() else []

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the metrics of a step by name: `train/…`, `eval/…`, `perf/…`.

        Raises:
          UserError: the disk is full, or a file is no longer writable.
        """
        self._for_each(lambda tracker: tracker.write(step, values))

    def sync(self) -> None:
        """Flushes everything to disk; call it before saving a checkpoint, which must not be ahead of the metrics.

        Raises:
          UserError: the metrics cannot be flushed, e.g. because the disk is full.
        """
        self._for_each(lambda tracker: tracker.sync())

    def close(self) -> None:
        """Closes the trackers.

        Raises:
          UserError: pending metrics cannot be written.
        """
        self._for_each(lambda tracker: tracker.close())

    def _for_each(self, action: Callable[[Tracker], None]) -> None:
        with _os_errors_as_user_errors(self._workdir):
            for tracker in self._trackers:
                action(tracker)


class _JsonLines:
    """A file with one JSON object per line and step, with the metrics whose names are selected."""

    def __init__(self, path: Path, resume_step: int, selects: Callable[[str], bool]) -> None:
        """Opens the file and removes the lines after `resume_step`."""
        resumes = resume_step and path.exists()
        lines = [line for line, record in _lines(path) if record["step"] <= resume_step] if resumes else []
        with atomic_write(path) as temporary:  # replaces a symbolic link instead of writing to its target
            temporary.write_bytes(b"".join(lines))
        self.file, self._selects = path.open("a"), selects

    def write(self, step: int, values: Mapping[str, float]) -> None:
        selected = {name: value for name, value in values.items() if self._selects(name)}
        if selected:
            self.file.write(json.dumps({"step": step} | selected) + "\n")
            self.file.flush()

    def sync(self) -> None:
        os.fsync(self.file.fileno())

    def close(self) -> None:
        self.file.close()


class _TensorBoard:
    """An event file, written in the calling thread, so that a failed write raises where it happens.

    It is opened at the first write, to keep the import out of the time before the first step.
    """

    def __init__(self, folder: Path, resume_step: int) -> None:
        self._folder, self._resume_step = folder, resume_step
        self._writer: RecordWriter | None = None

    def _open(self) -> "RecordWriter":
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._folder.mkdir(exist_ok=True)
        continues = any(self._folder.iterdir())  # also at step 0, after a run that ended before its first checkpoint
        writer = RecordWriter((self._folder / f"events.out.tfevents.{time.time_ns()}").open("xb"))
        _write_event(writer, file_version="brain.Event:2")
        if continues:  # TensorBoard then drops the later steps of earlier files
            _write_event(writer, step=self._resume_step + 1, session_log={"status": "START"})
        return writer

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._writer = self._writer or self._open()
        scalars = [{"tag": name, "simple_value": value} for name, value in values.items()]
        _write_event(self._writer, step=step, summary={"value": scalars})
        self._writer.flush()

    def sync(self) -> None:
        """Does nothing: checkpoints do not depend on the events."""

    def close(self) -> None:
        if self._writer:
            self._writer.close()


def _write_event(writer: "RecordWriter", **content: object) -> None:
    from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]  # generated

    writer.write(Event(wall_time=time.time(), **content).SerializeToString())


@contextlib.contextmanager
def _os_errors_as_user_errors(workdir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{workdir}: cannot write the metrics ({error.strerror}); fix the cause and run the same command again, "
            "which continues from the last checkpoint"
        ) from error


def read(path: Path) -> list[Record]:
    """Returns the records of a metrics file, ascending by step; a damaged or truncated tail is left out.

    Raises:
      UserError: the file cannot be read, or a valid record follows an invalid line.
    """
    return [record for _, record in _lines(Path(path))]


def _lines(path: Path) -> Iterator[tuple[bytes, Record]]:
    """Yields (line, record) of a metrics file; see `read`."""
    last_step, first_error, remedy = 0, None, "delete the line"
    for number, line in enumerate(decoding.read_bytes(path, remedy, _MAX_BYTES).split(b"\n")[:-1], 1):
        where = f"{path}, line {number}"
        try:
            values = decoding.parse(line, where, remedy)
            step = decoding.convert(values, _Head, where, remedy, foreign=True).step
            record: Record = decoding.convert(values, dict[ShortText, float], where, remedy) | {"step": step}
            if step < last_step:
                raise DecodingError(f"step: {step} after {last_step}", where, remedy)
        except DecodingError as error:
            first_error = first_error or error
            continue
        if first_error:
            raise first_error
        last_step = step
        yield line + b"\n", record


def file_prefix(path: Path) -> FilePrefix:
    """Returns size and digest of a metrics file as it is on disk now, to be recorded in a checkpoint."""
    return FilePrefix(path.stat().st_size, file_sha256(path)) if path.exists() else FilePrefix(0, _SHA256_OF_NOTHING)


def prefix_until(path: Path, step: int) -> FilePrefix:
    """Returns size and digest of the lines up to `step`, for the checkpoint of a run whose metrics were edited.

    Raises:
      UserError: as `read`.
    """
    lines = list(_lines(path)) if path.exists() else []
    content = b"".join(line for line, record in lines if record["step"] <= step)
    return FilePrefix(len(content), hashlib.sha256(content).hexdigest())


def truncate(path: Path, prefix: FilePrefix) -> None:
    """Truncates a metrics file to the prefix that the checkpoint to continue from has recorded.

    Raises:
      UserError: the file does not begin with that prefix, or cannot be written.
    """
    content = decoding.read_bytes(path, _REMEDY, _MAX_BYTES)[: prefix.bytes] if prefix.bytes else b""
    if hashlib.sha256(content).hexdigest() != prefix.sha256:
        problem = f"its first {prefix.bytes:,} bytes differ from those that the checkpoint has recorded"
        raise DecodingError(problem, path, _REMEDY)
    with _os_errors_as_user_errors(path.parent), atomic_write(path) as temporary:
        temporary.write_bytes(content)
