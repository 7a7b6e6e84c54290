"""Scores sentence vectors on SICK: with given weights in bertjax and PyTorch, and after fine-tuning in bertjax.

python benchmarks/similarity.py --model=DIR --data=DIR --workdir=DIR [--seeds=3] [--epochs=3] [--rate=5e-5]

--model is a Hugging Face folder of a BERT, --data the folder with sick/. A vector is the mean of the last hidden
states, normalized to length 1. The score is Spearman's correlation of cosine similarities with the relatedness in
SICK's test part, times 100. Fine-tuning runs bertjax.finetune on SICK's train part; its score is the mean ± standard
error over the seeds.
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

    reference, vectors = pytorch_vectors(arguments.model, texts), bertjax_vectors(arguments.model, texts)
    print(f"{len(texts)} texts; largest difference of the vectors: {np.abs(vectors - reference).max():.1e}")
    print("\n| weights | vectors of | Spearman |\n|---|---|---|")
    print(f"| given | PyTorch | {spearman(reference, labels):.2f} |")
    print(f"| given | bertjax | {spearman(vectors, labels):.2f} |", flush=True)
    scores = finetuned_scores(arguments)
    error = statistics.stdev(scores) / math.sqrt(len(scores)) if len(scores) > 1 else math.nan
    print(f"| fine-tuned | bertjax | {statistics.fmean(scores):.2f} ± {error:.2f} |")


def spearman(vectors: np.ndarray, labels: list[float]) -> float:
    """The correlation of the labels with the cosines between the first and the second half of the vectors."""
    first, second = np.split(vectors, 2)
    return 100 * spearmanr((first * second).sum(axis=1), labels).statistic


def bertjax_vectors(model: str, texts: list[str]) -> np.ndarray:
    from bertjax.inference.predictor import load_predictor

    return normalized(load_predictor(model, "embed", dtype="float32").array(texts))


def pytorch_vectors(model: str, texts: list[str]) -> np.ndarray:
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    encoder = transformers.AutoModel.from_pretrained(model, dtype=torch.float32).eval()
    vectors = []
    with torch.no_grad():
        for start in range(0, len(texts), _BATCH):
            batch = tokenizer(texts[start : start + _BATCH], padding=True, return_tensors="pt")
            states, mask = encoder(**batch).last_hidden_state, batch["attention_mask"][..., None]
            vectors.append(((states * mask).sum(1) / mask.sum(1)).numpy())
    return normalized(np.concatenate(vectors))


def normalized(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def finetuned_scores(arguments: Any) -> list[float]:
    """Fine-tunes, and returns the score of each seed."""
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
