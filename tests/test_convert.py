"""The command `bertjax.convert`: to bertjax, back to Hugging Face, and refused input."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bertjax.checkpoints import pretrained
from bertjax.errors import UserError
from bertjax.interop.huggingface import export_model
from bertjax.interop.loading import load_model
from bertjax.model.pretraining import PretrainingModel
from tests.support.batches import SMALL
from tests.support.commands import assert_refused, run
from tests.support.damage import unsealed
from tests.support.models import from_parts
from tests.support.parity import random_params

VOCABULARY = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *"abcdefghijklmnopqrstuvwxyz",
    "the",
    "##a",
    "##e",
    "##n",
    ".",
]


@pytest.fixture(scope="module")
def huggingface(tmp_path_factory):
    """A Hugging Face folder with a WordPiece vocabulary."""
    folder = tmp_path_factory.mktemp("huggingface")
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
    params = random_params(PretrainingModel(SMALL))
    export_model(from_parts(SMALL, params, folder / "tokenizer"), folder / "model")
    return folder / "model"


def test_conversion_round_trips_and_verifies(huggingface, tmp_path):
    pytest.importorskip("transformers")
    imported = run("convert", f"--from={huggingface}", f"--to={tmp_path / 'run'}", "--verify")
    assert imported.returncode == 0, imported.stderr
    assert "masked_lm_logits" in imported.stdout and "next_sentence_logits" in imported.stdout
    exported = run("convert", f"--from={tmp_path / 'run'}", f"--to={tmp_path / 'back'}", "--verify")
    assert exported.returncode == 0, exported.stderr
    assert "masked_lm_logits" in exported.stdout
    first, second = (load_file(folder / "model.safetensors") for folder in (huggingface, tmp_path / "back"))
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert json.loads((tmp_path / "back" / "config.json").read_text()) == json.loads(
        (huggingface / "config.json").read_text()
    )
    assert (tmp_path / "back" / "vocab.txt").read_text().split() == VOCABULARY


def test_missing_heads_are_logged(huggingface, tmp_path, messages):
    folder = unsealed(shutil.copytree(huggingface, tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    headless = {name: tensor for name, tensor in tensors.items() if not name.startswith("cls.")}
    save_file(headless, folder / "model.safetensors")
    messages.clear()
    load_model(folder)
    assert len(messages) == 1 and "initialized randomly" in messages[0]


def test_incomplete_checkpoints_are_removed(huggingface, tmp_path):
    """The name of the last tokenizer file is too long for any file system."""
    model = load_model(huggingface)
    broken = dataclasses.replace(model, tokenizer_files=model.tokenizer_files | {"x" * 300: ""})
    with pytest.raises(UserError, match="File name too long"):
        pretrained.save(tmp_path / "run", broken)
    pretrained.save(tmp_path / "run", model)  # the folder is empty again


def test_bad_input_is_refused_and_nothing_is_written(huggingface, tmp_path):
    assert_refused(run("convert", f"--from={tmp_path / 'none'}", f"--to={tmp_path / 'out'}"), "none")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes").write_text("mine")
    assert_refused(run("convert", f"--from={huggingface}", f"--to={tmp_path / 'full'}"), "full", "another folder")
    assert (tmp_path / "full" / "notes").read_text() == "mine"
    assert_refused(run("convert", f"--from={huggingface}"), "usage")
    assert not (tmp_path / "out").exists()
