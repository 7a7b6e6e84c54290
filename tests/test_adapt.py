"""Adaptation to a domain: changes of the vocabulary, and the adapt command."""

import dataclasses
import json

import numpy as np
import pytest

from bertjax.checkpoints import embedding_transfer, pretrained
from bertjax.errors import UserError
from bertjax.interop.loading import load_model
from bertjax.tasks.metadata import TaskMetadata
from bertjax.text import tokenizer_training
from bertjax.text.tokenizer import load_tokenizer
from tests.support.commands import assert_refused, run

SENTENCES = ["Tromethamine dissolves the zirconium.", "the zirconium of the list is tromethamine!"] * 3


@pytest.fixture(scope="module")
def model(trained):
    return load_model(trained)


@pytest.fixture(scope="module")
def extended(corpus, tmp_path_factory):
    """The folder and the tokenizer of the corpus's vocabulary with two words of SENTENCES."""
    folder = tmp_path_factory.mktemp("extended")
    return folder, tokenizer_training.train_tokenizer(f"extend:2:{corpus / 'tokenizer'}", SENTENCES, folder)


def test_the_words_that_save_the_most_tokens_are_added(corpus, extended):
    before, after = load_tokenizer(corpus / "tokenizer"), extended[1]
    assert after.vocab_size == before.vocab_size + 2
    words = [after.id_to_token(i) for i in range(before.vocab_size, after.vocab_size)]
    assert words == ["tromethamine", "zirconium"]
    # In capitals, next to punctuation, and at the start of a longer word.
    first, second = before.vocab_size, before.vocab_size + 1
    assert after.encode("TROMETHAMINE, zirconium!") == [first, *before.encode(","), second, *before.encode("!")]
    assert after.encode("tromethamines") == [first, after.token_to_id("##s")]
    assert after.encode("The value of a list.") == before.encode("The value of a list.")
    assert after.hash() != before.hash()


def test_known_tokens_keep_their_embeddings_and_new_ones_start_as_means(model, extended):
    tokenizer = extended[1]
    changed = embedding_transfer.transfer_embeddings(model, tokenizer)
    size = model.tokenizer.vocab_size
    assert changed.config.model.vocab_size == size + 2
    for name in ("embeddings", "masked_lm_head"):
        path = ("word_embeddings", "embedding") if name == "embeddings" else ("bias",)
        old, new = (source.params[name] for source in (model, changed))
        for key in path:
            old, new = old[key], new[key]
        assert np.array_equal(new[:size], old[:size])
        for index in (size, size + 1):
            pieces = model.tokenizer.encode(tokenizer.id_to_token(index))
            assert len(pieces) > 1
            np.testing.assert_allclose(new[index], np.mean(old[pieces], axis=0), rtol=1e-6)
        assert not new[size + 2 :].any() and len(new) == changed.config.model.padded_vocab_size
    # The encoder is shared.
    assert changed.params["encoder"] is model.params["encoder"]


def test_a_vocabulary_of_another_kind_maps_special_tokens_and_words(model, tmp_path):
    tokenizer = tokenizer_training.train_tokenizer(
        "new:bpe:400", ["It is a list of values.", " The list is a value."] * 20, tmp_path
    )
    sources = embedding_transfer.embedding_sources(model.tokenizer, tokenizer)
    old = model.tokenizer
    for role in ("pad_id", "unk_id", "cls_id", "sep_id", "mask_id"):
        assert sources[getattr(tokenizer, role)] == [getattr(old, role)]
    assert sources[tokenizer.token_to_id("Ġlist")] == old.encode("list")
    # Tokens without the mark of a word start map to ## tokens.
    inside = [index for index in range(tokenizer.vocab_size) if old.token_to_id(f"##{tokenizer.id_to_token(index)}")]
    assert len(inside) > 10
    for index in inside:
        assert sources[index] == [old.token_to_id(f"##{tokenizer.id_to_token(index)}")]
    reverse = embedding_transfer.embedding_sources(tokenizer, old)
    assert reverse[old.token_to_id("a")] == [tokenizer.token_to_id("Ġa")]


def test_one_command_adapts_reports_and_exports(trained, text_file, tmp_path):
    flags = [
        f"--from={trained}",
        f"--source=text:{text_file}",
        f"--general=text:{text_file}",
        f"--workdir={tmp_path}/adapted",
        *("--add_words=5", "--steps=6", "--length=32", "--batch=8", "--heldout=0.1", "--learning_rate=1e-2"),
    ]
    first = run("adapt", *flags)
    assert first.returncode == 0, first.stderr
    report = json.loads((tmp_path / "adapted/report.json").read_text())
    for name in ("domain", "general"):
        before, after = (report[when][name]["eval/mlm_loss"] for when in ("before", "after"))
        assert f"{before:.3f}" in first.stdout and f"{after - before:+.3f}" in first.stdout
    exported = load_model(tmp_path / "adapted/exported")
    assert exported.tokenizer.vocab_size == load_tokenizer(trained / "tokenizer").vocab_size + 5
    run_params = load_model(tmp_path / "adapted/run").params
    table = exported.params["embeddings"]["word_embeddings"]["embedding"]
    assert np.array_equal(table, run_params["embeddings"]["word_embeddings"]["embedding"])
    again = run("adapt", *flags)
    assert again.returncode == 0 and json.loads((tmp_path / "adapted/report.json").read_text()) == report
    # More steps update all outputs, with the warm-up of the start; another model is refused.
    more = run("adapt", *(flag.replace("--steps=6", "--steps=12") for flag in flags))
    assert more.returncode == 0, more.stderr
    run_params, exported = (load_model(tmp_path / f"adapted/{name}").params for name in ("run", "exported"))
    table = exported["embeddings"]["word_embeddings"]["embedding"]
    assert np.array_equal(table, run_params["embeddings"]["word_embeddings"]["embedding"])
    other = [flag.replace(f"--from={trained}", f"--from={tmp_path}/adapted/exported") for flag in flags]
    assert_refused(run("adapt", *other), "contains the adaptation of a model other than")


def test_invalid_adaptations_are_refused(model, trained, text_file, tmp_path):
    tokenizer_training.train_tokenizer("new:bpe:400", SENTENCES, tmp_path / "bpe")
    flags = [f"--source=text:{text_file}", f"--workdir={tmp_path}/run"]
    assert_refused(run("adapt", *flags), "usage")
    extended = (f"--source=text:{text_file}", f"--tokenizer=extend:5:{tmp_path}/bpe", f"--output={tmp_path}/c")
    assert_refused(run("prepare", *extended), "cannot add words to a BPE vocabulary")
    tuned = dataclasses.replace(model, task=TaskMetadata("", "classification", ("a", "b")))
    with pytest.raises(UserError, match=r"fine-tuned \(classification\)"):
        pretrained.check_pretraining(tuned)
    assert_refused(
        run("prepare", f"--source=text:{text_file}", "--tokenizer=extend:x:y", f"--output={tmp_path}/c"),
        "extend:NUMBER:FOLDER",
    )


def test_convert_moves_a_model_to_another_vocabulary(trained, extended, tmp_path):
    result = run(
        "convert", f"--from={trained}", f"--to={tmp_path}/moved", "--format=bertjax", f"--tokenizer={extended[0]}"
    )
    assert result.returncode == 0, result.stderr
    assert "2 of them new" in result.stderr
    assert load_model(tmp_path / "moved").tokenizer.hash() == extended[1].hash()
