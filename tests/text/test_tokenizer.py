import json
import sys

import numpy as np
import pytest
import tokenizers as library
from hypothesis import given, settings
from hypothesis import strategies as st

from bertjax.errors import UserError
from bertjax.text import sentences, word_cache
from bertjax.text.backend import Backend
from bertjax.text.tokenizer import Tokenizer, load_tokenizer
from tests.support.tokenizers import KINDS

PROBES = [
    'The cat sat on the mat; it wasn\'t "happy", e.g. at 3.14 km/h.',
    "naïve café Ångström — “quotes” … ½ ﬁ ﷺ",
    "汉字 and ひらがな and 한국어 mixed123with456digits",
    "tabs\tand\u00a0other\u2003spaces\u200band\u0000nothing\x1cat all",
    "[MASK] [CLS] <mask> <s> are words here",
    "",
    " ",
    "x" * 300,
]
# Text that could break a word rule: combining marks; characters that are removed, become spaces or expand to several
# characters; every kind of white space; names of special tokens.
ADVERSARIAL = st.lists(
    st.one_of(
        st.sampled_from(
            [
                " ",
                "  ",
                "   ",
                "\t",
                "\t\t",
                "\n",
                "\x1c",
                "\x85",
                "\xa0",
                "\u180e",
                "\u2003",
                "\u2028",
                "\u200b",
                "\u200d",
                "\ufeff",
                "\u0600 ",
                "\U000110bd  ",
            ]
        ),
        st.sampled_from(["\u0301", "\u0308", "\u0338", "\u0345", "\u3099", "\u1161", "\u11a8", "\u0f71\u0f72"]),
        st.sampled_from(["İ", "ß", "Σ", "ς", "ﬁ", "¨", "K", "\u037e", "\u1fef", "…", "≮", "<\u0338", "汉", "각", "한"]),
        st.sampled_from(["[MASK]", "[UNK]", "<mask>", "</s>", "##ing", "▁a", "Ġa", "'s", "'ll", "don't", "x" * 101]),
        st.sampled_from(list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")),
        st.text(st.characters(codec="utf-8"), max_size=5),
        st.text("abcdefgh THEing0123", max_size=12),
    ),
    max_size=12,
).map("".join)


@pytest.mark.parametrize("kind", KINDS)
def test_word_cache_yields_the_librarys_ids_on_real_text(kind, tokenizers_of_each_kind, real_sentences):
    tokenizer = tokenizers_of_each_kind[kind]
    texts = [*real_sentences, *PROBES]
    assert tokenizer.encode_batch(texts) == tokenizer.encode_batch(texts, word_cache=False)


@pytest.mark.parametrize("kind", KINDS)
@given(texts=st.lists(ADVERSARIAL, min_size=1, max_size=8))
@settings(max_examples=400, deadline=None)
def test_word_cache_yields_the_librarys_ids_on_adversarial_text(kind, tokenizers_of_each_kind, texts):
    tokenizer = tokenizers_of_each_kind[kind]
    assert tokenizer._cache is not None
    assert tokenizer.encode_batch(texts) == tokenizer.encode_batch(texts, word_cache=False)


def test_word_cache_knows_all_white_space(tokenizer_folders):
    white = [chr(code) for code in range(sys.maxunicode + 1) if chr(code).isspace()]
    texts = [text for c in white for text in (f"a{c} {c}b", f"a{c}  b", f"a {c}b", f" {c} ", f"a {c}", f"{c} é {c}é")]
    tokenizer = library.Tokenizer.from_file(str(tokenizer_folders["bpe"] / "tokenizer.json"))
    # A tokenizer with the texts as pieces, so that every wrong split changes the ids.
    special = sorted(Backend(tokenizer).special_pieces())
    trainer = library.trainers.BpeTrainer(vocab_size=5000, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(texts * 2, trainer)
    learned = Tokenizer(Backend(tokenizer), {})
    assert learned._cache is not None
    assert learned.encode_batch(texts) == learned.encode_batch(texts, word_cache=False)


def test_word_cache_is_exact_with_nfc_before_byte_level_bpe(tokenizer_folders):
    tokenizer = library.Tokenizer.from_file(str(tokenizer_folders["bpe"] / "tokenizer.json"))
    tokenizer.normalizer = library.normalizers.NFC()
    composed = Tokenizer(Backend(tokenizer), {})
    texts = ["e\u0301 \u0301e a \u0308 \u1112\u1161\u11ab", "A\u030a\u0327 x", " \u0345 ", "\u212b ngstrom"]
    assert composed._cache is not None
    assert composed.encode_batch(texts) == composed.encode_batch(texts, word_cache=False)


def test_word_cache_is_bounded_and_stays_exact(tokenizers_of_each_kind, real_sentences):
    tokenizer = tokenizers_of_each_kind["wordpiece"]
    small = word_cache.WordCache(tokenizer._backend.encode_words, "bert", np.dtype(np.uint16), max_words=50)
    for sentence in [*real_sentences[:300], "y" * 70_000]:
        lengths, tokens = small.encode([sentence])
        assert lengths.sum() == len(tokens)
        assert [tokens.tolist()] == tokenizer.encode_batch([sentence], word_cache=False)
        assert len(small._ids) <= 51  # 50 words and the end of a text
        assert all(len(word) <= word_cache.MAX_WORD_BYTES for word in small._ids)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.add_tokens(["New York"]),
        lambda t: setattr(t, "normalizer", library.normalizers.NFKC()),
        lambda t: setattr(t, "pre_tokenizer", library.pre_tokenizers.Metaspace()),
        lambda t: setattr(t, "pre_tokenizer", library.pre_tokenizers.ByteLevel(add_prefix_space=True)),
    ],
)
def test_tokenizers_without_a_word_rule_have_no_cache(change, tokenizer_folders):
    assert_without_cache("bpe", change, tokenizer_folders)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: setattr(t, "normalizer", library.normalizers.NFKC()),  # composes characters, also after a space
        lambda t: setattr(t, "normalizer", library.normalizers.Replace(" a", "b")),
        lambda t: setattr(t, "normalizer", library.normalizers.Replace(library.Regex("a$"), "b")),
        lambda t: setattr(t, "pre_tokenizer", library.pre_tokenizers.Metaspace()),
        lambda t: setattr(t, "pre_tokenizer", with_spaces("first")),
    ],
)
def test_unigram_models_without_a_word_rule_have_no_cache(change, tokenizer_folders):
    assert_without_cache("unigram", change, tokenizer_folders)


