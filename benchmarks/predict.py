"""Measures predictions for 1,000 sentences of mixed length on the CPU, against the pipelines of `transformers`.

python benchmarks/predict.py --model=DIR --text=FILE [--modes=classify,tag,embed] [--rounds=3] [--sentences=1000]
    [--tuned=DIR --data=DIR]

--model is an encoder (a Hugging Face folder or a workdir), to which heads with fixed random weights are added; both
sides load the same exports. Sentences are sampled from --text, WikiExtractor's output or plain text. bertjax runs in
f32, in bf16 and with int8 weights. The pipelines use their defaults (f32, sdpa) with batch_size 1, 8 and 32;
feature-extraction returns tensors. All are separate processes with all cores, which alternate; programs are compiled
before the first round. The table shows the median of all rounds and the largest difference of the predictions.
--tuned is a fine-tuned classifier, --data the folder with the files of its task: prints its accuracy on dev as well.
"""

import argparse
import dataclasses
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

SETTINGS = {"f32": {}, "bf16": {"dtype": "bfloat16"}, "int8": {"weight_dtype": "int8"}}
BATCHES = (1, 8, 32)
# Mode → kind and labels of the random head, and the pipeline.
MODES = {
    "classify": ("classification", ("no", "yes"), "text-classification"),
    "tag": ("tagging", ("O", "A", "B", "C", "D"), "token-classification"),
    "embed": ("classification", ("no", "yes"), "feature-extraction"),
}
RUNNERS = (*(f"bertjax {name}" for name in SETTINGS), *(f"pipeline {size}" for size in BATCHES))


def main() -> None:
    """Prints one table per mode, or with --child serves one competitor."""
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
        sentences = sample_sentences(Path(arguments.text), arguments.sentences)
        (Path(folder) / "sentences.json").write_text(json.dumps(sentences))
        words = [len(sentence.split()) for sentence in sentences]
        print(f"{os.cpu_count()} cores, {len(sentences)} sentences of {min(words)} to {max(words)} words", end=", ")
        print(f"mean {np.mean(words):.1f}; median (fastest) of {arguments.rounds} rounds")
        for mode in arguments.modes.split(","):
            export(arguments.model, mode, Path(folder) / mode)
            compare(mode, folder, arguments.rounds)
    if arguments.tuned:
        accuracies(arguments.tuned, arguments.data)


def sample_sentences(path: Path, count: int) -> list[str]:
    """Returns sentences of at least three words, in a fixed random order."""
    from bertjax.text import sentences

    text = re.sub(r"<[^>]*>", "", path.read_text(encoding="utf-8"))
    candidates = [
        sentence for line in text.splitlines() for sentence in sentences.split(line) if len(sentence.split()) > 2
    ]
    return [candidates[index] for index in np.random.default_rng(0).permutation(len(candidates))[:count]]


def export(model: str, mode: str, folder: Path) -> None:
    """Exports the encoder with a random head."""
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
    task = TaskMetadata("", kind, tuple(labels))
    export_model(dataclasses.replace(source, params=params, task=task, sentence=None), folder)


def compare(mode: str, folder: str, rounds: int) -> None:
    """Times all competitors alternately and prints their lines."""
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
        numbers, reference = answers[runner], answers["pipeline 1"]
        difference = np.abs(numbers - reference).max()
        same = "" if mode == "embed" else f", {np.mean(numbers.argmax(-1) == reference.argmax(-1)):.2%} same labels"
        print(
            f"{mode:8} {runner:12} {medians[runner]:7.2f} s ({min(times[runner]):6.2f}) "
            f"{medians[best] / medians[runner]:5.2f} x the best pipeline ({best.split()[1]}); "
            f"{child.ask('megabytes'):5.1f} MB, difference {difference:.1e}{same}",
            flush=True,
        )
        child.close()


