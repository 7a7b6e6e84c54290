"""Checkpoints: what is damaged is seen, said and set aside, and nothing is lost."""

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
    """A copy of the finished run, checkpoints at steps 4 and 8, that a test may damage."""
    return shutil.copytree(trained, tmp_path / "run")


def _data_files(folder):
    """The files that hold the arrays themselves, the largest first."""
    return sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: -path.stat().st_size)


def _blocks(folder):
    """Kilobytes that a folder takes in pages of 4 KiB."""
    return sum(4 * -(-path.stat().st_size // 4096) for path in folder.rglob("*"))


def _truncate(path):
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [flip_a_bit, _truncate, os.unlink], ids=["flipped", "cut", "missing"])
@pytest.mark.parametrize("item", ["params", "optimizer", "meta"])
def test_broken_checkpoint_is_set_aside_and_the_one_before_taken(workdir, tiny_config, trained, said, damage, item):
    damage(_data_files(workdir / "checkpoints/8" / item)[0])
    train(tiny_config, workdir)
    text = "\n".join(said)
    assert "checkpoint 8 is broken" in text and "checkpoints.broken/8-1" in text
    assert (workdir / "checkpoints.broken/8-1").is_dir()
    assert "continuing at step 4 of 8" in text
    assert store.steps(workdir / "checkpoints") == [4, 8]
    expected, _ = store.read_params(trained / "checkpoints/8")
    found, _ = store.read_params(workdir / "checkpoints/8")
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_any_flipped_bit_of_an_array_fails_its_checksum():
    rng = np.random.default_rng(0)
    chance = random.Random(0)
    tree = {"a": rng.normal(size=(7, 5, 3)).astype(np.float32), "b": np.arange(4, dtype=np.int32)}
    before = jax.device_get(checksums(tree))
    for _ in range(50):
        name = chance.choice(["a", "b"])
        changed = {key: value.copy() for key, value in tree.items()}
        bits = changed[name].reshape(-1).view(np.uint32)
        bits[chance.randrange(bits.size)] ^= np.uint32(1 << chance.randrange(32))
        after = jax.device_get(checksums(changed))
        assert [key for key in before if before[key] != after[key]] == [name]
    swapped = tree | {"a": tree["a"][::-1]}
    assert checksums(swapped)["a"] != before["a"]


def test_reading_commands_fall_back_without_touching_anything(workdir, capfd, said):
    flip_a_bit(_data_files(workdir / "checkpoints/8/params")[0])
    said.clear()
    assert load_model(workdir).step == 4
    assert "checkpoint 8 is broken" in said[0]
    assert store.steps(workdir / "checkpoints") == [4, 8]
    with pytest.raises(UserError, match="is broken"):
        load_model(workdir / "checkpoints/8")


def test_all_broken_is_an_error_and_starts_nothing_over(workdir, tiny_config):
    for step in (4, 8):
        _truncate(_data_files(workdir / f"checkpoints/{step}/params")[0])
    for _ in range(2):
        with pytest.raises(UserError, match="remove that folder to start over"):
            train(tiny_config, workdir)
    assert (workdir / "metrics.jsonl").read_text()


def test_a_checkpoint_describes_itself(trained, tmp_path, corpus):
    """One STEP folder, copied elsewhere, is enough."""
    folder = shutil.copytree(trained / "checkpoints/8", tmp_path / "8")
    model = load_model(folder)
    assert model.step == 8
    assert model.config.model.hidden_size == TINY_MODEL["model.hidden_size"]
    assert model.tokenizer.encode("the list") == load_model(trained).tokenizer.encode("the list")


def test_keep_last_and_keep_every(tiny_config, tmp_path):
    config = dataclasses.replace(tiny_config, phases=(Phase(12, 32, 8),), checkpoint_every=2, keep_last=2, keep_every=6)
    train(config, tmp_path / "run")
    assert store.steps(tmp_path / "run/checkpoints") == [6, 10, 12]


def test_what_a_killed_save_left_is_removed(workdir, tiny_config):
    left = workdir / "checkpoints/6.orbax-checkpoint-tmp"
    shutil.copytree(workdir / "checkpoints/4", left)
    train(dataclasses.replace(tiny_config, phases=(Phase(9, 32, 8),)), workdir)
    assert not left.exists()
    assert store.steps(workdir / "checkpoints") == [4, 8, 9]


def test_full_disk_stops_with_a_message_and_the_run_continues_after_making_room(corpus, trained, tmp_path):
    """A real full file system: a tmpfs with room for two checkpoints and a half."""
    disk = tmp_path / "disk"
    disk.mkdir()
    kilobytes = int(_blocks(trained) + 0.5 * _blocks(trained / "checkpoints/8"))
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", disk], capture_output=True
    ).returncode:
        pytest.skip("needs the right to mount a tmpfs")
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
        assert_refused(refused, "no space left on the device", "the last whole checkpoint is step", disk)
        whole = store.steps(disk / "run/checkpoints")
        assert whole and 8 not in whole
        for step in whole:
            store.read_params(disk / f"run/checkpoints/{step}")
        subprocess.run(["mount", "-o", "remount,size=100m", disk], check=True)
        continued = run("train", *arguments)
        assert continued.returncode == 0, continued.stderr
        assert f"continuing at step {whole[-1]} of 8" in continued.stderr
    finally:
        subprocess.run(["umount", disk], check=True)
