"""SentencePiece models yield the ids of ALBERT's tokenizer in `transformers`, or are refused."""

import dataclasses
import json

import pytest
from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2

from bertjax.errors import UserError
from bertjax.interop.hard_lines import hard_lines
from bertjax.text import unigram
from bertjax.text.backend import Backend
from bertjax.text.tokenizer import load_tokenizer
from tests.support.tokenizers import sentencepiece_model

LINES = [*hard_lines(1500), *(mark * count for mark in "=*-.x" for count in range(2, 60))]


@pytest.fixture(scope="module")
def model(real_sentences) -> bytes:
    """A model trained on text with capitals and accents."""
    return sentencepiece_model([*real_sentences[:2000], *["Éclair über ``naïve'' façade"] * 50], 600)


SETTINGS = [{}, {"do_lower_case": False}, {"keep_accents": True}, {"do_lower_case": False, "keep_accents": True}]


def write_albert(model: bytes, settings: dict, path) -> None:
    path.mkdir()
    (path / "spiece.model").write_bytes(model)
    (path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "AlbertTokenizer"} | settings))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_albert_models_yield_the_ids_of_transformers(settings, model, tmp_path):
    transformers = pytest.importorskip("transformers")
    write_albert(model, settings, tmp_path / "albert")
    tokenizer = load_tokenizer(tmp_path / "albert")
    theirs = transformers.AlbertTokenizer.from_pretrained(tmp_path / "albert")
    # transformers encodes names of special tokens in text as these tokens.
    names = [tokenizer.id_to_token(index) for index in tokenizer.special_ids]
    lines = [line for line in LINES if not any(name in line for name in names)]
    ids = tokenizer.encode_batch(lines)
    assert theirs(lines, add_special_tokens=False)["input_ids"] == ids and len(lines) > 1000
    tokenizer.save(tmp_path / "saved")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert theirs(lines, add_special_tokens=False)["input_ids"] == ids
    assert theirs("a")["input_ids"] == [tokenizer.cls_id, *tokenizer.encode("a"), tokenizer.sep_id]
    assert load_tokenizer(tmp_path / "saved").hash() == tokenizer.hash()


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_albert_tokenizers_saved_by_transformers_yield_its_ids(settings, model, tmp_path):
    transformers = pytest.importorskip("transformers")
    write_albert(model, settings, tmp_path / "albert")
    theirs = transformers.AlbertTokenizer.from_pretrained(tmp_path / "albert")
    theirs.add_tokens(["the", "zz"])
    theirs.add_special_tokens({"additional_special_tokens": ["<zz>", "<aa>"]})
    theirs.save_pretrained(tmp_path / "saved")
    tokenizer = load_tokenizer(tmp_path / "saved")
    assert theirs(LINES, add_special_tokens=False, split_special_tokens=True)["input_ids"] == tokenizer.encode_batch(
        LINES
    )
    assert [tokenizer.token_to_id(name) for name in ("<zz>", "<aa>")] == theirs.convert_tokens_to_ids(["<zz>", "<aa>"])


@pytest.mark.parametrize("settings", [{"do_lower_case": False}, {"keep_accents": True}], ids=str)
def test_settings_that_contradict_tokenizer_json_are_refused(settings, model, tmp_path):
    transformers = pytest.importorskip("transformers")
    write_albert(model, {}, tmp_path / "albert")
    transformers.AlbertTokenizer.from_pretrained(tmp_path / "albert").save_pretrained(tmp_path / "saved")
    config = tmp_path / "saved/tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | settings))
    ((key, value),) = settings.items()
    with pytest.raises(
        UserError, match=rf"{key}={value} .*tokenizer\.json has {key}={not value}; correct the wrong file"
    ):
        load_tokenizer(tmp_path / "saved")


