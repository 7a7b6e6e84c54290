"""Models in Python: one input, lists and generators; one kind of answer for each."""

import itertools

import numpy as np
import pytest

import bertjax

TEXTS = ["a list", "the value of a function", "names"]


@pytest.fixture(scope="module")
def model(home):
    return bertjax.load_model(home / "runs/books")


@pytest.fixture(scope="module")
def mail(home):
    return bertjax.load_model(home / "runs/mail")


def test_one_input_a_list_and_a_generator_give_the_same(mail):
    together = mail.classify(TEXTS)
    assert [mail.classify(text) for text in TEXTS] == together
    assert list(mail.classify(text for text in TEXTS)) == together
    assert mail.classify([]) == []
    assert mail.classify((TEXTS[0], TEXTS[1])) == mail.classify([(TEXTS[0], TEXTS[1])])[0]


def test_an_endless_generator_is_read_as_far_as_needed(mail):
    answers = mail.classify(itertools.cycle(TEXTS))
    assert list(itertools.islice(answers, 3)) == mail.classify(TEXTS)


def test_vectors_of_one_text_have_one_axis(model):
    vectors = model.embed(TEXTS)
    assert vectors.shape == (3, 32)
    np.testing.assert_allclose(model.embed(TEXTS[0]), vectors[0], atol=1e-6)
    np.testing.assert_allclose(next(model.embed(iter(TEXTS))), vectors[0], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(model.embed(TEXTS, normalize=True), axis=1), 1, atol=1e-5)


def test_search_finds_the_text_itself(model):
    assert [answer["found"][0]["text"] for answer in model.search(TEXTS, TEXTS, top=1)] == TEXTS
    assert len(model.search("a list", TEXTS, top=2)["found"]) == 2
    with pytest.raises(bertjax.UserError, match="give a list of texts"):
        model.search("a list", "a list")


def test_what_a_model_cannot_do_is_refused_with_what_it_can(model, mail):
    with pytest.raises(bertjax.UserError, match="fill-mask, embed, search"):
        model.classify("a text")
    with pytest.raises(bertjax.UserError, match="classify, embed, search"):
        mail.fill_mask("a [MASK]")
    with pytest.raises(bertjax.UserError, match="type int"):
        mail.classify(3)


def test_export_in_both_formats_is_the_same_model(mail, tmp_path):
    for format in ("huggingface", "bertjax"):
        folder = bertjax.export_model(mail, tmp_path / format, format)
        assert bertjax.load_model(folder).classify(TEXTS) == mail.classify(TEXTS)
        with pytest.raises(bertjax.UserError, match="not empty"):
            bertjax.export_model(mail, folder, format)
    with pytest.raises(bertjax.UserError, match="one of huggingface, bertjax"):
        mail.export(tmp_path / "x", "onnx")


def test_tokenizers_are_called_like_those_of_transformers(model):
    ids = model.tokenizer("the value of a list")
    assert ids == model.tokenizer.encode("the value of a list")
    assert model.tokenizer(TEXTS) == model.tokenizer.encode_batch(TEXTS)
    assert len(model.tokenizer) == model.tokenizer.vocab_size


def test_a_tuple_is_a_pair_where_pairs_exist_and_refused_elsewhere(home, model, mail):
    assert mail.classify(("a list", "names"))["text_pair"] == "names"
    answer = bertjax.load_model(home / "runs/squad").answer
    for call, inputs, message in (
        (
            mail.classify,
            ("a", "b", "c"),
            r"input 1: a tuple of 3; give a text, a tuple of two texts \(read as a pair\)",
        ),
        (mail.classify, ["a", ("b",)], "input 2: a tuple of 1; give a text"),
        (answer, ("a", "b", "c"), r"input 1: a tuple of 3; give a tuple of two texts \(question, passage\)"),
        (model.embed, ("a", "b"), "input 1: a tuple would be read as a pair of texts; give a list"),
        (model.embed, ["a", ("b", "c")], "input 2: a tuple would be read as a pair"),
        (lambda value: model.search(value, TEXTS), ("a", "b"), "input 1: a tuple would be read as a pair"),
        (model.fill_mask, ("a [MASK]", "b"), "does not support pairs of texts; give a list"),
    ):
        with pytest.raises(bertjax.UserError, match=message):
            call(inputs)
    assert model.embed({"text": "a", "text_pair": "b"}).shape == (32,)


def test_a_generator_yields_the_results_before_an_unreadable_input(mail):
    answers = mail.classify(text for text in [*TEXTS, ("a", "b", "c"), "never read"])
    assert [next(answers) for _ in TEXTS] == [mail.classify(text) for text in TEXTS]
    with pytest.raises(bertjax.UserError, match="input 4: a tuple of 3"):
        next(answers)


def test_no_texts_give_no_vectors_of_the_same_width(model):
    assert model.embed([]).shape == (0, 32)
    with pytest.raises(bertjax.UserError, match="has no prompt 'query'; it defines no prompts, so leave prompt"):
        model.embed("a", prompt="query")


def test_repr_names_pooling_and_vocabulary(home, model):
    assert repr(model).endswith("2 layers × 32, pre-trained>")
    assert repr(bertjax.load_model(home / "exports/similarity")).endswith("pre-trained, vectors by mean pooling>")
    assert repr(model.tokenizer) == f"<Tokenizer WordPiece: {model.tokenizer.vocab_size} tokens>"


def test_warnings_of_later_calls_say_that_they_count_all(home, caplog):
    model = bertjax.load_model(home / "runs/books")
    caplog.clear()  # Orbax's
    model.embed("a list")
    assert not caplog.messages
    model.embed("a list " * 500)
    assert (
        len(caplog.messages) == 1 and "1 of 2 examples (50.00%) truncated in all calls so far: " in caplog.messages[0]
    )


def test_paths_in_the_home_directory(home, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(home))
    assert bertjax.load_model("~/runs/books").path == home / "runs/books/checkpoints/8"
    assert bertjax.load_tokenizer("~/runs/books").vocab_size == 600
    with pytest.raises(bertjax.UserError, match=f"{home}/none: no model; .*hf download NAME --local-dir=DIR"):
        bertjax.load_model("~/none")
    with pytest.raises(
        bertjax.UserError, match=r"sentence-transformers folder, or the folder of a TensorFlow checkpoint$"
    ):
        bertjax.load_model(tmp_path)
