"""Damaged files under the commands that users type: refused in one line, the same output, or a failure.

    python benchmarks/fuzz_commands.py [--inputs=30] [--seed=0] [--kinds=corpus,sweep] [--output=FILE.json]
    python benchmarks/fuzz_commands.py --kinds=corpus --seed=3 --only=12

Makes a small corpus, model, fine-tuning and exports with the commands themselves, then damages one file at a time
(`tests/support/damage.py`) in a copy and runs a command on it, in a process of its own. A sealed folder is refused
(exit code 2, one line, no traceback) or gives the output of the whole one; of files of others any output will do.
Anything else is a failure, as is a command that takes more than 120 s. Exit code 1 where there is one.
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

from tests.support.commands import TINY_MODEL, command, overrides  # noqa: E402 - once it can be found
from tests.support.damage import unsealed  # noqa: E402
from tests.support.trust import MEMORY, damaged_file  # noqa: E402

_SECONDS = 120
_WORDS = ["the", "returns", "a", "value", "of", "class", "method", "name", "object", "is", "function", "list"]
_MASKED = "The value of a [MASK] is a list."
_PHASES = '({"steps": %d, "length": 32, "batch": 8},)'


@dataclasses.dataclass(frozen=True)
class Kind:
    """What is damaged, and the command that reads it.

    Attributes:
      source: the folder that is copied, below the folder of all.
      files: patterns of the files to damage, within it.
      run: the command's arguments, of the copy and of the folder of all.
      result: a file in the copy that counts as the output, beside what is printed.
      sealed: whether it has a seal.
      removed: files and folders that the copy goes without.
    """

    source: str
    files: Sequence[str]
    run: Callable[[Path, Path], list[str]]
    result: str = ""
    sealed: bool = True
    removed: Sequence[str] = ()


def train(workdir: Path, everything: Path, steps: int) -> list[str]:
    settings = TINY_MODEL | {"corpus": everything / "corpus", "phases": _PHASES % steps, "checkpoint_every": 4}
    settings |= {"log_every": 1, "eval_every": 0, "eval_sequences": 32, "optimizer.warmup_steps": 2}
    return ["train", "--config=configs/tiny.py", f"--workdir={workdir}", *overrides(settings)]


def finetune(workdir: Path, everything: Path) -> list[str]:
    settings = {"data_dir": everything / "table", "init_from": everything / "run", "length": 32, "batch": 8}
    settings |= {"table.train": "a.csv", "table.dev": "a.csv", "learning_rates": (1e-3,), "epochs": (1,)}
    settings |= {"seeds": (0, 1)}
    return ["finetune", "--config=configs/classify.py", f"--workdir={workdir}", *overrides(settings)]


def prepare(output: Path, everything: Path, tokenizer: str | Path) -> list[str]:
    flags = [f"--source=text:{everything}/text.txt", f"--tokenizer={tokenizer}", "--heldout=0.1", "--processes=1"]
    return ["prepare", *flags, f"--output={output}"]


KINDS = {
    "corpus": Kind(
        "corpus",
        ("corpus.json", "*.arrow", "tokenizer/*"),
        lambda copy, every: ["evaluate", f"--checkpoint={every}/run", f"--corpus={copy}"],
    ),
    "build": Kind(
        "corpus",
        ("build/*",),
        lambda copy, every: prepare(copy, every, "new:wordpiece:600"),
        result="corpus.json",
        removed=("corpus.json", "heldout-00000.arrow"),
    ),
    "metrics": Kind("run", ("metrics.jsonl",), lambda copy, every: train(copy, every, 10), result="metrics.jsonl"),
    "checkpoint": Kind(
        "run",
        ("checkpoints/8/**/*",),
        lambda copy, every: ["predict", "fill-mask", f"--checkpoint={copy}/checkpoints/8", _MASKED],
    ),
    "sweep": Kind(
        "sweep",
        ("config.json", "data.json", "runs.jsonl"),
        lambda copy, every: finetune(copy, every),
        result="results.json",
    ),
    "export": Kind("export", ("**/*",), lambda copy, every: ["predict", "fill-mask", f"--checkpoint={copy}", _MASKED]),
    "Hugging Face": Kind(
        "hf",
        ("*.json", "*.safetensors", "*.txt"),
        lambda copy, every: ["convert", f"--from={copy}", f"--to={copy}/out"],
        sealed=False,
    ),
    "sentence-transformers": Kind(
        "sentences",
        ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "1_Pooling/config.json"),
        lambda copy, every: ["predict", "embed", f"--checkpoint={copy}", "A list."],
        sealed=False,
    ),
    "tokenizer": Kind("corpus/tokenizer", ("*",), lambda copy, every: prepare(copy / "out", every, copy), sealed=False),
    "task file": Kind(
        "table",
        ("a.csv",),
        lambda copy, every: ["evaluate", f"--checkpoint={every}/sweep", f"--data_dir={copy}", "--dev=a.csv"],
        sealed=False,
    ),
}


def make(everything: Path) -> None:
    """All that is whole."""
    draw = random.Random(0)
    texts = [" ".join(draw.choices(_WORDS, k=12)) for _ in range(400)]
    lines = [f"{text}." + "\n" * (1 + (number % 8 == 7)) for number, text in enumerate(texts)]
    (everything / "text.txt").write_text("".join(lines))
    (everything / "table").mkdir()
    rows = [f"{text},{'yes' if 'list' in text else 'no'}\n" for text in texts[:40]]
    (everything / "table" / "a.csv").write_text("text,label\n" + "".join(rows))
    whole(prepare(everything / "corpus", everything, "new:wordpiece:600"))
    whole(train(everything / "run", everything, 8))
    whole(finetune(everything / "sweep", everything))
    whole(["convert", f"--from={everything}/run", f"--to={everything}/export"])
    for name in ("hf", "sentences"):
        unsealed(shutil.copytree(everything / "export", everything / name))
    described = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate((("", "Transformer"), ("1_Pooling", "Pooling")))
    ]
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    for path, values in {
        "modules.json": described,
        "sentence_bert_config.json": {"max_seq_length": 32, "do_lower_case": False},
        "config_sentence_transformers.json": {"similarity_fn_name": "cosine"},
        "1_Pooling/config.json": pooling,
    }.items():
        (everything / "sentences" / path).parent.mkdir(exist_ok=True)
        (everything / "sentences" / path).write_text(json.dumps(values))


def whole(arguments: list[str]) -> None:
    """Runs a command that must succeed."""
    result = called(arguments)
    if result.returncode:
        sys.exit(f"{' '.join(arguments)} failed: {result.stderr}")


def called(arguments: list[str]) -> subprocess.CompletedProcess:
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
    """A kind, and the output of the command where nothing is damaged."""

    def __init__(self, name: str, everything: Path, seed: int):
        self.name, self.kind, self.everything, self.seed = name, KINDS[name], everything, seed
        self.files = sorted(
            path.relative_to(everything / self.kind.source).as_posix()
            for pattern in self.kind.files
            for path in (everything / self.kind.source).glob(pattern)
            if path.is_file()
        )
        self.expected = self._result(self._copy()) if self.kind.sealed else None

    def outcome(self, number: int) -> tuple[str, str]:
        """(refused, equal, accepted or failed; what was damaged and said) of one input."""
        draw = random.Random(f"{self.seed} {self.name} {number}")
        copy = self._copy()
        file = draw.choice(self.files)
        content = (copy / file).read_bytes()
        while (changed := damaged_file(file, content, draw)) == content:
            pass
        (copy / file).write_bytes(changed)
        try:
            result = self._result(copy)
        except subprocess.TimeoutExpired:
            return "failed", f"{file}: took more than {_SECONDS} s"
        code, *output, error = result
        last = (error.strip().splitlines() or [""])[-1][:300]
        if "Traceback" in error or code not in (0, 2):
            return "failed", f"{file}: exit code {code}: {last}"
        if code == 2:
            lines = [line for line in error.splitlines() if line.startswith("error: ")]
            return ("refused" if len(lines) == 1 else "failed"), f"{file}: {last}"
        if self.kind.sealed:
            same = output == list(self.expected[1:-1])
            return ("equal" if same else "failed"), f"{file}: " + ("" if same else f"another output, {last}")
        return "accepted", file

    def _copy(self) -> Path:
        copy = self.everything / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.everything / self.kind.source, copy)
        for name in self.kind.removed:
            (copy / name).unlink()
        return copy

    def _result(self, copy: Path) -> tuple[Any, ...]:
        """(exit code, output, file of the result, what went to stderr)."""
        result = called(self.kind.run(copy, self.everything))
        path = copy / self.kind.result
        found = path.read_text() if result.returncode == 0 and self.kind.result else ""
        if self.kind.result == "results.json" and found:  # what the clock says is never the same
            found = json.dumps(_timeless(json.loads(found)))
        return result.returncode, result.stdout if not self.kind.result else "", found, result.stderr


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(one) for key, one in value.items() if key not in ("seconds", "examples_per_second")}
    return [_timeless(one) for one in value] if isinstance(value, list) else value


def main() -> None:
    """Prints the table, and the failures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=30, help="Damaged folders per kind.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the damage.")
    parser.add_argument("--kinds", default="", help="Kinds, separated by commas; empty: all.")
    parser.add_argument("--output", type=Path, help="File for the figures, as JSON.")
    parser.add_argument("--only", type=int, help="Try one input and show what the command says.")
    arguments = parser.parse_args()
    names = arguments.kinds.split(",") if arguments.kinds else list(KINDS)
    rows = []
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        everything = Path(folder)
        make(everything)
        print("| kind | inputs | refused | equal | accepted | failed | s per command |\n|---|---|---|---|---|---|---|")
        for name in names:
            trial, begin = Trial(name, everything, arguments.seed), time.perf_counter()
            numbers = range(arguments.inputs) if arguments.only is None else [arguments.only]
            outcomes = {number: trial.outcome(number) for number in numbers}
            seconds = (time.perf_counter() - begin) / len(numbers)
            counted = [sum(one == key for one, _ in outcomes.values()) for key in _OUTCOMES]
            print(f"| {name} | {len(numbers)} | " + " | ".join(map(str, counted)) + f" | {seconds:.1f} |", flush=True)
            failures = {number: said for number, (one, said) in outcomes.items() if one == "failed"}
            for number, said in (failures if arguments.only is None else dict(enumerate(outcomes.values()))).items():
                print(f"    --kinds={name!r} --only={number}: {said}", flush=True)
            rows.append({"kind": name, **dict(zip(_OUTCOMES, counted, strict=True)), "failures": failures})
    if arguments.output:
        arguments.output.write_text(json.dumps({"seed": arguments.seed, "kinds": rows}, indent=1) + "\n")
    if any(row["failures"] for row in rows):
        sys.exit(1)


_OUTCOMES = ("refused", "equal", "accepted", "failed")

if __name__ == "__main__":
    main()
