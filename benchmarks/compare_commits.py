"""Runs small cases in the trees of two commits and compares the results; called by compare_commits.sh.

python benchmarks/compare_commits.py WORKDIR OLD NEW [--data=DIR] [--only=CASE,…]

WORKDIR/OLD/tree and WORKDIR/NEW/tree hold the files of the commits, WORKDIR/OLD/CASE/ the results of a case. Results
are reused while the command lines of the case and its dependencies, and the versions of the libraries, are the same.
"""

import argparse
import dataclasses
import fcntl
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from compare_cases import CASES, PLACEHOLDER, Case, write_questions

LIBRARIES = ("jax", "jaxlib", "numpy", "orbax-checkpoint", "tokenizers", "sentencex")  # whose versions affect results
TIMEOUT = 1200  # seconds per command
STOPPED = threading.Event()
CHILDREN: set[subprocess.Popen] = set()  # terminated with this process

# Prints the keys of a config file, one per line.
KEYS = """
import runpy, sys
def walk(values, path):
    for key, value in values.items():
        print(path + key)
        if isinstance(value, dict):
            walk(value, path + key + ".")
file, _, argument = sys.argv[1].partition(":")
walk(runpy.run_path(file)["get_config"](*filter(None, [argument])).to_dict(), "")
"""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of a case at a commit: a digest of its command line, its duration, and the error if any."""

    identity: str = ""
    seconds: float = 0.0
    reused: bool = False  # from an earlier call
    error: str = ""

    @property
    def duration(self) -> str:
        """The duration, for a message."""
        return f"{self.seconds:.0f} s{' (reused)' if self.reused else ''}"


@dataclasses.dataclass(frozen=True)
class Side:
    """A commit, old or new: `folder/tree` holds its files, `places` are the input folders of its cases."""

    name: str
    folder: Path
    places: dict[str, Path]

    def python(self, *words: str, **options: Any) -> subprocess.Popen:
        """Starts Python with the code of the tree; both commits share a compilation cache."""
        tree, compiled = self.folder / "tree", self.folder.parent / "xla"
        settings = {"PYTHONPATH": tree, "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": compiled}
        environment = os.environ | {name: str(value) for name, value in settings.items()}
        return subprocess.Popen([sys.executable, *words], cwd=tree, env=environment, **options)

    def output(self, *words: str) -> str:
        """Runs Python with the code of the tree and returns its stdout."""
        with self.python(*words, text=True, stdout=subprocess.PIPE) as child:
            printed = child.communicate()[0]
        if child.returncode:
            raise ValueError(f"{' '.join(words)[:60]}: exit code {child.returncode}")
        return printed

    def arguments(self, case: Case) -> list[str]:
        """The command line with the names of this tree, and with placeholders."""
        module = ("-m", f"bertjax.{case.module}")
        flag_names = functools.cache(lambda: re.findall(r"--(?:\[no\])?(\w+)", self.output(*module, "--help")))
        flags = {choose_name(names, flag_names): value for names, value in case.flags.items()}
        if "config" in flags:
            file, *argument = flags["config"].split(":")
            existing = [name for name in file.split("|") if (self.folder / "tree" / name).is_file()]
            flags["config"] = ":".join([choose_name(file, lambda: existing), *argument])
        keys = functools.cache(lambda: self.output("-c", KEYS, flags["config"]).split())
        flags |= {f"config.{choose_name(names, keys)}": value for names, value in case.settings.items()}
        return [*module, *case.words, *(f"--{name}={value}" for name, value in flags.items())]

    def run(self, name: str, dependencies: list["Future[Outcome]"]) -> Outcome:
        """Runs a case after its dependencies, unless an earlier call has its results."""
        outcomes = [future.result() for future in dependencies]
        if failed := next((outcome for outcome in outcomes if outcome.error), None):
            return failed
        try:
            arguments = self.arguments(CASES[name])
        except ValueError as error:
            return Outcome(error=f"{name} at {self.name}: {error}")
        machine = [platform.python_version(), *map(importlib.metadata.version, LIBRARIES), os.environ.get("XLA_FLAGS")]
        inputs = [str(self.places[need]) for need in sorted(CASES[name].needs - CASES.keys())]
        stamp = json.dumps([arguments, machine, inputs, [outcome.identity for outcome in outcomes]])
        identity = hashlib.sha256(stamp.encode()).hexdigest()
        record = self.folder / name / "done.json"
        if record.is_file() and (done := json.loads(record.read_text()))["identity"] == identity:
            return Outcome(**done, reused=True)
        begin = time.monotonic()
        error = self.execute(name, arguments)
        if STOPPED.is_set():  # a stopped training exits with 0
            error = "stopped"
        if error:
            return Outcome(error=f"{name} at {self.name}: {error}")
        done = {"identity": identity, "seconds": round(time.monotonic() - begin, 1)}
        record.write_text(json.dumps(done))
        print(f"{name} at {self.name}: done", file=sys.stderr, flush=True)
        return Outcome(**done)

    def execute(self, name: str, arguments: list[str]) -> str:
        """Runs the command in an empty folder; returns an error message, "" on success."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        places = self.places | {case: self.folder / case / "out" for case in CASES} | {"here": folder / "out"}
        words = [PLACEHOLDER.sub(lambda match: str(places[match[1]]), word) for word in arguments]
        with (folder / "stdout").open("w") as stdout, (folder / "stderr").open("w") as stderr:
            child = self.python(*words, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)
            CHILDREN.add(child)
            try:
                code = child.wait(TIMEOUT)
            except subprocess.TimeoutExpired:
                child.kill()
                return f"timeout after {TIMEOUT} s"
            finally:
                CHILDREN.discard(child)
        last_line = (folder / "stderr").read_text().strip().splitlines()[-1:]
        return f"exit code {code}; {' '.join(last_line)}" if code else ""


