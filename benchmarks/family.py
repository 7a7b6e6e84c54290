"""Pre-trains each shipped model family at a reduced size, and DistilBERT with and without its teacher.

python benchmarks/family.py --data=DIR --workdir=DIR [--steps=2000] [--families=bert,roberta,albert,modern,distilbert]

The folder of --data contains wiki/ (WikiExtractor's files). Runs the commands of bertjax with the config and tokenizer
of each family; reuses finished results in --workdir. Prints the held-out masked-LM loss of each run and that of a
unigram model, and plots all runs in --workdir/family.png.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SIZE = {
    "model.vocab_size": 0,
    "model.hidden_size": 256,
    "model.num_hidden_layers": 2,
    "model.num_attention_heads": 4,
    "model.intermediate_size": 1024,
    "model.max_position_embeddings": 64,
    "model.initializer_range": 0.06,  # 0.02 suits a width of 768
    "model.hidden_dropout_prob": 0.0,
    "model.attention_probs_dropout_prob": 0.0,
    "optimizer.learning_rate": 2e-3,
    "optimizer.beta2": 0.98,
    "optimizer.bias_correction": True,
    "layout.remat": "none",
}
# Config file, tokenizer, and further settings for the reduced size and batch.
FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("base", "wordpiece:2000", {}),
    "roberta": ("roberta_base", "bpe:2000", {}),
    "albert": ("albert_base", "unigram:2000", {"optimizer.learning_rate": 5e-3, "optimizer.eps": 1e-6}),
    "modern": (
        "modern_base",
        "wordpiece:2000",
        {
            "model.num_hidden_layers": 4,  # the first layer and a pattern of three
            "model.intermediate_size": 384,
            "model.attention_output_dropout_prob": 0.0,
            "model.local_attention": 16,
            "packing": 4,
        },
    ),
    "distilbert": ("distilbert_base", "bpe:2000", {"model.num_hidden_layers": 1}),
}
TEACHER = "roberta"


def main() -> None:
    """Runs all families and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--families", default=",".join(FAMILIES))
    arguments = parser.parse_args()
    print("| run | tokenizer | held-out loss | unigram loss | difference |")
    print("|---|---|---|---|---|", flush=True)
    for name in arguments.families.split(","):
        if name == "distilbert":
            teacher = arguments.workdir.absolute() / TEACHER
            run_and_print(arguments, name, "distilbert, taught", {"distillation.teacher": teacher})
            # Initialized from the teacher's layers, without distillation losses.
            no_losses = {"distillation.soft_weight": 0.0, "distillation.cosine_weight": 0.0}
            run_and_print(arguments, name, "distilbert, same start", {"distillation.teacher": teacher, **no_losses})
            run_and_print(arguments, name, "distilbert, alone", {})
        else:
            run_and_print(arguments, name, name, {})
    draw(arguments.workdir)


def run_and_print(arguments: Any, family: str, name: str, extra: dict[str, Any]) -> None:
    """Trains a run, unless it is finished, and prints its line of the table."""
    config, tokenizer, family_settings = FAMILIES[family]
    corpus = arguments.workdir / f"corpus-{tokenizer.replace(':', '-')}"
    workdir = arguments.workdir / name.replace(", ", "-").replace(" ", "-")
    run("prepare", f"--source=wiki:{arguments.data}/wiki", f"--tokenizer=new:{tokenizer}", f"--output={corpus}")
    steps = arguments.steps
    settings = SIZE | family_settings | extra
    settings |= {"optimizer.warmup_steps": steps // 10, "log_every": 20, "eval_every": steps // 10}
    if family == "modern":
        settings["optimizer.decay_steps"] = steps // 5
    phases = ({"steps": steps, "length": 64, "batch": 32},)
    flags = [f"--config.{key}={value}" for key, value in settings.items()]
    files = [f"--config=configs/{config}.py", f"--workdir={workdir}", f"--config.corpus={corpus.absolute()}"]
    run("train", *files, f"--config.phases={phases!r}", *flags)
    last = evaluations(workdir)[-1]
    loss, entropy = last["eval/mlm_loss"], last["eval/unigram_entropy"]
    print(f"| {name} | {tokenizer} | {loss:.3f} | {entropy:.3f} | {entropy - loss:.3f} |", flush=True)


def evaluations(workdir: Path) -> list[dict[str, float]]:
    """The metrics of a run on held-out text."""
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").open()]
    return [record for record in records if "eval/mlm_loss" in record]


def draw(workdir: Path) -> None:
    """Plots the difference of each run's loss from that of a unigram model."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for path in sorted(workdir.glob("*/metrics.jsonl")):
        records = evaluations(path.parent)
        below = [record["eval/unigram_entropy"] - record["eval/mlm_loss"] for record in records]
        axes.plot([record["step"] for record in records], below, marker=".", label=path.parent.name)
    axes.axhline(0.5, color="gray", linestyle=":")
    axes.set(xlabel="step", ylabel="nats below a unigram model", title="held-out masked-LM loss")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(workdir / "family.png", dpi=100)


def run(command: str, *flags: str) -> None:
    """Runs a command of bertjax, with all output on stderr."""
    print(f"python -m bertjax.{command} {' '.join(flags)}", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", f"bertjax.{command}", *flags], check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main()
