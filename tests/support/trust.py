"""One damaged file after the other, read as bertjax reads it: each is refused, or read as equal, or a failure.

The kinds of files are in `trusted_files.py`. A damaged file is made from (seed, kind, number) alone, so that any
failure can be made again: `python benchmarks/fuzz_files.py --kinds=KIND --seed=SEED --only=NUMBER`.
"""

import contextlib
import dataclasses
import json
import os
import random
import resource
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from bertjax.checkpoints.store import BrokenCheckpoint
from bertjax.errors import UserError, one_line
from tests.support.damage import damaged_bytes, damaged_json, resealed

# A folder that no disk slows down, where there is one; None: that of temporary files.
MEMORY = next((folder for folder in ("/dev/shm",) if os.access(folder, os.W_OK)), None)
SECONDS = 20  # more for one small file is a hang
MEGABYTES = 300  # more for one small file is too much


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
      name: of the kind.
      make: writes whole files into a folder; returns the names of those to damage.
      read: what bertjax reads there.
      trust: "sealed": equal or refused; "sealed again": the seal is made new after the damage, so that what is read
        only must not contradict itself; "foreign": any value, or refused.
      agrees: whether a value that was read from a file "sealed again" fits the rest of the folder.
      seal: of values that were damaged.
      share: one of so many inputs is tried, where reading is slow.
    """

    name: str
    make: Callable[[Path], Sequence[str]]
    read: Callable[[Path], Any]
    trust: str = "sealed"
    agrees: Callable[[Any, Any], bool] = lambda value, whole: True
    seal: Callable[[dict[str, Any]], dict[str, Any]] = resealed
    share: int = 1


@dataclasses.dataclass
class Report:
    """What came of the inputs of a kind."""

    inputs: int = 0
    outcomes: Counter = dataclasses.field(default_factory=Counter)  # equal, different, accepted, refused, failed
    failures: dict[str, list[int]] = dataclasses.field(default_factory=dict)  # what happened → the inputs
    slowest: tuple[float, int] = (0.0, -1)  # seconds, the input
    memory: float = 0.0  # MB, by which the highest memory of the process has grown


class Trial:
    """A folder with the whole files of a kind, in which one at a time is damaged and read."""

    def __init__(self, kind: Kind, folder: Path, seed: int):
        self.kind, self.folder, self.seed = kind, folder / "trusted", seed
        folder = self.folder
        folder.mkdir(parents=True, exist_ok=True)
        self.files = {name: (folder / name).read_bytes() for name in kind.make(folder)}
        self.whole = kind.read(folder)
        self._whole = canonical(self.whole)

    def damaged(self, number: int) -> tuple[str, bytes]:
        """(file, content) of the input of this number."""
        draw = random.Random(f"{self.seed} {self.kind.name} {number}")
        name = draw.choice(list(self.files))
        seal = self.kind.seal if self.kind.trust == "sealed again" else None
        return name, damaged_file(name, self.files[name], draw, seal)

    def outcome(self, number: int) -> tuple[str, str]:
        """(equal, different, accepted, refused or failed; what failed, in a line) of one input."""
        name, content = self.damaged(number)
        path = self.folder / name
        path.write_bytes(content)
        try:
            with _limited():
                return self._judged(self.kind.read(self.folder))
        except (UserError, BrokenCheckpoint) as error:
            problem = message_problem(error, self.folder)
            return ("failed", problem) if problem else ("refused", "")
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # panics of libraries in Rust are no Exceptions
            return "failed", _describe(error)
        finally:
            path.write_bytes(self.files[name])

    def _judged(self, value: Any) -> tuple[str, str]:
        if self.kind.trust == "foreign":
            return "accepted", ""
        if canonical(value) == self._whole:
            return "equal", ""
        if self.kind.trust == "sealed again" and self.kind.agrees(value, self.whole):
            return "accepted", ""
        return "different", "another value in silence"

    def run(self, numbers: range, before: Callable[[int], None] = lambda number: None) -> Report:
        """Tries inputs; `before` is told of each."""
        report = Report()
        memory = start = _peak()
        for number in numbers:
            before(number)
            begin = time.perf_counter()
            outcome, problem = self.outcome(number)
            report.slowest = max(report.slowest, (time.perf_counter() - begin, number))
            if (grown := _peak()) - memory > MEGABYTES:
                outcome, problem = "failed", f"took {MEGABYTES} MB and more"
            memory = grown
            report.inputs += 1
            report.outcomes[outcome] += 1
            if problem:
                report.failures.setdefault(problem, []).append(number)
        report.memory = memory - start
        return report


def canonical(value: Any) -> str:
    """A value as text that is equal where values are, and their types."""
    return json.dumps(msgspec.to_builtins(value, enc_hook=lambda other: other.tolist()), sort_keys=True)


def message_problem(error: Exception, folder: Path) -> str:
    """What is wrong with how a file was refused; "" if nothing is."""
    line = one_line(str(error))
    if isinstance(error, BrokenCheckpoint):  # who tries one after the other names it
        return ""
    if folder.name not in line:
        return f"names no file: {line[:200]!r}"
    return "" if ";" in line else f"names no cure: {line[:200]!r}"


def damaged_file(name: str, content: bytes, draw: random.Random, seal: Callable[..., Any] | None = None) -> bytes:
    """The damaged content of a file, by what its name says that it holds; `seal` as in `damaged_json`."""
    if not seal and draw.random() < 0.4:
        return damaged_bytes(content, draw)
    if name.endswith((".json", "metadata")):
        return damaged_json(json.loads(content), draw, seal)
    if name.endswith(".jsonl"):
        lines = content.splitlines()
        at = draw.randrange(len(lines))
        lines[at] = damaged_json(json.loads(lines[at]), draw, seal).replace(b"\n", b" ")
        return b"\n".join(lines) + b"\n"
    if name.endswith(".safetensors"):
        size = int.from_bytes(content[:8], "little")
        header = damaged_json(json.loads(content[8 : 8 + size]), draw)
        return len(header).to_bytes(8, "little") + header + content[8 + size :]
    return damaged_bytes(content, draw)


def _describe(error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "bertjax/" in frame.filename]
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    return f"{type(error).__name__} in {place}: {' '.join(str(error).split())[:120]}"


def _peak() -> float:
    """The highest memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """Ends what takes too long, where Python gets to run."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