class Child:
    """A competitor in a separate process, idle between its rounds."""

    def __init__(self, runner: str, mode: str, folder: str) -> None:
        command = [sys.executable, __file__, "--child", runner, mode, folder]
        env = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", "TF_CPP_MIN_LOG_LEVEL": "3"} | os.environ
        self._process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._process.stdout.readline()  # ready

    def ask(self, request: str) -> Any:
        """Requests the seconds of a round ("time"), the predictions ("answers") or the weights' size ("megabytes")."""
        self._process.stdin.write(f"{request}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()


def serve(runner: str, mode: str, folder: str) -> None:
    """Answers the requests on stdin, one per line."""
    sentences = json.loads((Path(folder) / "sentences.json").read_text())
    side, setting = runner.split()
    predict, readable, size = (bertjax_competitor if side == "bertjax" else pipeline_competitor)(
        mode, f"{folder}/{mode}", setting
    )
    # Compiles all programs of bertjax; the pipelines compile nothing.
    predict(sentences if side == "bertjax" else sentences[:32])
    print("ready", flush=True)
    for line in sys.stdin:
        before = time.perf_counter()
        if line.strip() == "megabytes":
            print(json.dumps(size), flush=True)
            continue
        predictions = predict(sentences)
        seconds = time.perf_counter() - before
        print(json.dumps(seconds if line.strip() == "time" else readable(predictions, sentences)), flush=True)


Competitor = tuple[Callable[[list[str]], Any], Callable[[Any, list[str]], list[Any]], float]


def bertjax_competitor(mode: str, folder: str, setting: str) -> Competitor:
    """Returns sentences → predictions, predictions → comparable numbers, and MB of weights of bertjax."""
    from bertjax.cli import tune_cpu_malloc

    tune_cpu_malloc()  # as in the command
    import jax

    from bertjax.inference.predictor import load_predictor

    predict = load_predictor(folder, mode, **SETTINGS[setting])
    labels = MODES[mode][1]
    size = sum(array.nbytes for array in jax.live_arrays()) / 1e6
    if mode == "embed":
        return predict.array, lambda vectors, sentences: vectors.tolist(), size
    if mode == "classify":
        return predict, lambda records, sentences: [list(record["probabilities"].values()) for record in records], size

    def word_numbers(records: list[Any], sentences: list[str]) -> list[list[float]]:
        return [
            _spread(labels, label, probability)
            for record in records
            for label, probability in zip(record["labels"], record["probabilities"], strict=True)
        ]

    return predict, word_numbers, size


def pipeline_competitor(mode: str, folder: str, setting: str) -> Competitor:
    """Returns the same for a pipeline of `transformers`."""
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(os.cpu_count())
    _, labels, name = MODES[mode]
    options = {"text-classification": {"top_k": None}, "token-classification": {"ignore_labels": []}}.get(name, {})
    pipe = transformers.pipeline(name, model=folder, tokenizer=folder, device="cpu", **options)
    call_options = {"return_tensors": True} if mode == "embed" else {}
    size = sum(tensor.nbytes for tensor in pipe.model.parameters()) / 1e6

    def predict(sentences: list[str]) -> Any:
        outputs = pipe(sentences, batch_size=int(setting), **call_options)
        if mode != "embed":
            return outputs
        # Without the padding of the batch; the pipeline does not return the lengths.
        lengths = pipe.tokenizer(sentences, return_length=True)["length"]
        return torch.stack(
            [states[0, :length].mean(0) for states, length in zip(outputs, lengths, strict=True)]
        ).numpy()

    def word_numbers(outputs: list[Any], sentences: list[str]) -> list[list[float]]:
        """Those of the first piece of each word, as in bertjax."""
        numbers = []
        for pieces, sentence in zip(outputs, sentences, strict=True):
            by_start = {piece["start"]: piece for piece in reversed(pieces)}
            for word in re.finditer(r"\S+", sentence):
                piece = by_start[word.start()]
                numbers.append(_spread(labels, piece["entity"], float(piece["score"])))
        return numbers

    def class_numbers(outputs: list[Any], sentences: list[str]) -> list[list[float]]:
        return [[{score["label"]: score["score"] for score in scores}[label] for label in labels] for scores in outputs]

    readable = {"classify": class_numbers, "tag": word_numbers, "embed": lambda vectors, sentences: vectors.tolist()}
    return predict, readable[mode], size


def _spread(labels: tuple[str, ...], label: str, probability: float) -> list[float]:
    """A vector of zeros with the probability at the index of the label."""
    return [probability if other == label else 0.0 for other in labels]


def accuracies(model: str, data_dir: str) -> None:
    """Prints the accuracy of a fine-tuned classifier on dev, for each setting of bertjax."""
    from bertjax.inference.predictor import PredictOptions, make_predictor
    from bertjax.interop.loading import load_model
    from bertjax.tasks.registry import open_task

    source = load_model(model)
    task = open_task(source.task.name, data_dir, labels=source.task.labels)
    examples = task.read(task.dev[0])
    texts = [example.text if example.text_pair is None else (example.text, example.text_pair) for example in examples]
    for name, options in SETTINGS.items():
        records = make_predictor(source, "classify", PredictOptions(**options))(texts)
        correct = [
            record["label"] == task.labels[example.label] for record, example in zip(records, examples, strict=True)
        ]
        print(f"accuracy {name:5} {np.mean(correct):.2%} of {len(examples)}", flush=True)


if __name__ == "__main__":
    main()
