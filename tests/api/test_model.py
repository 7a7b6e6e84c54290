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
