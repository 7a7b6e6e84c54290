"""SentencePiece models are read as ALBERT's tokenizer in `transformers` reads them, or refused."""

import json

import pytest
from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2

from bertjax.errors import UserError
from bertjax.interop.hard_lines import hard_lines
from bertjax.text import unigram
from bertjax.text.backend import Backend
from bertjax.text.tokenizer import load_tokenizer
from tests.support.tokenizers import sentencepiece_model

LINES = [*hard_lines(1500)]


@pytest.fixture(scope="module")
def model(real_sentences) -> bytes:
    """Of text with capitals and accents."""
    return sentencepiece_model([*real_sentences[:2000], *["Éclair über ``naïve'' façade"] * 50], 600)


@pytest.mark.parametrize(
    "settings", [{}, {"do_lower_case": False}, {"keep_accents": True}, {"do_lower_case": False, "keep_accents": True}]
)
@pytest.mark.parametrize("form", ["spiece.model", "tokenizer.json"])
def test_alberts_settings_are_heeded_as_by_transformers(form, settings, model, tmp_path):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path / "albert"
    folder.mkdir()
    if form == "spiece.model":
        (folder / form).write_bytes(model)
    else:
        unigram.tokenizer(unigram.parse(model)).save(str(folder / form))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "AlbertTokenizer"} | settings))
    tokenizer = load_tokenizer(folder)
    expected = transformers.AlbertTokenizer.from_pretrained(folder)(
        LINES, add_special_tokens=False, split_special_tokens=True
    )["input_ids"]
    names = [tokenizer.id_to_token(index) for index in tokenizer.special_ids]
    kept = [number for number, line in enumerate(LINES) if not any(name in line for name in names)]
    found = tokenizer.encode_batch(LINES)
    assert [found[number] for number in kept] == [expected[number] for number in kept] and len(kept) > 1000
    tokenizer.save(tmp_path / "saved")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert theirs(LINES, add_special_tokens=False, split_special_tokens=True)["input_ids"] == found
    assert load_tokenizer(tmp_path / "saved").hash() == tokenizer.hash()


def test_a_vocabulary_of_ours_gives_the_ids_of_transformers_on_hard_lines(tokenizer_folders):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(tokenizer_folders["unigram"])
    expected = theirs(LINES, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert load_tokenizer(tokenizer_folders["unigram"]).encode_batch(LINES) == expected


def test_ids_are_sentencepieces_but_for_ties(model, real_sentences):
    """Each word is cut by itself here, along the whole text there, so `*****` may be cut at another place."""
    theirs = SentencePieceProcessor(model_proto=model).encode(real_sentences)
    ours = Backend(unigram.tokenizer(unigram.parse(model))).encode_batch(real_sentences)
    assert [sorted(a) for a in ours] == [sorted(b) for b in theirs]


def test_a_bare_model_is_read_as_its_letters_are_and_says_how(model, real_sentences, tmp_path, said):
    (tmp_path / "m.model").write_bytes(model)
    assert load_tokenizer(tmp_path).encode("THE") != load_tokenizer(tmp_path).encode("the")
    assert "a cased vocabulary (it has capital letters)" in said[0]
    uncased = load_tokenizer(tmp_path, lowercase=True)
    assert uncased.encode("THÉ") == uncased.encode("the")
    (tmp_path / "m.model").write_bytes(sentencepiece_model([text.lower() for text in real_sentences[:1000]], 300))
    assert load_tokenizer(tmp_path).encode("THÉ") == load_tokenizer(tmp_path).encode("the")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"model_type": "bpe"}, "only where it is a unigram model"),
        ({"byte_fallback": True, "vocab_size": 800}, "without bytes for unknown characters"),
        ({"treat_whitespace_as_suffix": True}, "with spaces before their words"),
        ({"add_dummy_prefix": False}, "with spaces before their words"),
        ({"remove_extra_whitespaces": False}, "with spaces as a character"),
    ],
)
def test_models_that_cut_otherwise_are_refused(changes, problem, real_sentences, tmp_path):
    size = changes.get("vocab_size", 300)
    (tmp_path / "m.model").write_bytes(sentencepiece_model(real_sentences[:500], size, **changes))
    with pytest.raises(UserError, match=f"m.model: .*{problem}.*tokenizer.json"):
        load_tokenizer(tmp_path)


def test_a_model_for_another_class_is_refused(model, tmp_path):
    (tmp_path / "m.model").write_bytes(model)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "XLMRobertaTokenizer"}')
    with pytest.raises(UserError, match="asks for XLMRobertaTokenizer, which gives other ids"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content.pieces[7].ClearField("piece"),
        lambda content: setattr(content.pieces[7], "piece", content.pieces[8].piece),
        lambda content: setattr(content.pieces[7], "score", float("nan")),
        lambda content: setattr(content.pieces[1], "type", 1),
        lambda content: setattr(content.normalizer_spec, "precompiled_charsmap", b"nonsense"),
    ],
)
def test_damaged_models_are_refused(damage, model, tmp_path):
    content = sentencepiece_model_pb2.ModelProto.FromString(model)
    damage(content)
    (tmp_path / "m.model").write_bytes(content.SerializeToString())
    with pytest.raises(UserError, match=r"m\.model: not a valid SentencePiece model"):
        load_tokenizer(tmp_path)


def test_a_table_that_takes_the_space_with_it_is_not_cut_before_that_space(real_sentences, tmp_path):
    """The library gives whole clusters to the table and then forgets what the table did not look at."""
    (tmp_path / "rules.tsv").write_text("0600\t0078\n")
    rules = {"normalization_rule_tsv": str(tmp_path / "rules.tsv")}
    (tmp_path / "m.model").write_bytes(sentencepiece_model(real_sentences[:500], 300, **rules))
    tokenizer = load_tokenizer(tmp_path)
    texts = ["a \u0600 b", "a b"]
    assert tokenizer.encode_batch(texts) == tokenizer.encode_batch(texts, word_cache=False)
    assert tokenizer.encode("\u0600 b") == tokenizer.encode("xb") != tokenizer.encode("x b")
