"""Compares the speed of `prepare`, and of the start of every command, between two trees of bertjax, in CPU seconds.

    python benchmarks/compare_speed.py OLD NEW [--text=FILE] [--rounds=12] [--only=CASE,…] [--output=FILE]

OLD and NEW are work trees, as created by `git worktree add`. Each first creates its own corpus, model and export. Then
every case runs in both trees simultaneously, each pinned to one core; the cores alternate between rounds. A case is a
whole process with its start: `prepare` of a text by one process, or one short call of another command. Prints the ratio
of CPU seconds, NEW to OLD, as the geometric mean over the rounds with its 95 % bootstrap interval. Needs two idle cores
and Linux.
"""

import argparse
import dataclasses
import json
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

MODEL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
SETTINGS = {f"model.{name}": value for name, value in MODEL.items()} | {
    "model.vocab_size": 0,
    "model.max_position_embeddings": 64,
    "phases": '({"steps":2,"length":32,"batch":8},)',
}
TRAIN = ("train", "--config=configs/tiny.py", *(f"--config.{name}={value}" for name, value in SETTINGS.items()))
REVIEWS = "".join(f'{{"text": "{"good" if i % 2 else "bad"} number {i}", "label": "{i % 2}"}}\n' for i in range(32))


def create_inputs(tree: Path, folder: Path) -> None:
    """Creates a corpus, a model and its export with the code of a tree."""
    folder.mkdir()
    prepare = ("prepare", "--source=pydoc:", "--tokenizer=new:wordpiece:1000", "--processes=1")
    run(tree, *prepare, f"--output={folder}/corpus").cpu_seconds()
    run(tree, *TRAIN, f"--config.corpus={folder}/corpus", f"--workdir={folder}/run").cpu_seconds()
    run(tree, "convert", f"--from={folder}/run", f"--to={folder}/export").cpu_seconds()
    for name in ("train.jsonl", "dev.jsonl"):
        (folder / name).write_text(REVIEWS)


def cases(folder: Path, text: Path) -> dict[str, Callable[[], tuple[str, ...]]]:
    """Case → function that removes its old output and returns its command."""

    def fresh(name: str) -> Path:
        shutil.rmtree(folder / name, ignore_errors=True)
        return folder / name

    prepare = ("prepare", f"--source=text:{text}", f"--tokenizer={folder}/corpus/tokenizer", "--processes=1")
    table = ("--config.table.train=train.jsonl", "--config.table.dev=dev.jsonl", f"--config.data_dir={folder}")
    tune = ("finetune", "--config=configs/classify.py", f"--config.init_from={folder}/run", "--config.epochs=(1,)")
    helps = {f"{name} --help": lambda name=name: (name, "--help") for name in ("prepare", "train", "predict", "plan")}
    return {
        "prepare": lambda: (*prepare, f"--output={fresh('new')}"),
        "train again": lambda: (*TRAIN, f"--config.corpus={folder}/corpus", f"--workdir={folder}/run"),
        "predict": lambda: ("predict", "fill-mask", f"--checkpoint={folder}/run", "a [MASK]"),
        "predict from export": lambda: ("predict", "fill-mask", f"--checkpoint={folder}/export", "a [MASK]"),
        "predict embed": lambda: ("predict", "embed", f"--checkpoint={folder}/run", "a text"),
        "evaluate": lambda: ("evaluate", f"--checkpoint={folder}/run", "--batch=8"),
        "convert": lambda: ("convert", f"--from={folder}/export", f"--to={fresh('converted')}"),
        "finetune": lambda: (*tune, *table, "--config.seeds=(0,)", "--config.length=32", f"--workdir={fresh('tuned')}"),
        **helps,
    }


def run(tree: Path, *words: str, core: int | None = None) -> "Running":
    """Starts a command of a tree, pinned to `core` if given."""
    environment = os.environ | {"PYTHONPATH": str(tree), "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # else every process compiles its imports
    arguments = [sys.executable, "-m", f"bertjax.{words[0]}", *words[1:]]
    if core is not None:
        arguments = ["taskset", "--cpu-list", str(core), *arguments]
    errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
    process = subprocess.Popen(arguments, cwd=tree, env=environment, stdout=subprocess.DEVNULL, stderr=errors)
    return Running(f"{tree}: {' '.join(words)}", process, errors)


@dataclasses.dataclass
class Running:
    """A running command."""

    name: str
    process: subprocess.Popen
    errors: IO[str]

    def cpu_seconds(self) -> float:
        """Waits for the process, and returns the CPU seconds of it and its children."""
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        with self.errors:
            if status:
                self.errors.seek(0)
                raise SystemExit(f"{self.name} failed:\n{self.errors.read()[-2000:]}")
        return usage.ru_utime + usage.ru_stime


def interval(ratios: list[float]) -> tuple[float, float, float]:
    """Returns the geometric mean, and the lower and upper end of its 95 % interval."""
    logs, rng = [math.log(ratio) for ratio in ratios], random.Random(0)
    means = sorted(statistics.fmean(rng.choices(logs, k=len(logs))) for _ in range(4000))
    return tuple(math.exp(value) for value in (statistics.fmean(logs), means[99], means[3899]))


def main() -> None:
    """Prints one line per case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", nargs=2, type=Path, metavar="TREE")
    parser.add_argument("--text", type=Path, help="Text for prepare; default: the documentation bundled with Python.")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--only", default="", help="Names of cases, separated by commas; default: all.")
    parser.add_argument("--output", type=Path, help="JSON file for the results.")
    options = parser.parse_args()
    trees, results = [tree.resolve() for tree in options.trees], {}
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch) / name for name in ("old", "new")]
        text = options.text or Path(scratch) / "text.txt"
        if not options.text:
            import pydoc_data.topics

            topics = ["\n".join(filter(str.strip, topic.splitlines())) for topic in pydoc_data.topics.topics.values()]
            text.write_text("\n\n".join(f"{number} {topic}" for number in range(60) for topic in topics))
        for tree, folder in zip(trees, folders, strict=True):
            create_inputs(tree, folder)
        both = [cases(folder, text) for folder in folders]
        for name in options.only.split(",") if options.only else both[0]:
            ratios, seconds = [], []
            for number in range(options.rounds + 2):
                # Both run simultaneously on different cores, so that changes of the machine's speed affect both.
                running = [run(trees[side], *both[side][name](), core=(side + number) % 2) for side in (0, 1)]
                old, new = [process.cpu_seconds() for process in running]
                if number >= 2:  # the first two, one per core, fill caches
                    ratios.append(new / old)
                    seconds.append(old)
            mean, low, high = interval(ratios)
            results[name] = {"old_cpu_seconds": statistics.median(seconds), "ratio": mean, "low": low, "high": high}
            print(
                f"{name:28} {statistics.median(seconds):7.2f} s  ratio {mean:.3f} [{low:.3f}, {high:.3f}]", flush=True
            )
    if options.output:
        options.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