def with_spaces(scheme: str) -> library.pre_tokenizers.PreTokenizer:
    white = library.pre_tokenizers.WhitespaceSplit()
    return library.pre_tokenizers.Sequence([white, library.pre_tokenizers.Metaspace(prepend_scheme=scheme)])


def assert_without_cache(kind, change, folders) -> None:
    tokenizer = library.Tokenizer.from_file(str(folders[kind] / "tokenizer.json"))
    assert Backend(tokenizer).make_word_cache(np.dtype(np.uint16))
    change(tokenizer)
    assert Backend(tokenizer).make_word_cache(np.dtype(np.uint16)) is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_tokenizer_is_restored(kind, tokenizers_of_each_kind, tokenizer_folders):
    tokenizer, loaded = tokenizers_of_each_kind[kind], load_tokenizer(tokenizer_folders[kind])
    assert loaded.hash() == tokenizer.hash()
    assert loaded.special_ids == tokenizer.special_ids
    assert loaded.encode_batch(PROBES) == tokenizer.encode_batch(PROBES)


@pytest.mark.parametrize("kind", ["wordpiece", "wordpiece-cased"])
def test_vocab_txt_alone_restores_the_tokenizer(kind, tokenizers_of_each_kind, tokenizer_folders, tmp_path):
    (tmp_path / "vocab.txt").write_bytes((tokenizer_folders[kind] / "vocab.txt").read_bytes())
    for path in (tmp_path, tmp_path / "vocab.txt"):
        assert load_tokenizer(path).hash() == tokenizers_of_each_kind[kind].hash()


