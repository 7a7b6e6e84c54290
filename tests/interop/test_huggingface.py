"""Hugging Face folders: exports load in `transformers` and round-trip; damaged folders are refused."""

import dataclasses
import json
import os
import pickle
import sys

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bertjax.config.model import ModelConfig
from bertjax.errors import UserError
from bertjax.interop import export_seal, verification
from bertjax.interop.huggingface import export_model, import_model
from bertjax.model.pretraining import PretrainingModel
from tests.support.batches import FAMILIES, SMALL, random_batch
from tests.support.damage import unsealed
from tests.support.models import from_parts


def random_params(pairs: str = "next_sentence", config: ModelConfig = SMALL) -> dict:
    """Parameters without equal numbers."""
    model = PretrainingModel(config, pairs)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), random_batch(config, 1, 8, 2))["params"])
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)
    for padded in (params["embeddings"]["word_embeddings"]["embedding"], params["masked_lm_head"]["bias"]):
        padded[SMALL.vocab_size :] = 0
    return params


@pytest.fixture
def folder(tmp_path):
    export_model(from_parts(SMALL, random_params()), tmp_path / "model")
    unsealed(tmp_path / "model")
    return tmp_path / "model"


def assert_equal(a: dict, b: dict) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    assert jax.tree.all(jax.tree.map(np.array_equal, a, b))


def rewrite(folder, change) -> None:
    """Applies `change(tensors) -> tensors` to a folder's weights."""
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def reconfigure(folder, **changes) -> None:
    path = folder / "config.json"
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in values.items() if value != "absent"}))


