"""Sweeps from a pre-trained checkpoint: results, checkpoints, continuation and refusals."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess

import jax
import numpy as np
import pytest

from bertjax import decoding
from bertjax.arrays.trees import named_leaves
from bertjax.config.finetuning import (
    FinetuneConfig,
    TableConfig,
    TaskDistillationConfig,
    UpdateConfig,
    from_config_dict,
)
from bertjax.errors import UserError
from bertjax.finetuning.report import format_results
from bertjax.finetuning.run import finetune
from bertjax.finetuning.sweep import Sweep
from bertjax.finetuning.task_model import TaskModel, open_task_model
from bertjax.interop.loading import load_model
from bertjax.trainer.loop import StopSignal
from tests.support.commands import ROOT, TINY_MODEL, command, overrides, run

WORDS = ["the", "returns", "a", "value", "of", "class", "method", "name", "object", "is", "function"]


def write_reviews(path, count: int, seed: int) -> None:
    """Writes texts that are good if they contain "list", and bad if they contain "string"."""
    rng = np.random.default_rng(seed)
    lines = []
    for good in rng.integers(0, 2, count):
        words = [*rng.choice(WORDS, rng.integers(3, 6)), "list" if good else "string"]
        text = " ".join(rng.permutation(words))
        lines.append(json.dumps({"text": text, "label": "good" if good else "bad"}))
    path.write_text("\n".join(lines))


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reviews")
    write_reviews(folder / "train.jsonl", 300, 0)
    write_reviews(folder / "dev.jsonl", 100, 1)
    return folder


@pytest.fixture(scope="module")
def config(reviews, trained) -> FinetuneConfig:
    return FinetuneConfig(
        task="table/classification",
        data_dir=str(reviews),
        table=TableConfig(train="train.jsonl", dev="dev.jsonl"),
        init_from=str(trained),
        learning_rates=(1e-2, 1e-9),
        epochs=(3,),
        seeds=(0, 1),
        length=32,
        batch=16,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        log_every=10,
    )


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    """(workdir, results) of a finished sweep."""
    workdir = tmp_path_factory.mktemp("sweep") / "run"
    return workdir, finetune(config, workdir)


def test_a_sweep_learns_and_reports_all_runs(config, finished):
    workdir, results = finished
    assert [record["seed"] for record in results["runs"]] == [0, 1, 0, 1]
    assert results["best"]["learning_rate"] == 1e-2
    assert results["best"]["scores"]["dev"]["accuracy"] > 80
    rows = results["summary"]["dev"]
    assert [row["learning_rate"] for row in rows] == [1e-2, 1e-9] and rows[0]["seeds"] == 2
    accuracies = [record["scores"]["dev"]["accuracy"] for record in results["runs"][:2]]
    assert rows[0]["scores"]["accuracy"]["mean"] == pytest.approx(np.mean(accuracies))
    assert rows[0]["scores"]["accuracy"]["deviation"] == pytest.approx(np.std(accuracies, ddof=1))
    assert json.loads((workdir / "results.json").read_text()) == results
    assert (workdir / "confusion-dev.png").read_bytes().startswith(b"\x89PNG")
    records = [json.loads(line) for line in (workdir / "predictions/dev.jsonl").read_text().splitlines()]
    right = np.mean([record["prediction"] == record["label"] for record in records])
    assert 100 * right == pytest.approx(results["best"]["scores"]["dev"]["accuracy"])
    losses = [json.loads(line) for line in (workdir / "runs/rate-0.01-epochs-3-seed-0/metrics.jsonl").open()]
    assert losses[0]["train/loss"] > losses[-2]["train/loss"] and "dev/accuracy" in losses[-1]


def test_evaluate_reproduces_the_scores_of_the_best_run(config, finished):
    """From the checkpoint alone, which holds labels, limits and tokenizer."""
    workdir, results = finished
    result = run("evaluate", f"--checkpoint={workdir}", f"--data_dir={config.data_dir}", "--dev=dev.jsonl", "--batch=7")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["dev"] == pytest.approx(results["best"]["scores"]["dev"])
    assert "dev: 0 of " in result.stderr and "0 of 100 examples (0.00%) truncated" in result.stderr
    assert "warning" not in result.stderr


def test_a_stopped_sweep_continues(config, finished, tmp_path, messages):
    workdir, results = finished
    shutil.copytree(workdir, tmp_path / "run")
    lines = (workdir / "runs.jsonl").read_text().splitlines()
    for damaged in ([*lines[:3], lines[3][:20]], [*lines, lines[0]], [lines[0].replace("1", "2"), *lines[1:]]):
        (tmp_path / "run/runs.jsonl").write_text("\n".join(damaged) + "\n")
        with pytest.raises(UserError, match=r"runs\.jsonl, line \d: not valid .*; delete the line to repeat its run"):
            finetune(config, tmp_path / "run")
    (tmp_path / "run/runs.jsonl").write_text("\n".join(lines[:3]) + "\n")
    again = finetune(config, tmp_path / "run")
    assert "run 4 of 4" in " ".join(messages)
    # Without the best run, which is repeated and saved.
    (tmp_path / "run/runs.jsonl").write_text("\n".join(lines[2:]) + "\n")
    again = finetune(config, tmp_path / "run")
    by_name = {(record["learning_rate"], record["seed"]): record["scores"] for record in results["runs"]}
    assert {(record["learning_rate"], record["seed"]): record["scores"] for record in again["runs"]} == by_name
    saved = load_model(tmp_path / "run").task.run
    assert saved["learning_rate"] == 1e-2 and saved["scores"] == again["best"]["scores"]
    (tmp_path / "run/runs.jsonl").write_text("\n".join(lines) + "\n")
    again = finetune(dataclasses.replace(config, learning_rates=(1e-2,)), tmp_path / "run")
    assert again["best"] == results["best"]
    assert [record["scores"] for record in again["runs"]] == [record["scores"] for record in results["runs"]]
    record = decoding.without_seal(json.loads(lines[1])) | {"scores": {"dev": {"mcc": 1.0}}}
    (tmp_path / "run/runs.jsonl").write_text("\n".join([lines[0], json.dumps(decoding.sealed(record))]) + "\n")
    with pytest.raises(UserError, match=r"runs\.jsonl, line 2: not valid \(scores: those of another sweep\); delete"):
        finetune(config, tmp_path / "run")
    with pytest.raises(UserError, match=r"config\.batch was 16 at the start and is now 8; set it back"):
        finetune(dataclasses.replace(config, batch=8), tmp_path / "run")


def test_unknown_tokens_and_truncated_examples_are_logged(config, tmp_path, messages):
    """Once for all runs; above 1 % with a warning that names the setting."""
    unreadable = [{"text": "the ☃ list " * (1 + 9 * (i == 0)), "label": "good" if i % 2 else "bad"} for i in range(40)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, unreadable)))
    shutil.copy(f"{config.data_dir}/dev.jsonl", tmp_path)
    one_epoch = dataclasses.replace(config, epochs=(1,), length=24)
    finetune(dataclasses.replace(one_epoch, data_dir=str(tmp_path)), tmp_path / "run")
    counts = [line for line in messages if "unknown ([UNK])" in line or "truncated" in line]
    length = len(load_model(config.init_from).tokenizer.encode("the ☃ list"))
    # The model reads [CLS], [SEP] and 22 tokens of the long text.
    share = f"{39 + -(-21 // length)} of {39 * length + 22} tokens ("
    assert counts[0].startswith(f"train: {share}") and counts[0].endswith(", 1 of 40 examples (2.50%) truncated")
    assert counts[1].startswith(f"train: {share}") and "check that the tokenizer is the model's own" in counts[1]
    assert counts[2] == (
        "train: 1 of 40 examples (2.50%) truncated: "
        "raise config.length (24; the model reads up to 64 tokens), or shorten the texts"
    )
    assert counts[3].startswith("dev: 0 of ") and counts[3].endswith(", 0 of 100 examples (0.00%) truncated")
    assert len(counts) == 4


def test_a_signal_stops_a_sweep_and_the_same_command_continues_it(reviews, trained, tmp_path):
    settings = {"init_from": trained, "data_dir": reviews, "table.train": "train.jsonl", "table.dev": "dev.jsonl"}
    settings |= {"seeds": "(0,1)", "length": 32, "log_every": 1, "batch": 8}
    arguments = ["--config=configs/classify.py", f"--workdir={tmp_path}/run", *overrides(settings)]
    process = subprocess.Popen(command("finetune", *arguments), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.startswith("step "):
            process.send_signal(signal.SIGTERM)
            break
    stderr = process.stderr.read()
    assert process.wait() == 0, stderr
    assert "stopped with 0 finished runs; the same command continues with rate-" in stderr
    assert not (tmp_path / "run/checkpoints").exists()
    again = run("finetune", *arguments)
    assert again.returncode == 0, again.stderr
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert len(results["runs"]) == 2
    assert again.stdout == format_results(results) + "\n" and "dev accuracy" in again.stdout


def open_sweep(config: FinetuneConfig) -> Sweep:
    task_model, _, params = open_task_model(config)
    return Sweep(task_model, params, task_model.split("train"), [task_model.split("dev")])


def params_after(config: FinetuneConfig) -> list[dict]:
    sweep = open_sweep(config)
    with StopSignal() as stop:
        runs = [sweep.train(run, stop, lambda step, values: None, show_progress=False) for run in config.runs()]
    return [jax.device_get(named_leaves(result.params)) for result in runs]


def test_a_run_does_not_depend_on_the_rest_of_its_sweep(config):
    config = dataclasses.replace(config, learning_rates=(1e-3,), epochs=(1,), hidden_dropout_prob=0.1)
    compiled = []

    def listen(event: str, duration: float, **about: str) -> None:
        if event == "/jax/core/compile/backend_compile_duration" and about["fun_name"] == "jit(step)":
            compiled.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        first, second = params_after(config)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert 1 <= len(compiled) <= 5  # once per length for all runs
    (alone,) = params_after(dataclasses.replace(config, seeds=(1,)))
    for name, value in second.items():
        assert np.array_equal(alone[name], value), name
    assert not np.array_equal(first["task_head/kernel"], second["task_head/kernel"])


def test_dev_is_predicted_once_per_run_and_compiled_once(config, tmp_path, monkeypatch):
    """The predictions of the best run are written; a later process has to compute them again."""
    config = dataclasses.replace(config, learning_rates=(1e-3,), epochs=(1,), train_examples=32)
    predicted, compiled, predictions = [], [], TaskModel.predictions

    def listen(event: str, duration: float, **about: str) -> None:
        if event == "/jax/core/compile/backend_compile_duration" and about["fun_name"] == "jit(compute_batch)":
            compiled.append(duration)

    def counted(task_model, params, split):
        result = predictions(task_model, params, split)
        predicted.append((split.name, len(compiled)))
        return result

    monkeypatch.setattr(TaskModel, "predictions", counted)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        finetune(config, tmp_path / "run")
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert compiled and predicted == [("dev", len(compiled))] * 2
    written = (tmp_path / "run/predictions/dev.jsonl").read_text()
    finetune(config, tmp_path / "run")
    assert len(predicted) == 3 and (tmp_path / "run/predictions/dev.jsonl").read_text() == written


def test_patience_stops_a_run_without_improvement(config, tmp_path, monkeypatch):
    """At a tiny learning rate all epochs have the same score. The stop signal is checked once per step."""
    config = dataclasses.replace(config, learning_rates=(1e-9,), epochs=(6,), seeds=(0,), patience=2)
    checked_steps = []
    monkeypatch.setattr(StopSignal, "due", lambda self, step: checked_steps.append(step))
    best = finetune(config, tmp_path / "run")["best"]
    scored = [json.loads(line) for line in next((tmp_path / "run/runs").glob("*/metrics.jsonl")).open()]
    assert sum("dev/accuracy" in record for record in scored) == 3
    assert best["epoch"] == 1 and best["steps"] == 3 * 19
    assert checked_steps == list(range(1, 3 * 19 + 1))


def test_patience_selects_the_best_epoch(config, tmp_path):
    config = dataclasses.replace(config, learning_rates=(1e-2,), epochs=(6,), seeds=(0,), patience=1)
    results = finetune(config, tmp_path / "run")
    scores = [json.loads(line) for line in (tmp_path / "run/runs/rate-0.01-epochs-6-seed-0/metrics.jsonl").open()]
    accuracies = [record["dev/accuracy"] for record in scores if "dev/accuracy" in record]
    best = results["best"]
    assert best["scores"]["dev"]["accuracy"] == max(accuracies) == accuracies[best["epoch"] - 1]
    assert len(accuracies) in (best["epoch"] + 1, 6)


def test_a_checkpoint_of_eight_devices_is_fine_tuned_on_one(corpus, reviews, config, tmp_path):
    """Checkpoints load on any mesh."""
    settings = TINY_MODEL | {
        "corpus": corpus,
        "mesh.data": 1,
        "mesh.fsdp": 8,
        "phases": '({"steps":1,"length":16,"batch":8},)',
        "eval_every": 0,
        "eval_sequences": 8,
    }
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    arguments = ["--config=configs/tiny.py", f"--workdir={tmp_path}/pod", *overrides(settings)]
    result = run("train", *arguments, env=os.environ | {"XLA_FLAGS": flags})
    assert result.returncode == 0, result.stderr
    assert jax.device_count() == 1
    config = dataclasses.replace(
        config, init_from=f"{tmp_path}/pod", learning_rates=(1e-3,), epochs=(1,), seeds=(0,), train_examples=32
    )
    assert finetune(config, tmp_path / "run")["best"]["steps"] == 2


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"init_from": ""}, ["config.init_from"]),
        ({"learning_rates": ()}, ["config.learning_rates", "at least one"]),
        ({"lenght": 3}, ["did you mean config.length"]),
        ({"length": 128}, ["config.length is 128", "at most 64"]),
        ({"task": "glue/sst3"}, ["glue/sst2"]),
        ({"optimizer": dataclasses.asdict(UpdateConfig()) | {"schedule": "wsd"}}, ["optimizer.schedule"]),
        ({"table": {"train": "train.jsonl", "dev": "dev.jsonl", "text": "review"}}, ["review", "line 1"]),
    ],
)
def test_invalid_settings_are_refused_before_anything_is_written(config, change, parts, tmp_path):
    with pytest.raises(UserError) as error:
        finetune(from_config_dict(dataclasses.asdict(config) | change), tmp_path / "run")
    assert all(part in str(error.value) for part in parts), str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_is_refused(config, tmp_path):
    config = dataclasses.replace(config, learning_rates=(1e30,))
    with pytest.raises(UserError, match=r"^rate-1e\+30-epochs-3-seed-0: train/loss is .* lower the learning rate"):
        finetune(config, tmp_path / "run")


def test_distillation_from_a_fine_tuned_teacher(config, finished, tmp_path):
    """The loss is the weighted sum of task loss and soft loss; the soft loss alone is enough to learn the task."""
    distilled = TaskDistillationConfig(teacher=str(finished[0]), soft_weight=0.5)
    config = dataclasses.replace(config, learning_rates=(1e-2,), seeds=(0,), distillation=distilled)
    finetune(dataclasses.replace(config, epochs=(1,)), tmp_path / "half")
    (record, *_) = [json.loads(line) for line in next((tmp_path / "half/runs").glob("*/metrics.jsonl")).open()]
    expected = 0.5 * record["train/task_loss"] + 0.5 * record["train/soft_loss"]
    assert record["train/loss"] == pytest.approx(expected, rel=1e-5)
    soft_only = dataclasses.replace(config, distillation=dataclasses.replace(distilled, soft_weight=1.0))
    assert finetune(soft_only, tmp_path / "soft")["best"]["scores"]["dev"]["accuracy"] > 80


def test_teachers_of_other_tasks_are_refused(config, trained, tmp_path):
    config = dataclasses.replace(config, distillation=TaskDistillationConfig(teacher=str(trained)))
    with pytest.raises(UserError, match="has kind 'pre-training', table/classification has 'classification'"):
        finetune(config, tmp_path / "run")
