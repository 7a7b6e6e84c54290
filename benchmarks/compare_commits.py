"""Runs small cases in the trees of two commits and compares what they leave; compare_commits.sh calls it.

python benchmarks/compare_commits.py WORKDIR OLD NEW [--data=DIR] [--only=CASE,…]

WORKDIR/OLD/tree and WORKDIR/NEW/tree hold the commits' files, WORKDIR/OLD/CASE/ what a case leaves. A case is not run
again as long as its command line, those of the cases it starts from, and the versions of the libraries stay the same.
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

from compare_cases import CASES, PLACE, Case, write_questions

DECIDING = ("jax", "jaxlib", "numpy", "orbax-checkpoint", "tokenizers", "sentencex")  # whose versions decide the bits
LIMIT = 1200  # seconds that a command may take
STOPPED = threading.Event()
CHILDREN: set[subprocess.Popen] = set()  # what runs, to be ended with this process

# Prints the keys of a config file, a line each.
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
    """Of a case at a commit: a digest of its command line, the seconds it took, and what went wrong."""

    identity: str = ""
    seconds: float = 0.0
    kept: bool = False  # from an earlier call
    error: str = ""

    @property
    def took(self) -> str:
        """To read."""
        return f"{self.seconds:.0f} s{' (kept)' if self.kept else ''}"


@dataclasses.dataclass(frozen=True)
class Side:
    """A commit, old or new: `folder/tree` has its files, `places` are the folders that its cases read."""

    name: str
    folder: Path
    places: dict[str, Path]

    def python(self, *words: str, **options: Any) -> subprocess.Popen:
        """Starts Python with the code of the tree; programs that both commits compile are compiled once."""
        tree, compiled = self.folder / "tree", self.folder.parent / "xla"
        settings = {"PYTHONPATH": tree, "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": compiled}
        environment = os.environ | {name: str(value) for name, value in settings.items()}
        return subprocess.Popen([sys.executable, *words], cwd=tree, env=environment, **options)

    def asked(self, *words: str) -> str:
        """What it prints."""
        with self.python(*words, text=True, stdout=subprocess.PIPE) as child:
            printed = child.communicate()[0]
        if child.returncode:
            raise ValueError(f"{' '.join(words)[:60]} ends with {child.returncode}")
        return printed

    def arguments(self, case: Case) -> list[str]:
        """The command line, as this tree spells it; its folders are still to be put in."""
        module = ("-m", f"bertjax.{case.module}")
        known = functools.cache(lambda: re.findall(r"--(?:\[no\])?(\w+)", self.asked(*module, "--help")))
        flags = {spelled(names, known): value for names, value in case.flags.items()}
        if "config" in flags:
            file, *argument = flags["config"].split(":")
            there = [name for name in file.split("|") if (self.folder / "tree" / name).is_file()]
            flags["config"] = ":".join([spelled(file, lambda: there), *argument])
        known = functools.cache(lambda: self.asked("-c", KEYS, flags["config"]).split())
        flags |= {f"config.{spelled(names, known)}": value for names, value in case.settings.items()}
        return [*module, *case.words, *(f"--{name}={value}" for name, value in flags.items())]

    def run(self, name: str, before: list["Future[Outcome]"]) -> Outcome:
        """Runs a case once those that it starts from are done, unless that was done by an earlier call."""
        outcomes = [future.result() for future in before]
        if broken := next((one for one in outcomes if one.error), None):
            return broken
        try:
            arguments = self.arguments(CASES[name])
        except ValueError as error:
            return Outcome(error=f"{name} at {self.name}: {error}")
        machine = [platform.python_version(), *map(importlib.metadata.version, DECIDING), os.environ.get("XLA_FLAGS")]
        read = [str(self.places[need]) for need in sorted(CASES[name].needs - CASES.keys())]
        stamp = json.dumps([arguments, machine, read, [one.identity for one in outcomes]])
        identity = hashlib.sha256(stamp.encode()).hexdigest()
        record = self.folder / name / "done.json"
        if record.is_file() and (done := json.loads(record.read_text()))["identity"] == identity:
            return Outcome(**done, kept=True)
        begin = time.monotonic()
        error = self.execute(name, arguments)
        if STOPPED.is_set():  # training then ends early, with exit code 0
            error = "stopped"
        if error:
            return Outcome(error=f"{name} at {self.name}: {error}")
        done = {"identity": identity, "seconds": round(time.monotonic() - begin, 1)}
        record.write_text(json.dumps(done))
        print(f"{name} at {self.name} is done", file=sys.stderr, flush=True)
        return Outcome(**done)

    def execute(self, name: str, arguments: list[str]) -> str:
        """Runs the command in an empty folder; says what went wrong, "" if nothing did."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        places = self.places | {case: self.folder / case / "out" for case in CASES} | {"here": folder / "out"}
        words = [PLACE.sub(lambda found: str(places[found[1]]), word) for word in arguments]
        with (folder / "stdout").open("w") as stdout, (folder / "stderr").open("w") as stderr:
            child = self.python(*words, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)
            CHILDREN.add(child)
            try:
                code = child.wait(LIMIT)
            except subprocess.TimeoutExpired:
                child.kill()
                return f"no end after {LIMIT} s"
            finally:
                CHILDREN.discard(child)
        said = (folder / "stderr").read_text().strip().splitlines()[-1:]
        return f"exit code {code}; {' '.join(said)}" if code else ""


