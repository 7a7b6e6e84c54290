"""Fine-tunes the same model with the same recipe in bertjax and in PyTorch `transformers`, alternating per seed.

python benchmarks/finetune.py --model=DIR --data=DIR [--tasks=cola,sst2,rte,pos,entailment,relatedness] [--seeds=5]
    [--results=FILE]

Prints one line per task: dev scores of both (mean ± standard error over the seeds), their difference and twice its
standard error, and examples per second of both, as medians over the seeds without those in which bertjax compiles or
which had fewer cores. A seed takes minutes, a table hours: finished seeds are appended to the file of --results and
reused.
PyTorch gets the same batches in the same order, padded to the longest row as by its Trainer; bertjax packs them.
PyTorch runs in a separate process; each side waits while the other one runs.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import math
import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

EXAMPLES = 3000  # maximum for training
SPECS = {  # task, data folder, and the scored split if it is not the task's dev
    "cola": {"task": "glue/cola", "data_dir": "glue"},
    "sst2": {"task": "glue/sst2", "data_dir": "glue"},
    "rte": {"task": "glue/rte", "data_dir": "glue"},
    # Without the training part of the treebank: trains on dev, scores on test.
    "pos": {
        "task": "conllu/upos",
        "data_dir": "ud_ewt",
        "files": {"train": "en_ewt-ud-dev.conllu", "dev": "en_ewt-ud-test.conllu"},
    },
    "entailment": {"task": "sick/entailment", "data_dir": "sick", "split": "test"},
    "relatedness": {"task": "sick/relatedness", "data_dir": "sick", "split": "test"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="Hugging Face folder of a BERT.")
    parser.add_argument("--data", required=True, help="Folder with glue/, sick/ and ud_ewt/.")
    parser.add_argument("--tasks", default=",".join(SPECS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--examples", type=int, default=EXAMPLES)
    parser.add_argument("--rate", type=float, default=5e-5)
    parser.add_argument("--results", type=Path, default=Path("finetune.jsonl"))
    arguments = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    from bertjax.cli import tune_cpu_malloc

    tune_cpu_malloc()  # as in the commands
    print("| task | score | bertjax | transformers | difference / 2 SE | examples/s | ratio |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name in arguments.tasks.split(","):
        recipe = recipe_values(name, arguments).items()
        done = {record["seed"]: record for record in read(arguments.results) if recipe <= record.items()}
        missing = [seed for seed in range(arguments.seeds) if seed not in done]
        if missing:
            done |= compare(name, missing, arguments)
        print(table_line(name, [done[seed] for seed in range(arguments.seeds)]), flush=True)


def recipe_values(name: str, arguments: Any) -> dict[str, Any]:
    """The settings that all seeds of a line share."""
    model = "/".join(Path(arguments.model).parts[-2:])
    return {"task": name, "model": model} | {key: getattr(arguments, key) for key in ("rate", "epochs", "examples")}


def read(path: Path) -> list[dict[str, Any]]:
    """The records of finished seeds."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def compare(name: str, seeds: list[int], arguments: Any) -> dict[int, dict[str, Any]]:
    """Runs seeds of a task on both sides; returns their records, and appends each to the results file."""
    from bertjax.config.finetuning import FinetuneConfig, TableConfig
    from bertjax.finetuning.sweep import Sweep
    from bertjax.finetuning.task_model import open_task_model
    from bertjax.trainer.loop import StopSignal

    spec = SPECS[name]
    config = FinetuneConfig(
        task=spec["task"],
        data_dir=str(Path(arguments.data) / spec["data_dir"]),
        table=TableConfig(**spec.get("files", {})),
        init_from=arguments.model,
        learning_rates=(arguments.rate,),
        epochs=(arguments.epochs,),
        seeds=tuple(seeds),
        dtype="float32",
    )
    task_model, _, params = open_task_model(config)
    task = task_model.task
    train, dev = task_model.split("train", arguments.examples), task_model.split(spec.get("split", task.dev[0]))
    sweep = Sweep(task_model, params, train, [dev])
    job = Job(config, task.kind.name, len(task.labels), train.batches, dev.batches)
    records = {}
    spawn = multiprocessing.get_context("spawn")
    with StopSignal() as stop, concurrent.futures.ProcessPoolExecutor(1, spawn) as pytorch:
        for run in config.runs():
            result = sweep.train(run, stop, lambda step, values: None, show_progress=False)
            bertjax_result = result.scores[dev.name][task.metric], result.examples_per_second
            scores, speed = pytorch.submit(train_in_pytorch, job, run.seed).result()
            predictions = task.kind.predictions(dev.examples, dev.batches.rows, scores, task_model.limits)
            pytorch_result = task_model.scores(dev, predictions)[task.metric], speed
            records[run.seed] = recipe_values(name, arguments) | {
                "metric": task.metric,
                "seed": run.seed,
                "cores": len(os.sched_getaffinity(0)),
                "compiles": not records,
                "scores": [bertjax_result[0], pytorch_result[0]],
                "examples_per_second": [bertjax_result[1], pytorch_result[1]],
            }
            with arguments.results.open("a") as file:
                print(json.dumps(records[run.seed]), file=file)
    return records


