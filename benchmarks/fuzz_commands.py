"""Runs the commands of bertjax on damaged files: each is refused in one line, gives the same output, or fails.

    python benchmarks/fuzz_commands.py [--inputs=30] [--seed=0] [--kinds=corpus,sweep] [--output=FILE.json]
    python benchmarks/fuzz_commands.py --kinds=corpus --seed=3 --only=12

Creates a small corpus, model, fine-tuned model and exports with the commands themselves. Then damages one file at a
time (`tests/support/damage.py`) in a copy and runs a command on it in a new process. A sealed folder must be refused
(exit code 2, one line, no traceback) or give the output of the undamaged folder; for files of other programs any output
is accepted. Anything else is a failure, also a command that takes more than 120 s. Exit code 1 if there are failures.
"""

import argparse
import dataclasses
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.support.commands import TINY_MODEL, command, overrides  # noqa: E402 - needs the path above
from tests.support.damage import unsealed  # noqa: E402
from tests.support.trust import MEMORY, damaged_file  # noqa: E402

_SECONDS = 120
_WORDS = ["the", "returns", "a", "value", "of", "class", "method", "name", "object", "is", "function", "list"]
_MASKED = "The value of a [MASK] is a list."
_PHASES = '({"steps": %d, "length": 32, "batch": 8},)'


@dataclasses.dataclass(frozen=True)
class Kind:
    """The files to damage, and the command that reads them.

    Attributes:
      source: the folder to copy, relative to the root of all files.
      files: glob patterns of the files to damage, relative to `source`.
      run: (copy, root) → arguments of the command.
      result: a file in the copy whose content is the output; "": stdout.
      sealed: whether the folder is sealed.
      removed: files that are deleted from the copy.
    """

    source: str
    files: Sequence[str]
    run: Callable[[Path, Path], list[str]]
    result: str = ""
    sealed: bool = True
    removed: Sequence[str] = ()


def train(workdir: Path, root: Path, steps: int) -> list[str]:
    settings = TINY_MODEL | {"corpus": root / "corpus", "phases": _PHASES % steps, "checkpoint_every": 4}
    settings |= {"log_every": 1, "eval_every": 0, "eval_sequences": 32, "optimizer.warmup_steps": 2}
    return ["train", "--config=configs/tiny.py", f"--workdir={workdir}", *overrides(settings)]


def finetune(workdir: Path, root: Path) -> list[str]:
    settings = {"data_dir": root / "table", "init_from": root / "run", "length": 32, "batch": 8}
    settings |= {"table.train": "a.csv", "table.dev": "a.csv", "learning_rates": (1e-3,), "epochs": (1,)}
    settings |= {"seeds": (0, 1)}
    return ["finetune", "--config=configs/classify.py", f"--workdir={workdir}", *overrides(settings)]


def prepare(output: Path, root: Path, tokenizer: str | Path) -> list[str]:
    flags = [f"--source=text:{root}/text.txt", f"--tokenizer={tokenizer}", "--heldout=0.1", "--processes=1"]
    return ["prepare", *flags, f"--output={output}"]


KINDS = {
    "corpus": Kind(
        "corpus",
        ("corpus.json", "*.arrow", "tokenizer/*"),
        lambda copy, root: ["evaluate", f"--checkpoint={root}/run", f"--corpus={copy}"],
    ),
    "build": Kind(
        "corpus",
        ("build/*",),
        lambda copy, root: prepare(copy, root, "new:wordpiece:600"),
        result="corpus.json",
        removed=("corpus.json", "heldout-00000.arrow"),
    ),
    "metrics": Kind("run", ("metrics.jsonl",), lambda copy, root: train(copy, root, 10), result="metrics.jsonl"),
    "checkpoint": Kind(
        "run",
        ("checkpoints/8/**/*",),
        lambda copy, root: ["predict", "fill-mask", f"--checkpoint={copy}/checkpoints/8", _MASKED],
    ),
    "sweep": Kind(
        "sweep",
        ("config.json", "data.json", "runs.jsonl"),
        lambda copy, root: finetune(copy, root),
        result="results.json",
    ),
    "export": Kind("export", ("**/*",), lambda copy, root: ["predict", "fill-mask", f"--checkpoint={copy}", _MASKED]),
    "Hugging Face": Kind(
        "hf",
        ("*.json", "*.safetensors", "*.txt"),
        lambda copy, root: ["convert", f"--from={copy}", f"--to={copy}/out"],
        sealed=False,
    ),
    "sentence-transformers": Kind(
        "sentences",
        ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "1_Pooling/config.json"),
        lambda copy, root: ["predict", "embed", f"--checkpoint={copy}", "A list."],
        sealed=False,
    ),
    "tokenizer": Kind("corpus/tokenizer", ("*",), lambda copy, root: prepare(copy / "out", root, copy), sealed=False),
    "task file": Kind(
        "table",
        ("a.csv",),
        lambda copy, root: ["evaluate", f"--checkpoint={root}/sweep", f"--data_dir={copy}", "--dev=a.csv"],
        sealed=False,
    ),
}