def test_trained_vocabularies_yield_the_ids_of_transformers_on_hard_lines(tokenizer_folders):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(tokenizer_folders["unigram"])
    expected = theirs(LINES, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert load_tokenizer(tokenizer_folders["unigram"]).encode_batch(LINES) == expected


def test_ids_equal_those_of_sentencepiece_except_for_ties(model, real_sentences):
    """The library segments each word separately, SentencePiece the whole text, so `*****` may be split differently."""
    theirs = SentencePieceProcessor(model_proto=model).encode(real_sentences)
    ours = Backend(unigram.unigram_tokenizer(unigram.parse(model))).encode_batch(real_sentences)
    assert [sorted(a) for a in ours] == [sorted(b) for b in theirs]


def test_the_case_of_a_bare_model_is_inferred_and_logged(model, real_sentences, tmp_path, messages):
    (tmp_path / "m.model").write_bytes(model)
    assert load_tokenizer(tmp_path).encode("THE") != load_tokenizer(tmp_path).encode("the")
    assert "assuming a cased vocabulary (it has capital letters)" in messages[0]
    uncased = load_tokenizer(tmp_path, lowercase=True)
    assert uncased.encode("THÉ") == uncased.encode("the")
    (tmp_path / "m.model").write_bytes(sentencepiece_model([text.lower() for text in real_sentences[:1000]], 300))
    assert load_tokenizer(tmp_path).encode("THÉ") == load_tokenizer(tmp_path).encode("the")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"model_type": "bpe"}, "is not a unigram model"),
        ({"byte_fallback": True, "vocab_size": 800}, "encodes unknown characters as bytes"),
        ({"user_defined_symbols": ["(", "–"]}, r"has user-defined symbols such as '\('"),
        ({"treat_whitespace_as_suffix": True}, "does not add a space before the first word"),
        ({"add_dummy_prefix": False}, "does not add a space before the first word"),
        ({"remove_extra_whitespaces": False}, "keeps runs of spaces"),
        ({"unk_id": 0, "pad_id": 1}, "has its unknown token at an id other than 1"),
        ({"control_symbols": ["[CLS]", "[SEP]", "☃"]}, "has a special token of one character"),
        ({"control_symbols": ["[SEP]", "[MASK]"]}, r"has no \[CLS\]"),
    ],
)
def test_models_incompatible_with_albert_are_refused(changes, problem, real_sentences, tmp_path):
    size = changes.get("vocab_size", 300)
    (tmp_path / "m.model").write_bytes(sentencepiece_model(real_sentences[:500], size, **changes))
    with pytest.raises(UserError, match=rf"m\.model: this SentencePiece model {problem}; save it as tokenizer\.json"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"tokenizer_class": "XLMRobertaTokenizer"}, "requires XLMRobertaTokenizer, whose ids differ"),
        ({"tokenizer_class": "AlbertTokenizer", "add_prefix_space": False}, "has add_prefix_space=false"),
    ],
)
def test_settings_incompatible_with_albert_are_refused(settings, problem, model, tmp_path):
    (tmp_path / "m.model").write_bytes(model)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match=problem):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content.pieces[7].ClearField("piece"),
        lambda content: setattr(content.pieces[7], "piece", content.pieces[8].piece),
        lambda content: setattr(content.pieces[7], "score", float("nan")),
        lambda content: setattr(content.normalizer_spec, "precompiled_charsmap", b"nonsense"),
    ],
)
def test_damaged_models_are_refused(damage, model, tmp_path):
    content = sentencepiece_model_pb2.ModelProto.FromString(model)
    damage(content)
    (tmp_path / "m.model").write_bytes(content.SerializeToString())
    with pytest.raises(UserError, match=r"m\.model: not a valid SentencePiece model"):
        load_tokenizer(tmp_path)


def test_pieces_of_invalid_utf8_are_refused(model, tmp_path):
    content = model.replace("▁the".encode(), b"\xe2\x96\xffthe", 1)
    assert content != model
    (tmp_path / "m.model").write_bytes(content)
    with pytest.raises(UserError, match=r"m\.model: not a valid SentencePiece model"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("rule", ["0600\t0078", "0600 0601\t0078", "0600 0020 0301\t0078"])
def test_text_is_not_split_before_a_space_that_the_table_joins_to_the_character_before(rule, real_sentences, tmp_path):
    """The library applies the table to grapheme clusters, and a space may be the last character of one."""
    (tmp_path / "rules.tsv").write_text(rule + "\n")
    rules = {"normalization_rule_tsv": str(tmp_path / "rules.tsv")}
    (tmp_path / "m.model").write_bytes(sentencepiece_model(real_sentences[:500], 300, **rules))
    tokenizer = load_tokenizer(tmp_path)
    texts = ["a \u0600 b", "a b", "a \u0600\u0601 b", "a \u0600 \u0301b", "\u0600  b"]
    assert tokenizer.encode_batch(texts) == tokenizer.encode_batch(texts, word_cache=False)


def test_a_damaged_normalizer_table_is_reported_when_a_text_uses_it(model, tmp_path):
    content = unigram.parse(model)
    charsmap = bytearray(content.charsmap)
    del charsmap[-200_000:-100_000:500]
    damaged = dataclasses.replace(content, charsmap=bytes(charsmap))
    with pytest.raises(UserError, match=r"the tokenizer: damaged tokenizer .*; download the tokenizer files again"):
        Backend(unigram.unigram_tokenizer(damaged)).encode_batch(LINES)