def table_line(name: str, records: list[dict[str, Any]]) -> str:
    """A line of the table."""
    scores = list(zip(*(record["scores"] for record in records), strict=True))
    means = [statistics.fmean(side) for side in scores]
    errors = [statistics.stdev(side) / math.sqrt(len(side)) if len(side) > 1 else math.nan for side in scores]
    bound = 2 * math.hypot(*errors)
    timed = [record for record in records if None not in record["examples_per_second"]]
    timed = [record for record in timed if not record["compiles"]] or timed
    timed = [record for record in timed if record["cores"] == max(record["cores"] for record in timed)]
    speeds = [statistics.median(record["examples_per_second"][side] for record in timed) for side in (0, 1)]
    return (
        f"| {name} | {records[0]['metric']} | {means[0]:.2f} ± {errors[0]:.2f} | {means[1]:.2f} ± {errors[1]:.2f} | "
        f"{means[0] - means[1]:+.2f} / {bound:.2f} | {speeds[0]:.0f}, {speeds[1]:.0f} | {speeds[0] / speeds[1]:.2f} |"
    )


@dataclasses.dataclass(frozen=True)
class Job:
    """The input of the PyTorch process."""

    config: Any  # FinetuneConfig with one learning rate and number of epochs
    kind: str
    labels: int
    train: Any  # Batches
    dev: Any  # Batches

    @property
    def steps(self) -> int:
        """Optimizer updates per run."""
        return self.config.epochs[0] * self.train.steps

    def batches(self, seed: int) -> Iterator[dict[str, np.ndarray]]:
        """Yields all batches of a run in bertjax's order."""
        for epoch in range(1, self.config.epochs[0] + 1):
            yield from map(self.train.padded_batch, self.train.order(seed, epoch))


def train_in_pytorch(job: Job, seed: int) -> tuple[list[np.ndarray], float]:
    """Trains one run; returns the logits of each row of dev, and examples per second."""
    import torch

    torch.manual_seed(seed)
    model = torch_model(job)
    optimizer, schedule = recipe(job, model)
    model.train()
    begin = time.perf_counter()
    for batch in job.batches(seed):
        loss_of(job.kind, model(**trimmed(batch)).logits, batch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), job.config.optimizer.clip_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    speed = job.steps * job.train.layout.batch / (time.perf_counter() - begin)

    model.eval()
    scores: list[np.ndarray] = [np.zeros(0)] * len(job.dev.rows)
    with torch.no_grad():
        order = np.argsort([len(row.input_ids) for row in job.dev.rows], kind="stable")
        size = job.dev.layout.batch
        for units in (order[at : at + size] for at in range(0, len(order), size)):
            logits = model(**trimmed(job.dev.padded_batch(units))).logits.numpy()
            for row, unit in enumerate(units):
                scores[unit] = logits[row]
    return scores, speed


def torch_model(job: Job) -> Any:
    """The PyTorch model with a new head."""
    import torch
    import transformers
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    tags = job.kind == "tagging"
    model_class = transformers.BertForTokenClassification if tags else transformers.BertForSequenceClassification
    return model_class.from_pretrained(
        job.config.init_from,
        num_labels=1 if job.kind == "regression" else job.labels,
        dtype=torch.float32,
        hidden_dropout_prob=job.config.hidden_dropout_prob,
        attention_probs_dropout_prob=job.config.attention_probs_dropout_prob,
    )


def trimmed(batch: dict[str, np.ndarray]) -> dict[str, Any]:
    """The model inputs up to the longest row, without padding rows."""
    import torch

    real = batch["attention_mask"].sum(axis=1) > 1
    length = batch["attention_mask"].sum(axis=1).max()
    names = ("input_ids", "token_type_ids", "attention_mask")
    return {name: torch.tensor(batch[name][real, :length], dtype=torch.long) for name in names}


def loss_of(kind: str, logits: Any, batch: dict[str, np.ndarray]) -> Any:
    import torch
    from torch.nn import functional

    real = batch["attention_mask"].sum(axis=1) > 1
    labels = batch["labels"][real]
    if kind == "regression":
        return functional.mse_loss(logits[:, 0], torch.tensor(labels))
    if kind == "tagging":
        length = logits.shape[1]
        marked = np.where(batch["weights"][real, :length] > 0, labels[:, :length], -100)
        return functional.cross_entropy(logits.flatten(0, 1), torch.tensor(marked, dtype=torch.long).flatten())
    return functional.cross_entropy(logits, torch.tensor(labels, dtype=torch.long))


def recipe(job: Job, model: Any) -> tuple[Any, Any]:
    """AdamW without decay of biases and LayerNorms, and bertjax's schedule."""
    import torch

    from bertjax.config.finetuning import optimizer_config
    from bertjax.optimizers.schedules import make_schedule

    update, total = job.config.optimizer, job.steps
    plain = [p for name, p in model.named_parameters() if name.endswith("bias") or "LayerNorm" in name]
    others = [p for name, p in model.named_parameters() if not (name.endswith("bias") or "LayerNorm" in name)]
    groups = [{"params": others, "weight_decay": update.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(
        groups, lr=job.config.learning_rates[0], betas=(update.beta1, update.beta2), eps=update.eps
    )
    rates = make_schedule(optimizer_config(update), 1.0, round(update.warmup * total), total)
    values = [float(rates(step)) for step in range(total + 1)]
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: values[step])


if __name__ == "__main__":
    main()
