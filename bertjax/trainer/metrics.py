"""Where a run's numbers go: JSON lines and TensorBoard.

`metrics.jsonl` is what the mathematics says and is the same for every run of the same config; `perf.jsonl` is what the
clock says.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from bertjax import decoding, host_tensorflow
from bertjax.decoding import Count, DecodingError, ShortText, Written
from bertjax.errors import UserError
from bertjax.parallel import processes
from bertjax.storage.files import file_sha256, written_whole

_MAX_BYTES = 2**31
_NOTHING = hashlib.sha256(b"").hexdigest()
_CURE = "put it back as it was, or, if you edited it, run python -m bertjax.convert --reseal --from=WORKDIR"


@dataclasses.dataclass(frozen=True)
class _Head:
    step: Count


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
        with errors_explained(workdir):
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
        with errors_explained(self._workdir):
            for tracker in self._trackers:
                act(tracker)


class _JsonLines:
    """A file with a line of JSON per step, of the values whose names are chosen."""

    def __init__(self, path: Path, resume_step: int, chosen: Callable[[str], bool]) -> None:
        """Opens the file and cuts it back to what lies at or before `resume_step`."""
        known = resume_step and path.exists()
        kept = [line for line, record in _lines(path) if record["step"] <= resume_step] if known else []
        with written_whole(path) as temporary:  # in place of a link, too, whose file stays as it is
            temporary.write_bytes(b"".join(kept))
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


@contextlib.contextmanager
def errors_explained(workdir: Path) -> Iterator[None]:
    """Turns an OSError about the metrics of a workdir into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write the metrics in {workdir}: {error.strerror}; "
            "put that right and run the same command again, it continues from the last checkpoint"
        ) from error


def read(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics file, ascending by step; a tail that is damaged, or was cut off, is left out.

    Raises:
      UserError: it cannot be read, or a record stands behind a line that is none.
    """
    return [record for _, record in _lines(Path(path))]


def _lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """(line, record) of a metrics file; see `read`."""
    last, broken, cure = 0, None, "delete the line"
    for number, line in enumerate(decoding.read_bytes(path, cure, _MAX_BYTES).split(b"\n")[:-1], 1):
        where = f"{path}, line {number}"
        try:
            record = decoding.parse(line, where, cure)
            step = decoding.convert(record, _Head, where, cure, foreign=True).step
            decoding.convert(record, dict[ShortText, float], where, cure)
            if step < last:
                raise DecodingError(f"step: {step} behind {last}", where, cure)
        except DecodingError as error:
            broken = broken or error
            continue
        if broken:
            raise broken
        last = step
        yield line + b"\n", record


def written(path: Path) -> Written:
    """What a checkpoint records of a metrics file as it is on disk now."""
    return Written(path.stat().st_size, file_sha256(path)) if path.exists() else Written(0, _NOTHING)


def written_until(path: Path, step: int) -> Written:
    """What the checkpoint of a step must record of a metrics file that was edited on purpose.

    Raises:
      UserError: as `read`.
    """
    lines = list(_lines(path)) if path.exists() else []
    kept = b"".join(line for line, record in lines if record["step"] <= step)
    return Written(len(kept), hashlib.sha256(kept).hexdigest())


def cut_back(path: Path, known: Written) -> None:
    """Cuts a metrics file back to what it held at the checkpoint that the run continues from.

    Raises:
      UserError: the file is not as it was then, or cannot be written.
    """
    content = decoding.read_bytes(path, _CURE, _MAX_BYTES)[: known.bytes] if known.bytes else b""
    if hashlib.sha256(content).hexdigest() != known.sha256:
        problem = f"its first {known.bytes:,} bytes are not those of the checkpoint that is continued"
        raise DecodingError(problem, path, _CURE)
    with errors_explained(path.parent), written_whole(path) as temporary:
        temporary.write_bytes(content)
