"""Law 2: a run that is killed and resumed equals an uninterrupted run bit for bit."""

import json
import random
import runpy
import shutil
import signal
import subprocess
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from bertjax.checkpoints import store
from bertjax.config.parse import from_config_dict
from bertjax.pretraining.run import train
from tests.support.commands import ROOT, TINY_MODEL, command, overrides, run

STEPS = 60
SETTINGS = TINY_MODEL | {
    "phases": f'({{"steps":{STEPS - 20},"length":32,"batch":8}},{{"steps":20,"length":64,"batch":4}})',
    "log_every": 1,
    "eval_every": 15,
    "eval_sequences": 16,
    "checkpoint_every": 4,
    "keep_last": 100,
    "optimizer.warmup_steps": 10,
    "optimizer.learning_rate": 1e-3,
}


def _arguments(corpus: Path, workdir: Path) -> list[str]:
    flags = overrides(SETTINGS | {"corpus": corpus})
    return ["--config=configs/tiny.py", f"--workdir={workdir}", *flags]


def _state(workdir: Path) -> dict[str, np.ndarray]:
    """Path → array of the last checkpoint, for parameters and optimizer state."""
    step = max(store.steps(workdir / "checkpoints"))
    folder = workdir / "checkpoints" / str(step)
    with ocp.StandardCheckpointer() as checkpointer:
        trees = {item: checkpointer.restore(folder / item) for item in ("params", "optimizer")}
    leaves = jax.tree_util.tree_leaves_with_path(trees)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves} | {"step": np.asarray(step)}


def _lines(workdir: Path) -> int:
    path = workdir / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def _saving(workdir: Path) -> bool:
    return any("tmp" in entry.name for entry in (workdir / "checkpoints").glob("*"))


def _kill_when(condition, arguments: list[str]) -> None:
    """Starts the run, and sends SIGKILL as soon as `condition` holds."""
    process = subprocess.Popen(command("train", *arguments), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while not condition():
        assert process.poll() is None, f"the run ended before it was killed: {process.stderr.read()}"
        assert time.monotonic() < deadline
        time.sleep(0.0005)  # polling interval
    process.kill()
    assert process.wait() == -signal.SIGKILL


def _assert_same_run(uninterrupted: Path, workdir: Path) -> int:
    """Compares parameters, optimizer state and metrics bit for bit, and returns the step of both."""
    expected, actual = _state(uninterrupted), _state(workdir)
    assert expected.keys() == actual.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)
    assert (workdir / "metrics.jsonl").read_bytes() == (uninterrupted / "metrics.jsonl").read_bytes()
    return int(actual["step"])


@pytest.fixture(scope="module")
def uninterrupted(corpus, tmp_path_factory) -> Path:
    """The workdir of a run without interruptions."""
    workdir = tmp_path_factory.mktemp("uninterrupted") / "run"
    result = run("train", *_arguments(corpus, workdir))
    assert result.returncode == 0, result.stderr
    return workdir


def test_runs_are_equal_after_five_kills(corpus, uninterrupted, tmp_path):
    """SIGKILL at five random times, two of them during the writing of a checkpoint."""
    workdir = tmp_path / "run"
    arguments = _arguments(corpus, workdir)
    rng = random.Random(2)
    for kill in range(5):
        # Beyond the last kill, and mostly after the last checkpoint, so that steps are lost and repeated.
        target = _lines(workdir) + rng.randint(4, 12)
        if kill % 2:
            _kill_when(lambda target=target: _lines(workdir) >= target and _saving(workdir), arguments)
        else:
            _kill_when(lambda target=target: _lines(workdir) >= target, arguments)
    result = run("train", *arguments)
    assert result.returncode == 0, result.stderr
    assert result.stderr.startswith("continuing at step ")

    assert _assert_same_run(uninterrupted, workdir) == STEPS


def test_sigterm_saves_a_checkpoint_and_exits_cleanly(corpus, uninterrupted, tmp_path):
    """A preempted run exits with 0 between two checkpoint steps, and resumes like an uninterrupted run."""
    workdir = tmp_path / "run"
    arguments = _arguments(corpus, workdir)
    process = subprocess.Popen(command("train", *arguments), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while _lines(workdir) < 6:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.0005)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert "the same command continues" in stderr
    assert max(store.steps(workdir / "checkpoints")) < STEPS
    assert (workdir / "curves.png").is_file()
    assert run("train", *arguments).returncode == 0
    assert (workdir / "metrics.jsonl").read_bytes() == (uninterrupted / "metrics.jsonl").read_bytes()
    steps = [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps) and set(steps) == set(range(1, STEPS + 1))


# Changes to the shipped configs; the modern one has packed rows, and two phases with different rotary bases.
FAMILY = {
    "roberta_base": {},
    "albert_base": {"model.embedding_size": 16},
    "modern_base": {
        "model.num_hidden_layers": 5,
        "model.local_attention": 8,
        "packing": 4,
        "optimizer.decay_steps": 2,
        "phases": (
            {"steps": 4, "length": 32, "batch": 4, "global_rope_theta": 10_000.0},
            {"steps": 2, "length": 64, "batch": 2},
        ),
    },
}


@pytest.mark.parametrize("name", FAMILY)
def test_resume_law_of_the_family(name, corpus, tmp_path, messages):
    """A run that is killed after step 5, with a checkpoint of step 3, resumes to the same result."""
    config = runpy.run_path(str(ROOT / f"configs/{name}.py"))["get_config"]()
    phases = ({"steps": 6, "length": 32, "batch": 4},)
    settings = {"corpus": str(corpus), "phases": phases, "log_every": 1, "eval_sequences": 8, "checkpoint_every": 3}
    config.update_from_flattened_dict(TINY_MODEL | settings | {"optimizer.warmup_steps": 2} | FAMILY[name])
    config = from_config_dict(config)
    train(config, tmp_path / "uninterrupted")
    shutil.copytree(tmp_path / "uninterrupted", tmp_path / "killed")
    shutil.rmtree(tmp_path / "killed/checkpoints/6")
    lines = (tmp_path / "uninterrupted/metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "killed/metrics.jsonl").write_text("".join(lines[:5]))
    train(config, tmp_path / "killed")
    assert "continuing at step 3 of 6" in " ".join(messages)
    assert _assert_same_run(tmp_path / "uninterrupted", tmp_path / "killed") == 6
