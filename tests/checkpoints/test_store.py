"""Checkpoints: damage is detected, reported and moved away, and nothing is lost."""

import dataclasses
import os
import random
import shutil
import subprocess

import jax
import numpy as np
import pytest

from bertjax.checkpoints import store
from bertjax.checkpoints.checksums import checksums
from bertjax.config.pretraining import Phase
from bertjax.errors import UserError
from bertjax.interop.loading import load_model
from bertjax.pretraining.run import train
from tests.support.commands import TINY_MODEL, assert_refused, flip_a_bit, overrides, run


@pytest.fixture
def workdir(trained, tmp_path):
    """Returns a copy of the finished run with checkpoints at steps 4 and 8, which a test may damage."""
    return shutil.copytree(trained, tmp_path / "run")


def _data_files(folder):
    """Returns the files of a folder, the largest (with array data) first."""
    return sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: -path.stat().st_size)


def _blocks(folder):
    """Returns the size of a folder in KiB, in pages of 4 KiB."""
    return sum(4 * -(-path.stat().st_size // 4096) for path in folder.rglob("*"))


def _truncate(path):
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [flip_a_bit, _truncate, os.unlink], ids=["flipped", "cut", "missing"])
@pytest.mark.parametrize("item", ["params", "optimizer", "meta"])
def test_a_broken_checkpoint_is_moved_and_the_one_before_is_used(workdir, tiny_config, trained, messages, damage, item):
    damage(_data_files(workdir / "checkpoints/8" / item)[0])
    train(tiny_config, workdir)
    text = "\n".join(messages)
    assert "checkpoint 8 is broken" in text and "checkpoints.broken/8-1" in text
    assert (workdir / "checkpoints.broken/8-1").is_dir()
    assert "continuing at step 4 of 8" in text
    assert store.steps(workdir / "checkpoints") == [4, 8]
    expected, _ = store.read_params(trained / "checkpoints/8")
    actual, _ = store.read_params(workdir / "checkpoints/8")
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_any_flipped_bit_of_an_array_fails_its_checksum():
    rng = np.random.default_rng(0)
    generator = random.Random(0)
    tree = {"a": rng.normal(size=(7, 5, 3)).astype(np.float32), "b": np.arange(4, dtype=np.int32)}
    before = jax.device_get(checksums(tree))
    for _ in range(50):
        name = generator.choice(["a", "b"])
        changed = {key: value.copy() for key, value in tree.items()}
        bits = changed[name].reshape(-1).view(np.uint32)
        bits[generator.randrange(bits.size)] ^= np.uint32(1 << generator.randrange(32))
        after = jax.device_get(checksums(changed))
        assert [key for key in before if before[key] != after[key]] == [name]
    swapped = tree | {"a": tree["a"][::-1]}
    assert checksums(swapped)["a"] != before["a"]


def test_loading_falls_back_without_changing_files(workdir, capfd, messages):
    flip_a_bit(_data_files(workdir / "checkpoints/8/params")[0])
    messages.clear()
    assert load_model(workdir).step == 4
    assert "checkpoint 8 is broken" in messages[0]
    assert store.steps(workdir / "checkpoints") == [4, 8]
    with pytest.raises(UserError, match="is broken"):
        load_model(workdir / "checkpoints/8")


def test_only_broken_checkpoints_are_an_error_and_training_does_not_start_over(workdir, tiny_config):
    for step in (4, 8):
        _truncate(_data_files(workdir / f"checkpoints/{step}/params")[0])
    for _ in range(2):
        with pytest.raises(UserError, match="remove that folder to start over"):
            train(tiny_config, workdir)
    assert (workdir / "metrics.jsonl").read_text()


def test_a_checkpoint_is_self_contained(trained, tmp_path, corpus):
    """A single STEP folder suffices."""
    folder = shutil.copytree(trained / "checkpoints/8", tmp_path / "8")
    model = load_model(folder)
    assert model.step == 8
    assert model.config.model.hidden_size == TINY_MODEL["model.hidden_size"]
    assert model.tokenizer.encode("the list") == load_model(trained).tokenizer.encode("the list")


def test_keep_last_and_keep_every(tiny_config, tmp_path):
    config = dataclasses.replace(tiny_config, phases=(Phase(12, 32, 8),), checkpoint_every=2, keep_last=2, keep_every=6)
    train(config, tmp_path / "run")
    assert store.steps(tmp_path / "run/checkpoints") == [6, 10, 12]


def test_leftovers_of_a_killed_save_are_removed(workdir, tiny_config):
    leftover = workdir / "checkpoints/6.orbax-checkpoint-tmp"
    shutil.copytree(workdir / "checkpoints/4", leftover)
    train(dataclasses.replace(tiny_config, phases=(Phase(9, 32, 8),)), workdir)
    assert not leftover.exists()
    assert store.steps(workdir / "checkpoints") == [4, 8, 9]


def test_a_full_disk_is_reported_and_the_run_continues_once_there_is_space(corpus, trained, tmp_path):
    """The disk is a tmpfs with space for two and a half checkpoints."""
    disk = tmp_path / "disk"
    disk.mkdir()
    kilobytes = int(_blocks(trained) + 0.5 * _blocks(trained / "checkpoints/8"))
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", disk], capture_output=True
    ).returncode:
        pytest.skip("needs permission to mount a tmpfs")
    try:
        settings = TINY_MODEL | {
            "corpus": corpus,
            "phases": '({"steps":8,"length":32,"batch":8},)',
            "checkpoint_every": 2,
            "log_every": 1,
            "keep_last": 100,
        }
        arguments = ["--config=configs/tiny.py", f"--workdir={disk}/run", *overrides(settings)]
        refused = run("train", *arguments)
        assert_refused(refused, "no space left on the device", "the last finished checkpoint is step", disk)
        finished = store.steps(disk / "run/checkpoints")
        assert finished and 8 not in finished
        for step in finished:
            store.read_params(disk / f"run/checkpoints/{step}")
        subprocess.run(["mount", "-o", "remount,size=100m", disk], check=True)
        continued = run("train", *arguments)
        assert continued.returncode == 0, continued.stderr
        assert f"continuing at step {finished[-1]} of 8" in continued.stderr
    finally:
        subprocess.run(["umount", disk], check=True)
