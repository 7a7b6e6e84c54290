"""Adaptation to a domain: vocabularies grow or change without loss, and one command does it all."""

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
    """The corpus's vocabulary with words of SENTENCES."""
    folder = tmp_path_factory.mktemp("extended")
    return folder, tokenizer_training.train(f"extend:2:{corpus / 'tokenizer'}", SENTENCES, folder)


def test_words_that_save_the_most_pieces_are_added_and_nothing_else_changes(corpus, extended):
    before, after = load_tokenizer(corpus / "tokenizer"), extended[1]
    assert after.vocab_size == before.vocab_size + 2
    words = [after.id_to_token(i) for i in range(before.vocab_size, after.vocab_size)]
    assert words == ["tromethamine", "zirconium"]
    # In capitals, beside punctuation, and at the beginning of a longer word.
    first, second = before.vocab_size, before.vocab_size + 1
    assert after.encode("TROMETHAMINE, zirconium!") == [first, *before.encode(","), second, *before.encode("!")]
    assert after.encode("tromethamines") == [first, after.token_to_id("##s")]
    assert after.encode("The value of a list.") == before.encode("The value of a list.")
    assert after.hash() != before.hash()


def test_known_pieces_keep_their_embeddings_and_new_words_start_from_their_pieces(model, extended):
    tokenizer = extended[1]
    changed = embedding_transfer.change(model, tokenizer)
    size = model.tokenizer.vocab_size
    assert changed.config.model.vocab_size == size + 2
    for name in ("embeddings", "masked_lm_head"):
        place = ("word_embeddings", "embedding") if name == "embeddings" else ("bias",)
        old, new = (one.params[name] for one in (model, changed))
        for part in place:
            old, new = old[part], new[part]
        assert np.array_equal(new[:size], old[:size])
        for index in (size, size + 1):
            pieces = model.tokenizer.encode(tokenizer.id_to_token(index))
            assert len(pieces) > 1
            np.testing.assert_allclose(new[index], np.mean(old[pieces], axis=0), rtol=1e-6)
        assert not new[size + 2 :].any() and len(new) == changed.config.model.padded_vocab_size
    # The model itself, and the one that it came from, are as they were.
    assert changed.params["encoder"] is model.params["encoder"]


def test_a_new_vocabulary_of_another_kind_finds_its_special_tokens_and_words(model, tmp_path):
    tokenizer = tokenizer_training.train(
        "new:bpe:400", ["It is a list of values.", " The list is a value."] * 20, tmp_path
    )
    origins = embedding_transfer.origins(model.tokenizer, tokenizer)
    old = model.tokenizer
    for role in ("pad_id", "unk_id", "cls_id", "sep_id", "mask_id"):
        assert origins[getattr(tokenizer, role)] == [getattr(old, role)]
    assert origins[tokenizer.token_to_id("Ġlist")] == old.encode("list")
    # The same letters are a word in one kind of vocabulary and the inside of one in the other.
    inside = [index for index in range(tokenizer.vocab_size) if old.token_to_id(f"##{tokenizer.id_to_token(index)}")]
    assert len(inside) > 10
    for index in inside:
        assert origins[index] == [old.token_to_id(f"##{tokenizer.id_to_token(index)}")]
    back = embedding_transfer.origins(tokenizer, old)
    assert back[old.token_to_id("a")] == [tokenizer.token_to_id("Ġa")]


def test_one_command_adapts_reports_and_exports(trained, text_file, tmp_path):
    flags = [
        f"--from={trained}",
        f"--source=text:{text_file}",
        f"--general=text:{text_file}",
        f"--workdir={tmp_path}/adapted",
        *("--words=5", "--steps=6", "--length=32", "--batch=8", "--heldout=0.1", "--learning_rate=1e-2"),
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
    # More steps change all that is left behind; another model is another adaptation.
    more = run("adapt", *(flag.replace("--steps=6", "--steps=8") for flag in flags))
    assert more.returncode == 0, more.stderr
    run_params, exported = (load_model(tmp_path / f"adapted/{name}").params for name in ("run", "exported"))
    table = exported["embeddings"]["word_embeddings"]["embedding"]
    assert np.array_equal(table, run_params["embeddings"]["word_embeddings"]["embedding"])
    other = [flag.replace(f"--from={trained}", f"--from={tmp_path}/adapted/exported") for flag in flags]
    assert_refused(run("adapt", *other), "holds the adaptation of another model")


def test_what_cannot_be_adapted_is_refused(model, trained, text_file, tmp_path):
    tokenizer_training.train("new:bpe:400", SENTENCES, tmp_path / "bpe")
    flags = [f"--source=text:{text_file}", f"--workdir={tmp_path}/run"]
    assert_refused(run("adapt", *flags), "usage")
    extended = (f"--source=text:{text_file}", f"--tokenizer=extend:5:{tmp_path}/bpe", f"--output={tmp_path}/c")
    assert_refused(run("prepare", *extended), "not to BPE")
    tuned = dataclasses.replace(model, task=TaskMetadata("", "classification", ("a", "b")))
    with pytest.raises(UserError, match="is fine-tuned"):
        pretrained.check_pretraining(tuned)
    assert_refused(
        run("prepare", f"--source=text:{text_file}", "--tokenizer=extend:x:y", f"--output={tmp_path}/c"),
        "extend:WORDS:PATH",
    )


def test_convert_moves_a_model_to_another_vocabulary(trained, extended, tmp_path):
    result = run(
        "convert", f"--from={trained}", f"--to={tmp_path}/moved", "--format=bertjax", f"--tokenizer={extended[0]}"
    )
    assert result.returncode == 0, result.stderr
    assert "of which 2 are new" in result.stderr
    assert load_model(tmp_path / "moved").tokenizer.hash() == extended[1].hash()