def create_files(root: Path) -> None:
    """Creates the undamaged files."""
    rng = random.Random(0)
    texts = [" ".join(rng.choices(_WORDS, k=12)) for _ in range(400)]
    lines = [f"{text}." + "\n" * (1 + (number % 8 == 7)) for number, text in enumerate(texts)]
    (root / "text.txt").write_text("".join(lines))
    (root / "table").mkdir()
    rows = [f"{text},{'yes' if 'list' in text else 'no'}\n" for text in texts[:40]]
    (root / "table" / "a.csv").write_text("text,label\n" + "".join(rows))
    run_checked(prepare(root / "corpus", root, "new:wordpiece:600"))
    run_checked(train(root / "run", root, 8))
    run_checked(finetune(root / "sweep", root))
    run_checked(["convert", f"--from={root}/run", f"--to={root}/export"])
    for name in ("hf", "sentences"):
        unsealed(shutil.copytree(root / "export", root / name))
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate((("", "Transformer"), ("1_Pooling", "Pooling")))
    ]
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    for path, values in {
        "modules.json": modules,
        "sentence_bert_config.json": {"max_seq_length": 32, "do_lower_case": False},
        "config_sentence_transformers.json": {"similarity_fn_name": "cosine"},
        "1_Pooling/config.json": pooling,
    }.items():
        (root / "sentences" / path).parent.mkdir(exist_ok=True)
        (root / "sentences" / path).write_text(json.dumps(values))


def run_checked(arguments: list[str]) -> None:
    """Runs a command that must succeed."""
    result = run_command(arguments)
    if result.returncode:
        sys.exit(f"{' '.join(arguments)} failed: {result.stderr}")


def run_command(arguments: list[str]) -> subprocess.CompletedProcess:
    cache = Path(tempfile.gettempdir()) / f"bertjax-tests-{os.getuid()}"
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false",
    }
    return subprocess.run(
        command(*arguments),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
        env=environment,
        stdin=subprocess.DEVNULL,
    )


class Trial:
    """A kind of files, with the output of the command for undamaged files."""

    def __init__(self, name: str, root: Path, seed: int):
        self.name, self.kind, self.root, self.seed = name, KINDS[name], root, seed
        self.files = sorted(
            path.relative_to(root / self.kind.source).as_posix()
            for pattern in self.kind.files
            for path in (root / self.kind.source).glob(pattern)
            if path.is_file()
        )
        self.expected = self._result(self._copy()) if self.kind.sealed else None

    def outcome(self, number: int) -> tuple[str, str]:
        """Tries one input; returns refused, equal, accepted or failed, and the damaged file with the message."""
        rng = random.Random(f"{self.seed} {self.name} {number}")
        copy = self._copy()
        file = rng.choice(self.files)
        content = (copy / file).read_bytes()
        while (changed := damaged_file(file, content, rng)) == content:
            pass
        (copy / file).write_bytes(changed)
        try:
            result = self._result(copy)
        except subprocess.TimeoutExpired:
            return "failed", f"{file}: timeout after {_SECONDS} s"
        code, *output, error = result
        last = (error.strip().splitlines() or [""])[-1][:300]
        if "Traceback" in error or code not in (0, 2):
            return "failed", f"{file}: exit code {code}: {last}"
        if code == 2:
            lines = [line for line in error.splitlines() if line.startswith("error: ")]
            return ("refused" if len(lines) == 1 else "failed"), f"{file}: {last}"
        if self.kind.sealed:
            is_equal = output == list(self.expected[1:-1])
            return ("equal" if is_equal else "failed"), f"{file}: " + ("" if is_equal else f"different output, {last}")
        return "accepted", file

    def _copy(self) -> Path:
        copy = self.root / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.root / self.kind.source, copy)
        for name in self.kind.removed:
            (copy / name).unlink()
        return copy

    def _result(self, copy: Path) -> tuple[Any, ...]:
        """Runs the command; returns exit code, stdout, content of the result file, and stderr."""
        result = run_command(self.kind.run(copy, self.root))
        path = copy / self.kind.result
        content = path.read_text() if result.returncode == 0 and self.kind.result else ""
        if self.kind.result == "results.json" and content:
            content = json.dumps(_without_timing(json.loads(content)))
        return result.returncode, result.stdout if not self.kind.result else "", content, result.stderr


def _without_timing(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _without_timing(inner) for key, inner in value.items() if key not in ("seconds", "examples_per_second")
        }
    return [_without_timing(inner) for inner in value] if isinstance(value, list) else value


def main() -> None:
    """Prints the table and the failures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=30, help="Damaged folders per kind.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the damage.")
    parser.add_argument("--kinds", default="", help="Kinds, separated by commas; empty: all.")
    parser.add_argument("--output", type=Path, help="JSON file for the results.")
    parser.add_argument("--only", type=int, help="Number of a single input to try and show.")
    arguments = parser.parse_args()
    names = arguments.kinds.split(",") if arguments.kinds else list(KINDS)
    rows = []
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        root = Path(folder)
        create_files(root)
        print("| kind | inputs | refused | equal | accepted | failed | s per command |\n|---|---|---|---|---|---|---|")
        for name in names:
            trial, begin = Trial(name, root, arguments.seed), time.perf_counter()
            numbers = range(arguments.inputs) if arguments.only is None else [arguments.only]
            outcomes = {number: trial.outcome(number) for number in numbers}
            seconds = (time.perf_counter() - begin) / len(numbers)
            counts = [sum(outcome == key for outcome, _ in outcomes.values()) for key in _OUTCOMES]
            print(f"| {name} | {len(numbers)} | " + " | ".join(map(str, counts)) + f" | {seconds:.1f} |", flush=True)
            failures = {number: message for number, (outcome, message) in outcomes.items() if outcome == "failed"}
            for number, message in (failures if arguments.only is None else dict(enumerate(outcomes.values()))).items():
                print(f"    --kinds={name!r} --only={number}: {message}", flush=True)
            rows.append({"kind": name, **dict(zip(_OUTCOMES, counts, strict=True)), "failures": failures})
    if arguments.output:
        arguments.output.write_text(json.dumps({"seed": arguments.seed, "kinds": rows}, indent=1) + "\n")
    if any(row["failures"] for row in rows):
        sys.exit(1)


_OUTCOMES = ("refused", "equal", "accepted", "failed")

if __name__ == "__main__":
    main()
