"""Predictions for 1,000 sentences of mixed length on the CPU, beside the pipelines of `transformers`.

python benchmarks/predict.py --model=DIR --text=FILE [--modes=classify,tag,embed] [--rounds=3] [--sentences=1000]
    [--tuned=DIR --data=DIR]

--model is an encoder (a Hugging Face folder or a workdir), which gets heads of fixed random numbers; both sides load
the same exports. Sentences are drawn at random from --text, as WikiExtractor writes it or plain. bertjax runs in f32,
in bf16 and with int8 weights. The pipelines, f32 and sdpa as users get them, run with batch_size 1, 8 and 32;
feature-extraction may keep its tensors. All are processes of their own with every core, which run in turn; programs
are compiled before the first round. The table gives the median of all rounds, and how far the answers are apart.
--tuned is a fine-tuned classifier and --data the folder with its task's files: the table then has its accuracy on dev.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("JAX_PLATFORMS", "cpu")

OURS = {"f32": {}, "bf16": {"dtype": "bfloat16"}, "int8": {"weights": "int8"}}
BATCHES = (1, 8, 32)
# The kind of the random head, its labels, and the pipeline.
MODES = {
    "classify": ("classification", ("no", "yes"), "text-classification"),
    "tag": ("tagging", ("O", "A", "B", "C", "D"), "token-classification"),
    "embed": ("classification", ("no", "yes"), "feature-extraction"),
}
RUNNERS = (*(f"bertjax {name}" for name in OURS), *(f"pipeline {size}" for size in BATCHES))


def main() -> None:
    """Prints a table a mode, or with --child serves one competitor."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--text")
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sentences", type=int, default=1000)
    parser.add_argument("--tuned")
    parser.add_argument("--data")
    parser.add_argument("--child", nargs=3, metavar=("RUNNER", "MODE", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        serve(*arguments.child)
        return
    with tempfile.TemporaryDirectory() as folder:
        sentences = drawn(Path(arguments.text), arguments.sentences)
        (Path(folder) / "sentences.json").write_text(json.dumps(sentences))
        words = [len(sentence.split()) for sentence in sentences]
        print(f"{os.cpu_count()} cores, {len(sentences)} sentences of {min(words)} to {max(words)} words", end=", ")
        print(f"mean {np.mean(words):.1f}; median (fastest) of {arguments.rounds} rounds")
        for mode in arguments.modes.split(","):
            export(arguments.model, mode, Path(folder) / mode)
            compare(mode, folder, arguments.rounds)
    if arguments.tuned:
        accuracies(arguments.tuned, arguments.data)


def drawn(path: Path, count: int) -> list[str]:
    """Sentences of at least three words, in a fixed random order."""
    from bertjax.text import sentences

    text = re.sub(r"<[^>]*>", "", path.read_text(encoding="utf-8"))
    found = [sentence for line in text.splitlines() for sentence in sentences.split(line) if len(sentence.split()) > 2]
    return [found[place] for place in np.random.default_rng(0).permutation(len(found))[:count]]


def export(model: str, mode: str, folder: Path) -> None:
    """Writes the encoder with a random head as `transformers` and bertjax load it."""
    from bertjax.interop.huggingface import export_model
    from bertjax.interop.loading import load_model
    from bertjax.tasks.metadata import TaskMetadata

    source = load_model(model)
    kind, labels, _ = MODES[mode]
    parts = ("embeddings", "encoder", "pooler") if kind == "classification" else ("embeddings", "encoder")
    params = {name: source.params[name] for name in parts}
    size = source.config.model.hidden_size
    kernel = np.random.default_rng(0).normal(size=(size, len(labels))) * 0.2
    params["task_head"] = {"kernel": kernel.astype(np.float32), "bias": np.zeros(len(labels), np.float32)}
    with tempfile.TemporaryDirectory() as tokenizer:
        source.tokenizer.save(tokenizer)
        task = TaskMetadata("", kind, tuple(labels))
        export_model(source.config.model, params, tokenizer, folder, source.tokenizer.pad_id, task)


def compare(mode: str, folder: str, rounds: int) -> None:
    """Times all competitors in turn and prints their rows."""
    children = {runner: Child(runner, mode, folder) for runner in RUNNERS}
    times: dict[str, list[float]] = {runner: [] for runner in RUNNERS}
    for _ in range(rounds):
        for runner, child in children.items():
            times[runner].append(child.ask("time"))
            print(f"{mode} {runner} {times[runner][-1]:.2f} s", file=sys.stderr, flush=True)
    answers = {runner: np.array(child.ask("answers")) for runner, child in children.items()}
    medians = {runner: float(np.median(values)) for runner, values in times.items()}
    best = min((runner for runner in RUNNERS if runner.startswith("pipeline")), key=medians.__getitem__)
    for runner, child in children.items():
        mine, reference = answers[runner], answers["pipeline 1"]
        apart = np.abs(mine - reference).max()
        same = "" if mode == "embed" else f", {np.mean(mine.argmax(-1) == reference.argmax(-1)):.2%} same labels"
        print(
            f"{mode:8} {runner:12} {medians[runner]:7.2f} s ({min(times[runner]):6.2f}) "
            f"{medians[best] / medians[runner]:5.2f} x the best pipeline ({best.split()[1]}); "
            f"{child.ask('megabytes'):5.1f} MB, apart {apart:.1e}{same}",
            flush=True,
        )
        child.close()


class Child:
    """A competitor in its own process, which waits between its rounds."""

    def __init__(self, runner: str, mode: str, folder: str) -> None:
        command = [sys.executable, __file__, "--child", runner, mode, folder]
        env = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", "TF_CPP_MIN_LOG_LEVEL": "3"} | os.environ
        self._process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._process.stdout.readline()  # ready

    def ask(self, what: str) -> Any:
        """Seconds of a round, the answers, or the size of the weights."""
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()


def serve(runner: str, mode: str, folder: str) -> None:
    """Answers each line of stdin with what it asks for."""
    sentences = json.loads((Path(folder) / "sentences.json").read_text())
    side, setting = runner.split()
    predict, readable, size = (ours if side == "bertjax" else theirs)(mode, f"{folder}/{mode}", setting)
    # Every program is compiled; the pipelines compile nothing.
    predict(sentences if side == "bertjax" else sentences[:32])
    print("ready", flush=True)
    for line in sys.stdin:
        before = time.perf_counter()
        if line.strip() == "megabytes":
            print(json.dumps(size), flush=True)
            continue
        found = predict(sentences)
        seconds = time.perf_counter() - before
        print(json.dumps(seconds if line.strip() == "time" else readable(found, sentences)), flush=True)


Competitor = tuple[Callable[[list[str]], Any], Callable[[Any, list[str]], list[Any]], float]


def ours(mode: str, folder: str, setting: str) -> Competitor:
    """(sentences → answers, answers → numbers to compare, MB of weights) of bertjax."""
    from bertjax.cli import keep_memory

    keep_memory()  # as the command does
    import jax

    from bertjax.inference.predictor import load

    predict = load(folder, mode, **OURS[setting])
    labels = MODES[mode][1]
    size = sum(array.nbytes for array in jax.live_arrays()) / 1e6
    if mode == "embed":
        return predict.array, lambda found, sentences: found.tolist(), size
    if mode == "classify":
        return predict, lambda found, sentences: [list(one["probabilities"].values()) for one in found], size

    def of_words(found: list[Any], sentences: list[str]) -> list[list[float]]:
        return [
            _spread(labels, label, probability)
            for one in found
            for label, probability in zip(one["labels"], one["probabilities"], strict=True)
        ]

    return predict, of_words, size


def theirs(mode: str, folder: str, setting: str) -> Competitor:
    """The same of `transformers`."""
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(os.cpu_count())
    _, labels, name = MODES[mode]
    options = {"text-classification": {"top_k": None}, "token-classification": {"ignore_labels": []}}.get(name, {})
    pipe = transformers.pipeline(name, model=folder, tokenizer=folder, device="cpu", **options)
    more = {"return_tensors": True} if mode == "embed" else {}
    size = sum(tensor.nbytes for tensor in pipe.model.parameters()) / 1e6

    def predict(sentences: list[str]) -> Any:
        found = pipe(sentences, batch_size=int(setting), **more)
        if mode != "embed":
            return found
        # What stands at the padding of a batch is left out; how many tokens there are must be asked for once more.
        lengths = pipe.tokenizer(sentences, return_length=True)["length"]
        return torch.stack([one[0, :length].mean(0) for one, length in zip(found, lengths, strict=True)]).numpy()

    def of_words(found: list[Any], sentences: list[str]) -> list[list[float]]:
        """Of the first piece of each word, as bertjax tags it."""
        numbers = []
        for pieces, sentence in zip(found, sentences, strict=True):
            by_start = {piece["start"]: piece for piece in reversed(pieces)}
            for word in re.finditer(r"\S+", sentence):
                piece = by_start[word.start()]
                numbers.append(_spread(labels, piece["entity"], float(piece["score"])))
        return numbers

    def of_classes(found: list[Any], sentences: list[str]) -> list[list[float]]:
        return [[{one["label"]: one["score"] for one in scores}[label] for label in labels] for scores in found]

    readable = {"classify": of_classes, "tag": of_words, "embed": lambda found, sentences: found.tolist()}
    return predict, readable[mode], size


def _spread(labels: tuple[str, ...], label: str, probability: float) -> list[float]:
    """The probability at the label's place."""
    return [probability if one == label else 0.0 for one in labels]


def accuracies(model: str, data_dir: str) -> None:
    """Prints the accuracy of a fine-tuned classifier in each of our settings, on the dev data of its task."""
    from bertjax.inference.predictor import Options, make
    from bertjax.interop.loading import load_model
    from bertjax.tasks.registry import open_task

    source = load_model(model)
    task = open_task(source.task.name, data_dir, labels=source.task.labels)
    examples = task.read(task.dev[0])
    asked = [one.text if one.text_pair is None else (one.text, one.text_pair) for one in examples]
    for name, options in OURS.items():
        found = make(source, "classify", Options(**options))(asked)
        right = [one["label"] == task.labels[example.label] for one, example in zip(found, examples, strict=True)]
        print(f"accuracy {name:5} {np.mean(right):.2%} of {len(examples)}", flush=True)


if __name__ == "__main__":
    main()
