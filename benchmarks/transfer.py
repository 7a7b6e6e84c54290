"""Measures the benefit of pre-training: fine-tunes a small model after pre-training and from random weights.

python benchmarks/transfer.py --data=DIR --workdir=DIR [--steps=16000] [--seeds=5] [--tasks=sst2,pos]

The folder of --data contains wiki/ (WikiExtractor's files), glue/ and ud_ewt/. Runs the commands of bertjax; reuses
finished results in --workdir. Both variants try the same learning rates; the table shows the best one of each: dev
scores as mean ± standard error over the seeds.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

RATES = (5e-4, 1e-3, 2e-3)
TASKS = {
    "sst2": ["--config.task=glue/sst2", "--config.data_dir={data}/glue"],
    # Without the training part of the treebank: trains on dev, scores on test.
    "pos": [
        "--config.task=conllu/upos",
        "--config.data_dir={data}/ud_ewt",
        "--config.table.train=en_ewt-ud-dev.conllu",
        "--config.table.dev=en_ewt-ud-test.conllu",
    ],
}


def main() -> None:
    """Runs all steps and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=16000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tasks", default=",".join(TASKS))
    arguments = parser.parse_args()
    pretrained = pretrain(arguments)
    print("| task | score | pre-trained | from random | difference / 2 SE |")
    print("|---|---|---|---|---|", flush=True)
    for name in arguments.tasks.split(","):
        variants = [finetune(name, arguments, prefix, f"{prefix}{pretrained}") for prefix in ("", "random:")]
        print(table_line(name, *variants), flush=True)


def pretrain(arguments: Any) -> Path:
    """Pre-trains the model of the quickstart, with longer and more rows per batch; returns the workdir."""
    corpus, workdir = arguments.workdir / "corpus", arguments.workdir / "pretrained"
    sources = [f"--source=wiki:{arguments.data}/wiki", "--source=pydoc:"]
    run("prepare", *sources, "--tokenizer=new:wordpiece:8192", f"--output={corpus}")
    phases = ({"steps": arguments.steps, "length": 64, "batch": 32},)
    run(
        "train",
        "--config=configs/quickstart.py",
        f"--workdir={workdir}",
        f"--config.corpus={corpus}",
        f"--config.phases={phases!r}",
        "--config.model.max_position_embeddings=64",
    )
    return workdir


def finetune(name: str, arguments: Any, prefix: str, init_from: str) -> dict[str, Any]:
    """Fine-tunes, and returns the content of results.json."""
    workdir = arguments.workdir / f"{name}-{'random' if prefix else 'pretrained'}"
    if not (workdir / "results.json").is_file():
        run(
            "finetune",
            "--config=configs/glue.py:sst2",
            f"--workdir={workdir}",
            f"--config.init_from={init_from}",
            f"--config.learning_rates={RATES!r}",
            f"--config.seeds={tuple(range(arguments.seeds))!r}",
            "--config.train_examples=3000",
            "--config.length=64",
            *(flag.format(data=arguments.data) for flag in TASKS[name]),
        )
    return json.loads((workdir / "results.json").read_bytes())


def table_line(name: str, *variants: dict[str, Any]) -> str:
    """A line of the table."""
    (mean, error, rate), (other_mean, other_error, other_rate) = [best_rate(results) for results in variants]
    return (
        f"| {name} | {variants[0]['metric']} | {mean:.2f} ± {error:.2f} (rate {rate:g}) | "
        f"{other_mean:.2f} ± {other_error:.2f} (rate {other_rate:g}) | "
        f"{mean - other_mean:+.2f} / {2 * math.hypot(error, other_error):.2f} |"
    )


def best_rate(results: dict[str, Any]) -> tuple[float, float, float]:
    """Returns mean, standard error and learning rate of the best rate."""
    candidates = []
    for rate in RATES:
        split = next(iter(results["summary"]))
        runs = [record for record in results["runs"] if record["learning_rate"] == rate]
        scores = [record["scores"][split][results["metric"]] for record in runs]
        candidates.append((statistics.fmean(scores), statistics.stdev(scores) / math.sqrt(len(scores)), rate))
    return max(candidates)


def run(command: str, *flags: str) -> None:
    """Runs a command of bertjax, with all output on stderr."""
    print(f"python -m bertjax.{command} {' '.join(flags)}", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", f"bertjax.{command}", *flags], check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main()