@pytest.mark.parametrize(
    "settings",
    [{"strip_accents": False}, {"do_lower_case": False, "strip_accents": True}, {"tokenize_chinese_chars": False}],
)
def test_config_settings_apply_to_a_vocab_txt(settings, tokenizer_folders, tmp_path):
    transformers = pytest.importorskip("transformers")
    vocabulary = (tokenizer_folders["wordpiece"] / "vocab.txt").read_text()
    vocabulary += "".join(f"{piece}\n" for piece in ("É", "é", "##é", "E", "中", "##中", "中中", "D", "##É"))
    (tmp_path / "vocab.txt").write_text(vocabulary)
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": True} | settings
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    theirs = transformers.BertTokenizer.from_pretrained(tmp_path)
    text = "é É dé DÉ e 中中 the"
    assert load_tokenizer(tmp_path).encode(text) == theirs(text, add_special_tokens=False)["input_ids"]


def test_added_tokens_outside_vocab_txt_are_refused(tokenizer_folders, tmp_path):
    (tmp_path / "vocab.txt").write_bytes((tokenizer_folders["wordpiece"] / "vocab.txt").read_bytes())
    assert load_tokenizer(tmp_path)
    (tmp_path / "added_tokens.json").write_text('{"<entity>": 700}')
    with pytest.raises(UserError, match=r"'<entity>' of added_tokens\.json is not in vocab\.txt; save it as"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    "settings", [{"tokenizer_class": "BertJapaneseTokenizer"}, {"do_basic_tokenize": False}], ids=str
)
def test_vocabularies_of_other_tokenizers_are_refused(settings, tokenizer_folders, tmp_path):
    (tmp_path / "vocab.txt").write_bytes((tokenizer_folders["wordpiece"] / "vocab.txt").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match=r"splits words differently .* save it as tokenizer\.json first"):
        load_tokenizer(tmp_path)


def test_hash_distinguishes_tokenizers(tokenizers_of_each_kind):
    assert len({tokenizer.hash() for tokenizer in tokenizers_of_each_kind.values()}) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_loads_the_folder_and_returns_the_same_ids(kind, tokenizer_folders, real_sentences):
    transformers = pytest.importorskip("transformers")
    loaders = [transformers.AutoTokenizer, *([transformers.BertTokenizerFast] if "wordpiece" in kind else [])]
    texts = [*real_sentences[:500], *(text for text in PROBES if "[MASK]" not in text)]
    ours = load_tokenizer(tokenizer_folders[kind])
    for loader in loaders:
        theirs = loader.from_pretrained(tokenizer_folders[kind])
        assert theirs(texts, add_special_tokens=False)["input_ids"] == ours.encode_batch(texts)
        assert theirs("a")["input_ids"] == [ours.cls_id, *ours.encode("a"), ours.sep_id]
        roles = (theirs.pad_token_id, theirs.unk_token_id, theirs.cls_token_id, theirs.sep_token_id)
        assert roles == (ours.pad_id, ours.unk_id, ours.cls_id, ours.sep_id)
        assert theirs.mask_token_id == ours.mask_id
        prompt = f"The {theirs.mask_token} sat."
        assert theirs(prompt, add_special_tokens=False)["input_ids"] == ours.encode(prompt, special_tokens=True)


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_are_encoded_in_prompts_but_never_in_text(kind, tokenizers_of_each_kind):
    tokenizer = tokenizers_of_each_kind[kind]
    name = tokenizer.id_to_token(tokenizer.mask_id)
    text = f"the {name} sat {name}{name}"
    assert not set(tokenizer.encode(text)) & {tokenizer.mask_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id}
    prompt = tokenizer.encode(text, special_tokens=True)
    assert prompt.count(tokenizer.mask_id) == 3
    assert name in tokenizer.decode(prompt)
    assert prompt[0] == tokenizer.encode("the")[0]