def choose_name(names: str, available: Callable[[], list[str]]) -> str:
    """Returns the name of `old|new` that a tree has, the new one if it has both."""
    if "|" not in names:
        return names
    existing = [name for name in names.split("|") if name in available()]
    if not existing:
        raise ValueError(f"{names}: none of these names exists")
    return existing[-1]


def with_dependencies(name: str) -> set[str]:
    """A case and all cases it depends on."""
    return {name}.union(*(with_dependencies(need) for need in CASES[name].needs & CASES.keys()))


def make_pool() -> ThreadPoolExecutor:
    """Returns two workers, each pinned to one core where supported, for equal numbers of threads at both commits."""
    cores: queue.SimpleQueue[int] = queue.SimpleQueue()
    for core in sorted(os.sched_getaffinity(0))[:2] if hasattr(os, "sched_setaffinity") else ():
        cores.put(core)
    count = cores.qsize()
    print(f"{count or 2} cases in parallel, {'each pinned to one core' if count else 'not pinned'}", flush=True)
    # Affinity is per thread; the processes that a thread starts inherit it.
    return ThreadPoolExecutor(count or 2, initializer=lambda: count and os.sched_setaffinity(0, {cores.get()}))


def compare(name: str, sides: list[Side], outcomes: list[Outcome]) -> tuple[str, str]:
    """Returns a verdict, and the durations with the first difference or the error."""
    if failed := next((outcome for outcome in outcomes if outcome.error), None):
        return "FAILED", failed.error
    try:
        difference = CASES[name].compare(*(side.folder / name for side in sides))
    except (OSError, ValueError, KeyError) as error:  # a file is missing or has another format at one commit
        difference = f"{type(error).__name__}: {error}"
    durations = ", ".join(f"{side.name} {outcome.duration}" for side, outcome in zip(sides, outcomes, strict=True))
    return ("DIFFERS", f"({durations}) {difference}") if difference else ("OK", f"({durations})")


def main() -> int:
    """Runs the cases at both commits, two at a time, prints one line per case, and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("commits", nargs=2, metavar="COMMIT")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--only", default=",".join(CASES))
    arguments = parser.parse_args()
    chosen = [name for name in CASES if name in arguments.only.split(",")]
    if unknown := set(arguments.only.split(",")) - CASES.keys():
        parser.error(f"--only: no such case: {', '.join(unknown)}; expected some of {', '.join(CASES)}")

    # -- inputs and trees
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = os.open(arguments.workdir, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until this process ends
    except BlockingIOError:
        parser.error(
            f"{arguments.workdir}: in use by another comparison; wait for its end, or choose another --workdir"
        )
    places = {"questions": write_questions(arguments.workdir.absolute() / "questions")}
    if arguments.data:
        places["data"] = arguments.data.absolute()
    if package := importlib.util.find_spec("cognition"):  # real weights, which launch/test.sh installs
        places["weights"] = Path(package.submodule_search_locations[0]) / "model"
    workdir = arguments.workdir.absolute()
    sides = [Side(*side, places) for side in zip(("old", "new"), map(workdir.joinpath, arguments.commits), strict=True)]
    for side in sides:
        module_file = side.output("-c", "import bertjax; print(bertjax.__file__)").strip()
        if not Path(module_file).is_relative_to(side.folder / "tree"):
            parser.error(
                f"bertjax is imported from {module_file}, not from {side.folder / 'tree'}; set PYTHON to another Python"
            )
    inputs = {
        name: {need for case in with_dependencies(name) for need in CASES[case].needs} - CASES.keys() for name in chosen
    }
    missing = {name: needs - places.keys() for name, needs in inputs.items() if needs - places.keys()}
    selected = set().union(*(with_dependencies(name) for name in chosen if name not in missing))

    # -- run and compare
    running: dict[tuple[str, str], Future[Outcome]] = {}
    verdicts = set()
    with make_pool() as pool:
        for side in sides:  # in sequence: the second then finds compiled programs in the cache
            for name in filter(selected.__contains__, CASES):
                dependencies = [running[side.name, need] for need in sorted(CASES[name].needs & CASES.keys())]
                running[side.name, name] = pool.submit(side.run, name, dependencies)
        try:
            for name in chosen:
                if name in missing:
                    verdict, details = "SKIPPED", f"without {' and '.join(sorted(missing[name]))}"
                else:
                    verdict, details = compare(name, sides, [running[side.name, name].result() for side in sides])
                verdicts.add(verdict)
                print(f"{name:17} {verdict:7} {details}", flush=True)
        except KeyboardInterrupt:
            STOPPED.set()
            pool.shutdown(wait=False, cancel_futures=True)
            for child in tuple(CHILDREN):
                child.terminate()
            print("stopped; with --workdir the same command continues", file=sys.stderr)
            return 130
    return 1 if verdicts & {"DIFFERS", "FAILED"} else 3 if "SKIPPED" in verdicts else 0


if __name__ == "__main__":
    sys.exit(main())
