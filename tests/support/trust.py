"""Reads damaged files with bertjax's readers: each is refused, read as equal, or a failure.

The kinds of files are in `trusted_files.py`. A damaged file depends only on (seed, kind, number), so that every failure
can be reproduced: `python benchmarks/fuzz_files.py --kinds=KIND --seed=SEED --only=NUMBER`.
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

# A folder in memory if there is one; None: the default folder for temporary files.
MEMORY = next((folder for folder in ("/dev/shm",) if os.access(folder, os.W_OK)), None)
SECONDS = 20  # time limit per file
MEGABYTES = 300  # limit of additional memory per file


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
      name: name of the kind.
      make: writes undamaged files into a folder; returns the names of those to damage.
      read: reads the folder with bertjax.
      trust: "sealed": must be equal or refused; "sealed again": resealed after the damage, must be refused or
        consistent with the other files; "foreign": any value, or refused.
      agrees: whether a value from a file "sealed again" is consistent with the undamaged value.
      seal: seals damaged values.
      share: tries one of `share` inputs, if reading is slow.
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
    """The outcomes of the inputs of a kind."""

    inputs: int = 0
    outcomes: Counter = dataclasses.field(default_factory=Counter)  # equal, different, accepted, refused, failed
    failures: dict[str, list[int]] = dataclasses.field(default_factory=dict)  # failure → inputs
    slowest: tuple[float, int] = (0.0, -1)  # seconds, input
    memory: float = 0.0  # MB, growth of the peak memory of the process


class Trial:
    """A folder with the files of a kind, one of which at a time is damaged and read."""

    def __init__(self, kind: Kind, folder: Path, seed: int):
        self.kind, self.folder, self.seed = kind, folder / "trusted", seed
        folder = self.folder
        folder.mkdir(parents=True, exist_ok=True)
        self.files = {name: (folder / name).read_bytes() for name in kind.make(folder)}
        self.whole = kind.read(folder)
        self._whole = canonical(self.whole)

    def damaged(self, number: int) -> tuple[str, bytes]:
        """Returns (file, damaged content) of the input with this number."""
        rng = random.Random(f"{self.seed} {self.kind.name} {number}")
        name = rng.choice(list(self.files))
        seal = self.kind.seal if self.kind.trust == "sealed again" else None
        return name, damaged_file(name, self.files[name], rng, seal)

    def outcome(self, number: int) -> tuple[str, str]:
        """Tries one input; returns equal, different, accepted, refused or failed, and the failure in a line."""
        name, content = self.damaged(number)
        path = self.folder / name
        path.write_bytes(content)
        try:
            with _limited():
                return self._outcome_of_value(self.kind.read(self.folder))
        except (UserError, BrokenCheckpoint) as error:
            problem = message_problem(error, self.folder)
            return ("failed", problem) if problem else ("refused", "")
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # panics of Rust libraries are not Exceptions
            return "failed", _describe(error)
        finally:
            path.write_bytes(self.files[name])

    def _outcome_of_value(self, value: Any) -> tuple[str, str]:
        if self.kind.trust == "foreign":
            return "accepted", ""
        if canonical(value) == self._whole:
            return "equal", ""
        if self.kind.trust == "sealed again" and self.kind.agrees(value, self.whole):
            return "accepted", ""
        return "different", "read another value without an error"

    def run(self, numbers: range, before: Callable[[int], None] = lambda number: None) -> Report:
        """Tries inputs; calls `before` with the number of each."""
        report = Report()
        memory = start = _peak()
        for number in numbers:
            before(number)
            begin = time.perf_counter()
            outcome, problem = self.outcome(number)
            report.slowest = max(report.slowest, (time.perf_counter() - begin, number))
            if (grown := _peak()) - memory > MEGABYTES:
                outcome, problem = "failed", f"took more than {MEGABYTES} MB"
            memory = grown
            report.inputs += 1
            report.outcomes[outcome] += 1
            if problem:
                report.failures.setdefault(problem, []).append(number)
        report.memory = memory - start
        return report


def canonical(value: Any) -> str:
    """Returns a text that is equal for equal values of equal types."""
    return json.dumps(msgspec.to_builtins(value, enc_hook=lambda other: other.tolist()), sort_keys=True)


def message_problem(error: Exception, folder: Path) -> str:
    """What is missing in the message of a refusal; "" if nothing is."""
    line = one_line(str(error))
    if isinstance(error, BrokenCheckpoint):  # the caller names the checkpoint
        return ""
    if folder.name not in line:
        return f"names no file: {line[:200]!r}"
    return "" if ";" in line else f"names no remedy: {line[:200]!r}"


def damaged_file(name: str, content: bytes, rng: random.Random, seal: Callable[..., Any] | None = None) -> bytes:
    """Returns damaged content of a file, depending on its name; `seal` as in `damaged_json`."""
    if not seal and rng.random() < 0.4:
        return damaged_bytes(content, rng)
    if name.endswith((".json", "metadata")):
        return damaged_json(json.loads(content), rng, seal)
    if name.endswith(".jsonl"):
        lines = content.splitlines()
        at = rng.randrange(len(lines))
        lines[at] = damaged_json(json.loads(lines[at]), rng, seal).replace(b"\n", b" ")
        return b"\n".join(lines) + b"\n"
    if name.endswith(".safetensors"):
        size = int.from_bytes(content[:8], "little")
        header = damaged_json(json.loads(content[8 : 8 + size]), rng)
        return len(header).to_bytes(8, "little") + header + content[8 + size :]
    return damaged_bytes(content, rng)


def _describe(error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "bertjax/" in frame.filename]
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    return f"{type(error).__name__} in {place}: {' '.join(str(error).split())[:120]}"


def _peak() -> float:
    """The peak memory of this process, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """Raises TimeoutError after SECONDS, as soon as Python code runs."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