@pytest.mark.parametrize("kind", ["wordpiece", "wordpiece-cased", "unigram"])
def test_the_space_before_a_sentence_matters_only_in_byte_level_bpe(kind, tokenizers_of_each_kind, real_sentences):
    tokenizer = tokenizers_of_each_kind[kind]
    assert tokenizer.encode_batch(sentences.spaced(real_sentences)) == tokenizer.encode_batch(real_sentences)


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_restores_the_text(kind, tokenizers_of_each_kind):
    tokenizer = tokenizers_of_each_kind[kind]
    text = "the object is an expression"
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("kind", KINDS)
def test_word_starts_count_words(kind, tokenizers_of_each_kind):
    tokenizer = tokenizers_of_each_kind[kind]
    starts = tokenizer.word_starts()
    assert starts.shape == (tokenizer.vocab_size,)
    assert starts[list(tokenizer.special_ids)].all()
    ids = tokenizer.encode("unbelievable metaclasses misrepresented")
    begins = starts[ids]
    begins[0] = True
    assert len(ids) > 3
    assert begins.sum() == 3


def test_ragged_and_nested_ids_agree(tokenizers_of_each_kind):
    tokenizer = tokenizers_of_each_kind["wordpiece"]
    lengths, tokens = tokenizer.encode_ragged(PROBES)
    assert tokens.dtype == np.uint16
    split = np.split(tokens, np.cumsum(lengths)[:-1])
    assert [part.tolist() for part in split] == tokenizer.encode_batch(PROBES)
    assert lengths[5] == 0


def wordpiece_json(vocabulary: dict[str, int]) -> str:
    model = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "vocab": vocabulary}
    return json.dumps({"added_tokens": [], "model": model | {"max_input_chars_per_word": 100}})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", "{}", "not a valid tokenizer.json"),
        ("vocab.txt", "a\nb\n", "[UNK] is missing"),
        ("vocab.txt", "[UNK]\na\na\n", "empty or duplicate pieces"),
        ("vocab.txt", "[UNK]\na\n##a\n", "no pad_token"),
        ("vocab.txt", b"\xff\xfe\x00", "cannot be read"),
        ("x.model", b"nonsense", "not a valid SentencePiece model"),
        ("x.bin", b"nonsense", "not a tokenizer file"),
        (
            "tokenizer.json",
            wordpiece_json({"a": 0}),
            "not a valid tokenizer (WordPiece error: Missing [UNK]",
        ),
        (
            "tokenizer.json",
            wordpiece_json({"[UNK]": 0, "a": 2**31}),
            "the highest token id is 2147483648, but the vocabulary has only 2 pieces",
        ),
    ],
)
def test_damaged_tokenizers_are_refused(name, content, message, tmp_path):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match="(?s)" + name + ".*") as error:
        load_tokenizer(path)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"mask_token": ["[MASK]"]}', "mask_token: Expected `str | object | null`, got `array`"),
        ('{"mask_token": {"content": 3}}', "mask_token.content: Expected `str`, got `int`"),
        ('{"a": ' + "[" * 100_000, "not JSON: maximum recursion depth"),
        ('{"model_max_length": ' + "9" * 5000 + "}", "not JSON: Exceeds the limit"),
        ('{"pad_token": "\\ud800"}', "unpaired surrogate"),
        ("[]", "Expected `object`, got `array`"),
    ],
)
def test_config_values_of_wrong_types_are_refused_in_one_line(content, message, tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n##a\n")
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(UserError, match=r"tokenizer_config\.json: not valid") as error:
        load_tokenizer(tmp_path)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_missing_tokenizers_are_refused(tmp_path):
    with pytest.raises(UserError, match="no tokenizer in this folder"):
        load_tokenizer(tmp_path)
    with pytest.raises(UserError, match="no such tokenizer"):
        load_tokenizer(tmp_path / "nowhere")


def test_configured_special_tokens_take_precedence(tokenizer_folders, tmp_path):
    vocabulary = (tokenizer_folders["wordpiece"] / "vocab.txt").read_text()
    (tmp_path / "vocab.txt").write_text(vocabulary.replace("[MASK]", "[BLANK]"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"mask_token": {"content": "[BLANK]"}}))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.id_to_token(tokenizer.mask_id) == "[BLANK]"
    assert tokenizer.mask_id in tokenizer.special_ids