def spelled(names: str, known: Callable[[], list[str]]) -> str:
    """The one of `old|new` that a tree knows, the new one where it knows both; it is asked only where there are two."""
    if "|" not in names:
        return names
    found = [name for name in names.split("|") if name in known()]
    if not found:
        raise ValueError(f"the tree knows none of {names}")
    return found[-1]


def chain(name: str) -> set[str]:
    """The case and all those that it starts from."""
    return {name}.union(*(chain(need) for need in CASES[name].needs & CASES.keys()))


def pinned() -> ThreadPoolExecutor:
    """Two workers with a core each, where the system pins processes; so that both commits have the same threads."""
    cores: queue.SimpleQueue[int] = queue.SimpleQueue()
    for core in sorted(os.sched_getaffinity(0))[:2] if hasattr(os, "sched_setaffinity") else ():
        cores.put(core)
    count = cores.qsize()
    print(f"{count or 2} cases at a time, {'each on one core' if count else 'pinned to no core'}", flush=True)
    # A thread's affinity is its own, and the processes that it starts inherit it.
    return ThreadPoolExecutor(count or 2, initializer=lambda: count and os.sched_setaffinity(0, {cores.get()}))


def compared(name: str, sides: list[Side], outcomes: list[Outcome]) -> tuple[str, str]:
    """A verdict, and what differs first or went wrong, with the seconds that it took."""
    if broken := next((one for one in outcomes if one.error), None):
        return "FAILED", broken.error
    try:
        found = CASES[name].difference(*(side.folder / name for side in sides))
    except (OSError, ValueError, KeyError) as error:  # what one left is not there or not in its form at the other
        found = f"{type(error).__name__}: {error}"
    took = ", ".join(f"{side.name} {outcome.took}" for side, outcome in zip(sides, outcomes, strict=True))
    return ("DIFFERS", f"({took}) {found}") if found else ("OK", f"({took})")


def main() -> int:
    """Runs both commits, two cases at a time, and prints a line a case; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("commits", nargs=2, metavar="COMMIT")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--only", default=",".join(CASES))
    given = parser.parse_args()
    chosen = [name for name in CASES if name in given.only.split(",")]
    if unknown := set(given.only.split(",")) - CASES.keys():
        parser.error(f"no such case: {', '.join(unknown)}; there are {', '.join(CASES)}")

    # -- what there is to read, and code to run
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = os.open(given.workdir, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until this process ends
    except BlockingIOError:
        parser.error(f"another comparison works in {given.workdir}; wait for its end, or choose another --workdir")
    places = {"questions": write_questions(given.workdir.absolute() / "questions")}
    if given.data:
        places["data"] = given.data.absolute()
    if package := importlib.util.find_spec("cognition"):  # real weights, which launch/test.sh installs
        places["weights"] = Path(package.submodule_search_locations[0]) / "model"
    workdir = given.workdir.absolute()
    sides = [Side(*side, places) for side in zip(("old", "new"), map(workdir.joinpath, given.commits), strict=True)]
    for side in sides:
        found = side.asked("-c", "import bertjax; print(bertjax.__file__)").strip()
        if not Path(found).is_relative_to(side.folder / "tree"):
            parser.error(f"bertjax would be {found}, not that of {side.folder / 'tree'}")
    read = {name: {need for case in chain(name) for need in CASES[case].needs} - CASES.keys() for name in chosen}
    missing = {name: needs - places.keys() for name, needs in read.items() if needs - places.keys()}
    wanted = set().union(*(chain(name) for name in chosen if name not in missing))

    # -- run and compare
    running: dict[tuple[str, str], Future[Outcome]] = {}
    verdicts = set()
    with pinned() as pool:
        for side in sides:  # one after the other, as the second then finds programs that the first has compiled
            for name in filter(wanted.__contains__, CASES):
                before = [running[side.name, need] for need in sorted(CASES[name].needs & CASES.keys())]
                running[side.name, name] = pool.submit(side.run, name, before)
        try:
            for name in chosen:
                if name in missing:
                    verdict, said = "SKIPPED", f"without {' and '.join(sorted(missing[name]))}"
                else:
                    verdict, said = compared(name, sides, [running[side.name, name].result() for side in sides])
                verdicts.add(verdict)
                print(f"{name:17} {verdict:7} {said}", flush=True)
        except KeyboardInterrupt:
            STOPPED.set()
            pool.shutdown(wait=False, cancel_futures=True)
            for child in tuple(CHILDREN):
                child.terminate()
            print("stopped; with --workdir the same command keeps what is done", file=sys.stderr)
            return 130
    return 1 if verdicts & {"DIFFERS", "FAILED"} else 3 if "SKIPPED" in verdicts else 0


if __name__ == "__main__":
    sys.exit(main())
