"""Sentence vectors on SICK: those of given weights, in bertjax and in PyTorch, and after fine-tuning in bertjax.

python benchmarks/similarity.py --model=DIR --data=DIR --workdir=DIR [--seeds=3] [--epochs=3] [--rate=5e-5]

--model is a Hugging Face BERT folder, --data the folder with sick/. Vectors are means of the last states, made of
length 1; what is compared is the cosine of two, and the score Spearman's coefficient with the relatedness of SICK's
test part, times 100. Fine-tuning runs through the command that users type, on SICK's train part; of seeds the mean ±
standard error.
"""

import argparse
import csv
import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

_BATCH = 32


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rate", type=float, default=5e-5)
    arguments = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    with (arguments.data / "sick/SICK_test_annotated.txt").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    texts = [row[name] for name in ("sentence_A", "sentence_B") for row in rows]
    labels = [float(row["relatedness_score"]) for row in rows]

    theirs, ours = pytorch_vectors(arguments.model, texts), bertjax_vectors(arguments.model, texts)
    print(f"{len(texts)} texts; the vectors differ by {np.abs(ours - theirs).max():.1e} at most")
    print("\n| weights | vectors of | Spearman |\n|---|---|---|")
    print(f"| as they are | PyTorch | {spearman(theirs, labels):.2f} |")
    print(f"| as they are | bertjax | {spearman(ours, labels):.2f} |", flush=True)
    scores = finetuned(arguments)
    error = statistics.stdev(scores) / math.sqrt(len(scores)) if len(scores) > 1 else math.nan
    print(f"| fine-tuned | bertjax | {statistics.fmean(scores):.2f} ± {error:.2f} |")


def spearman(vectors: np.ndarray, labels: list[float]) -> float:
    """Of the cosines of the first half of the vectors with the second."""
    first, second = np.split(vectors, 2)
    return 100 * spearmanr((first * second).sum(axis=1), labels).statistic


def bertjax_vectors(model: str, texts: list[str]) -> np.ndarray:
    from bertjax.inference.predictor import load

    return normalized(load(model, "embed", dtype="float32").array(texts))


def pytorch_vectors(model: str, texts: list[str]) -> np.ndarray:
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    encoder = transformers.AutoModel.from_pretrained(model, dtype=torch.float32).eval()
    found = []
    with torch.no_grad():
        for start in range(0, len(texts), _BATCH):
            batch = tokenizer(texts[start : start + _BATCH], padding=True, return_tensors="pt")
            states, real = encoder(**batch).last_hidden_state, batch["attention_mask"][..., None]
            found.append(((states * real).sum(1) / real.sum(1)).numpy())
    return normalized(np.concatenate(found))


def normalized(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def finetuned(arguments: Any) -> list[float]:
    """The score of each seed."""
    flags = [
        "--config=configs/similarity.py:sick/relatedness",
        f"--workdir={arguments.workdir}",
        f"--config.init_from={arguments.model}",
        f"--config.data_dir={arguments.data}",
        f"--config.seeds={tuple(range(arguments.seeds))!r}",
        f"--config.epochs=({arguments.epochs},)",
        f"--config.learning_rates=({arguments.rate},)",
    ]
    print(f"python -m bertjax.finetune {' '.join(flags)}", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "bertjax.finetune", *flags], check=True, stdout=sys.stderr)
    results = json.loads((arguments.workdir / "results.json").read_bytes())
    chosen = {"learning_rate": arguments.rate, "epochs": arguments.epochs}
    runs = [run for run in results["runs"] if chosen.items() <= run.items() and run["seed"] < arguments.seeds]
    return [run["scores"]["test"]["spearman"] for run in runs]


if __name__ == "__main__":
    main()
