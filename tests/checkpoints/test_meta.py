"""The meta of a checkpoint: round trip, seal, validation and contradictions."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from bertjax import decoding
from bertjax.checkpoints import store
from bertjax.checkpoints.meta import FORMAT, CheckpointMeta, StoredTokenizer, decode_meta, encode_meta
from bertjax.config.pretraining import Config, Phase
from bertjax.decoding import DecodingError
from bertjax.errors import UserError
from bertjax.interop.loading import load_model
from bertjax.pretraining.run import train
from bertjax.tasks.metadata import SentenceMetadata, TaskMetadata, TokenLimits
from tests.support.damage import edit_sealed

TASK = TaskMetadata(
    name="table/pairs",
    kind="classification",
    labels=("no", "yes"),
    limits=TokenLimits(64, 32),
    columns={"text": "first"},
    threshold=0.5,
    sentence=SentenceMetadata(length=64),
    run={"seed": 1, "scores": {"dev": {"accuracy": 0.5}}},
)
META = CheckpointMeta(
    config=Config(phases=(Phase(10, 32, 8), Phase(10, 64, 4))),
    tokenizer=StoredTokenizer("hash", {"vocab.txt": "W1BBRF0K"}),
    corpus="fingerprint",
    task=TASK,
    sentence=TASK.sentence,
    untrained_heads=("masked_lm_head",),
    step=7,
    checksums={"params/a": 2**32 - 1},
)


def sealed(**changes) -> bytes:
    """Returns META with changed values under a valid seal."""
    return json.dumps(decoding.sealed(decoding.without_seal(encode_meta(META)) | changes)).encode()


@pytest.mark.parametrize("meta", [META, dataclasses.replace(META, task=None, sentence=None, corpus="", teacher="t")])
def test_round_trip(meta):
    assert decode_meta(json.dumps(encode_meta(meta)).encode(), Path("meta")) == meta


def test_any_edit_breaks_the_seal():
    for name in encode_meta(META):
        edited = json.dumps(encode_meta(META) | {name: 3}).encode()
        with pytest.raises(DecodingError, match="checksum mismatch"):
            decode_meta(edited, Path("meta"))
    for content in (b"", b"[]", b"{}", b"7"):
        with pytest.raises(DecodingError):
            decode_meta(content, Path("meta"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step": "7"}, "step: Expected `int`, got `str`"),
        ({"more": 1}, "unknown key more"),
        ({"tokenizer": {"hash": "hash"}}, "tokenizer: Object missing required field `files`"),
        ({"config": {"model": {"hidden": 8}}}, "unknown key config.model.hidden"),
        ({"config": {"short_seq_prob": 2.0}}, "config.short_seq_prob is 2.0; it must be"),
        ({"tokenizer": {"hash": "", "files": {"vocab.txt": "W1BBRF0"}}}, r"tokenizer.files.vocab.txt: not base64"),
        ({"tokenizer": {"hash": "", "files": {"../vocab.txt": ""}}}, "a key of tokenizer.files: .*a different format"),
        ({"sentence": {"pooling": "sum"}}, "sentence.pooling: Invalid enum value 'sum'"),
        ({"sentence": {"lowest": float("nan")}}, "sentence.lowest: Expected `float` >= "),
    ],
)
def test_invalid_values_are_refused_under_a_valid_seal(changes, message):
    with pytest.raises(UserError, match=message) as error:
        decode_meta(sealed(**changes), Path("checkpoints/7/meta/metadata"))
    assert str(error.value).startswith("checkpoints/7/meta/metadata: ") and "\n" not in str(error.value)


@pytest.mark.parametrize("number", [FORMAT + 1, None])
def test_another_format_is_refused_and_its_checkpoint_stays_in_place(trained, tiny_config, tmp_path, number):
    workdir = shutil.copytree(trained, tmp_path / "run")
    path = workdir / "checkpoints/8/meta/metadata"
    edit_sealed(path, lambda values: values.pop("format") if number is None else values.update(format=number))
    for use in (lambda: load_model(workdir), lambda: train(tiny_config, workdir)):
        with pytest.raises(
            UserError, match=f"checkpoint format {number}, but this version of bertjax reads format 1"
        ) as error:
            use()
        assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert store.steps(workdir / "checkpoints") == [4, 8] and not (workdir / "checkpoints.broken").exists()


def test_a_damaged_format_number_is_treated_as_damage(trained, tmp_path):
    workdir = shutil.copytree(trained, tmp_path / "run")
    path = workdir / "checkpoints/8/meta/metadata"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"format": FORMAT + 1}))
    assert load_model(workdir).step == 4


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda meta: meta["config"]["model"].update(hidden_size=64), r"\(32,\) in the checkpoint, \(64,\) by its"),
        (lambda meta: meta["config"]["model"].update(num_hidden_layers=3), r"\(2, 32\) in .*, \(3, 32\) by its config"),
        (
            lambda meta: meta["config"]["model"].update(use_bias=False),
            r"\(32,\) in .*, no such parameter by its config",
        ),
        (lambda meta: meta["config"]["model"].update(vocab_size=5), "its tokenizer has 600 entries, its model 5"),
        (lambda meta: meta["tokenizer"]["files"].clear(), "its tokenizer cannot be used .*no tokenizer in this folder"),
    ],
)
def test_contradictions_are_refused_under_a_valid_seal(edit, message, trained, tmp_path):
    workdir = shutil.copytree(trained, tmp_path / "run")
    edit_sealed(workdir / "checkpoints/8/meta/metadata", edit)
    with pytest.raises(UserError, match=message) as error:
        load_model(workdir)
    assert str(error.value).startswith(f"{workdir}/checkpoints/8: ") and str(error.value).endswith("another checkpoint")