@pytest.mark.parametrize(
    ("family", "pairs", "name"),
    [
        ("bert", "next_sentence", "BertForPreTraining"),
        ("bert", "", "BertForMaskedLM"),
        ("roberta", "", "RobertaForMaskedLM"),
        ("albert", "sentence_order", "AlbertForPreTraining"),
        ("albert", "", "AlbertForMaskedLM"),
        ("distilbert", "", "DistilBertForMaskedLM"),
        ("modernbert", "", "ModernBertForMaskedLM"),
    ],
)
def test_export_and_import_through_transformers_round_trip(family, pairs, name, tmp_path):
    transformers = pytest.importorskip("transformers")
    shape = FAMILIES[family]
    params = random_params(pairs, shape)
    export_model(from_parts(shape, params, pad_id=3), tmp_path / "a")
    model, info = getattr(transformers, name).from_pretrained(tmp_path / "a", output_loading_info=True)
    assert not any(info.values()), info
    assert model.config.architectures == [name]
    assert model.config.pad_token_id == 3
    model.save_pretrained(tmp_path / "b")
    config, imported, *_ = import_model(tmp_path / "b")
    assert config == shape
    assert_equal(imported, params)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (FAMILIES["roberta"], "no head for next_sentence"),
        (FAMILIES["albert"], "no head for next_sentence"),
        (
            dataclasses.replace(FAMILIES["roberta"], type_vocab_size=0),
            "Roberta in transformers requires model.type_vocab_size>0",
        ),
        (
            dataclasses.replace(FAMILIES["albert"], model_type="bert"),
            "Bert in transformers requires model.embedding_size=0",
        ),
        (
            dataclasses.replace(SMALL, model_type="distilbert"),
            "DistilBert .* requires model.pooler_act='relu', model.type_vocab_size=0",
        ),
    ],
)
def test_models_that_transformers_cannot_represent_are_not_exported(config, message, tmp_path):
    with pytest.raises(UserError, match=message):
        export_model(from_parts(config, random_params("next_sentence", config)), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_exports_contain_the_tokenizer_files(tmp_path):
    (tmp_path / "tokenizer").mkdir()
    files = {"vocab.txt": "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nA\n##a\n", "special_tokens_map.json": "{}"}
    for name, content in files.items():
        (tmp_path / "tokenizer" / name).write_text(content)
    export_model(from_parts(SMALL, random_params(), tmp_path / "tokenizer"), tmp_path / "out")
    assert {name: (tmp_path / "out" / name).read_text() for name in files} == files
    config = json.loads((tmp_path / "out/tokenizer_config.json").read_text())
    assert config["do_lower_case"] is False and config["model_max_length"] == SMALL.max_position_embeddings


def test_old_names_missing_prefixes_and_tied_copies_are_read(folder):
    def old(tensors):
        renamed = {}
        for name, tensor in tensors.items():
            name = name.removeprefix("bert.")
            name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
            renamed[name] = tensor
        renamed["cls.predictions.decoder.weight"] = renamed["embeddings.word_embeddings.weight"].copy()
        renamed["cls.predictions.decoder.bias"] = renamed.pop("cls.predictions.bias")
        renamed["embeddings.position_ids"] = np.arange(36)[None]
        return renamed

    rewrite(folder, old)
    assert_equal(import_model(folder)[1], random_params())


def test_half_precision_and_several_files_are_read(folder):
    tensors = {name: x.astype(np.float16) for name, x in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    files = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, part in files.items():
        save_file({name: tensors[name] for name in part}, folder / file)
    index = {"weight_map": {name: file for file, part in files.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    expected = jax.tree.map(lambda x: x.astype(np.float16).astype(np.float32), random_params())
    assert_equal(import_model(folder)[1], expected)


@pytest.mark.parametrize("layout", ["file", "old-file", "shards"])
def test_pickled_weights_are_read(folder, layout):
    torch = pytest.importorskip("torch")
    tensors = {name: torch.tensor(x) for name, x in load_file(folder / "model.safetensors").items()}
    tensors["bert.embeddings.position_ids"] = torch.arange(36)[None]
    (folder / "model.safetensors").unlink()
    if layout == "shards":
        names = sorted(tensors)
        files = {"pytorch_model-1.bin": names[::2], "pytorch_model-2.bin": names[1::2]}
        index = {"weight_map": {name: file for file, part in files.items() for name in part}}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    else:
        files = {"pytorch_model.bin": list(tensors)}
    for file, part in files.items():
        part = {name: tensors[name] for name in part}
        torch.save(part, folder / file, _use_new_zipfile_serialization=layout != "old-file")
    assert_equal(import_model(folder)[1], random_params())


@pytest.mark.parametrize("form", ["zip", "old", "bare"])
def test_pickles_with_code_are_refused_and_not_run(folder, form, tmp_path):
    torch = pytest.importorskip("torch")

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    tensors = {name: torch.tensor(x) for name, x in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    path = folder / "pytorch_model.bin"
    if form == "bare":
        path.write_bytes(pickle.dumps(Trap()))
    else:
        torch.save(tensors | {"bert.trap": Trap()}, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(UserError, match="could run code: not read") as error:
        import_model(folder)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "sprung").exists()


def test_pickled_weights_without_pytorch_are_refused(folder, monkeypatch):
    renamed(folder)
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
    with pytest.raises(UserError, match="pip install torch"):
        import_model(folder)


def test_missing_heads_are_initialized_and_logged(folder, messages):
    rewrite(folder, lambda tensors: {k: v for k, v in tensors.items() if not k.startswith("cls.")})
    messages.clear()
    _, params, *_ = import_model(folder)
    assert len(messages) == 1 and "cls.predictions" in messages[0] and "initialized randomly" in messages[0]
    expected = random_params()
    for part in ("embeddings", "encoder", "pooler"):
        assert_equal(params[part], expected[part])
    assert np.all(params["masked_lm_head"]["layer_norm"]["scale"] == 1)
    assert_equal(params, import_model(folder)[1])


def test_unknown_tensors_are_ignored_and_logged(folder, messages):
    rewrite(folder, lambda tensors: tensors | {"classifier.weight": np.ones((2, 24), np.float32)})
    messages.clear()
    assert_equal(import_model(folder)[1], random_params())
    assert len(messages) == 1 and "ignored classifier.weight" in messages[0]


def test_models_without_a_pooler_have_no_next_sentence_head(folder):
    rewrite(folder, lambda t: {k: v for k, v in t.items() if "pooler" not in k and "seq_rel" not in k})
    assert_equal(import_model(folder)[1], random_params(""))


def drop(name):
    return lambda folder: rewrite(folder, lambda t: {k: v for k, v in t.items() if k != name})


def put(name, value):
    return lambda folder: rewrite(folder, lambda t: t | {name: value})


def truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def renamed(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


QUERY = "bert.encoder.layer.1.attention.self.query.weight"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "no .*config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json: not valid .not JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), "Expected `object`, got `array`"),
        (lambda folder: reconfigure(folder, model_type="electra"), "'electra'"),
        (lambda folder: reconfigure(folder, hidden_size="absent"), "missing required field `hidden_size`"),
        (lambda folder: reconfigure(folder, hidden_size="24"), "hidden_size: Expected `int`, got `str`"),
        (lambda folder: reconfigure(folder, hidden_size=25), "not a multiple"),
        (
            lambda folder: reconfigure(folder, num_hidden_layers=10**12),
            "num_hidden_layers: Expected `int`",
        ),
        (lambda folder: reconfigure(folder, num_hidden_layers=2**31 - 1), "num_hidden_layers: Expected `int` <= 10000"),
        (lambda folder: reconfigure(folder, vocab_size=10**9), "shape"),
        (lambda folder: reconfigure(folder, num_hidden_layers=4), "lacks bert.encoder.layer.3"),
        (lambda folder: reconfigure(folder, hidden_act="silu"), "hidden_act='silu'"),
        (
            lambda folder: reconfigure(folder, position_embedding_type="relative_key"),
            "position_embedding_type",
        ),
        (lambda folder: (folder / "model.safetensors").unlink(), "no .*model.safetensors"),
        (truncate, "model.safetensors: cannot be read"),
        (renamed, "pytorch_model.bin: the pickled weights .* not read"),
        (drop(QUERY), QUERY),
        (drop("cls.predictions.bias"), "cls.predictions.bias"),
        (put(QUERY, np.ones((24, 23), np.float32)), r"\(24, 23\)"),
        (put(QUERY, np.full((24, 24), np.nan, np.float32)), f"{QUERY} holds numbers that are not finite"),
        (put("cls.predictions.decoder.weight", np.ones((97, 24), np.float32)), "differs"),
    ],
)
def test_bad_folders_are_refused(folder, damage, message):
    damage(folder)
    with pytest.raises(UserError, match=message) as error:
        import_model(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("files", [7, ["config.json"], {"../config.json": 1}, {"a\0b": 1}])
def test_invalid_seals_are_not_resealed(files, tmp_path):
    export_model(from_parts(SMALL, random_params()), tmp_path / "model")
    (tmp_path / "model" / export_seal.NAME).write_text(json.dumps({"files": files}))
    with pytest.raises(
        UserError, match=r"bertjax_manifest\.json: not valid \((a key of )?files: .*export the model again"
    ):
        export_seal.reseal_export(tmp_path / "model")


def test_nothing_is_overwritten(folder):
    before = sorted((path.name, path.read_bytes()) for path in folder.iterdir())
    with pytest.raises(UserError, match="model: already exists"):
        export_model(from_parts(SMALL, random_params()), folder)
    assert sorted((path.name, path.read_bytes()) for path in folder.iterdir()) == before


def test_failed_exports_leave_no_files(tmp_path):
    """The name of a tokenizer file is too long for any file system."""
    model = dataclasses.replace(from_parts(SMALL, random_params()), tokenizer_files={"x" * 300: ""})
    with pytest.raises(UserError, match="out: cannot be written"):
        export_model(model, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_configs_without_model_type_are_recognized(folder):
    """By its architectures or tensor names; `transformers` is told the class instead."""
    expected = import_model(folder)
    reconfigure(folder, model_type="absent")
    assert_equal(import_model(folder)[1], expected[1])
    reconfigure(folder, architectures="absent")
    assert_equal(import_model(folder)[1], expected[1])
    rewrite(folder, lambda tensors: {name.removeprefix("bert."): tensor for name, tensor in tensors.items()})
    with pytest.raises(UserError, match=r'no model_type, .*; add "model_type": "bert" \(or bert, roberta, '):
        import_model(folder)
    reconfigure(folder, architectures=["BertModel"])
    assert import_model(folder)[0] == expected[0]


@pytest.mark.parametrize(
    ("alias", "name"), [("gelu_pytorch_tanh", "gelu_new"), ("gelu_fast", "gelu_new"), ("gelu_python", "gelu")]
)
def test_aliases_of_activations_compute_the_same_as_in_transformers(folder, alias, name):
    reconfigure(folder, hidden_act=alias)
    config, params, *_ = import_model(folder)
    assert config.hidden_act == name
    batch = random_batch(config, 3, 12, 4)
    actual = verification.run_bertjax(config, params, batch)["hidden"]
    expected = verification.run_transformers(folder, batch)["hidden"]
    mask = batch["attention_mask"] != 0
    np.testing.assert_allclose(actual[mask], expected[mask], atol=1e-4)
