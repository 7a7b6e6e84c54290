"""Wraps the `tokenizers` library for `bertjax.text.tokenizer`."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import tokenizers as library

from bertjax.errors import UserError, first_line
from bertjax.text import word_cache

SAVE_AS_JSON = "save it as tokenizer.json first (save_pretrained of a fast transformers tokenizer)"
BERT_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_MAX_UNUSED_IDS = 100_000  # allowed gaps in the ids of a small vocabulary
# Key in tokenizer_config.json → key of the library's BertNormalizer.
_BERT_SETTINGS = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}


class Backend:
    """A tokenizer of the library: WordPiece, unigram, byte-level BPE, or any other that tokenizer.json can describe.

    Attributes:
      kind: the model type, "WordPiece", "BPE", …
      is_byte_level: whether a word includes the space before it.
      pair_separators: number of [SEP] between the two texts of a pair; two in RoBERTa.
    """

    def __init__(self, tokenizer: library.Tokenizer, location: str | Path = "the tokenizer"):
        """Wraps `tokenizer`.

        Args:
          tokenizer: of the library.
          location: its file, for error messages.

        Raises:
          UserError: the ids are so sparse that enumerating them, as the library does, would take too long.
        """
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        if max(vocabulary.values(), default=0) > 2 * len(vocabulary) + _MAX_UNUSED_IDS:
            raise UserError(
                f"the highest token id is {max(vocabulary.values())}, but the vocabulary has only {len(vocabulary)} "
                "pieces; download the tokenizer again"
            )
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = True
        self._tokenizer, self._location = tokenizer, location
        self._content = json.loads(tokenizer.to_str())
        self.kind = self._content["model"]["type"]
        self._word_rule = word_cache.word_rule(self._content)
        pre_tokenizer = self._content["pre_tokenizer"] or {}
        parts = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
        self.is_byte_level = "ByteLevel" in [part["type"] for part in parts if part]
        self.pair_separators = max(1, tokenizer.num_special_tokens_to_add(True) - 2)  # without [CLS] and the last [SEP]

    def bert_settings(self) -> dict[str, bool | None] | None:
        """Settings of BERT's tokenizer, by their keys in tokenizer_config.json; None for any other tokenizer."""
        normalizer, model = self._content["normalizer"] or {}, self._content["model"]
        types = (normalizer.get("type"), (self._content["pre_tokenizer"] or {}).get("type"), self.kind)
        if types != ("BertNormalizer", "BertPreTokenizer", "WordPiece") or not normalizer["clean_text"]:
            return None
        if (model["continuing_subword_prefix"], model["max_input_chars_per_word"]) != ("##", 100):
            return None
        return {config_key: normalizer[key] for config_key, key in _BERT_SETTINGS.items()}

    def with_bert_settings(self, settings: Mapping[str, bool | None]) -> "Backend":
        """Returns BERT's tokenizer with other settings."""
        content = json.loads(self._tokenizer.to_str())
        content["normalizer"] |= {key: settings[config_key] for config_key, key in _BERT_SETTINGS.items()}
        return Backend(library.Tokenizer.from_str(json.dumps(content)), self._location)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each text, without special tokens."""
        with _panics_as_user_errors(self._location):
            encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Returns the ids of a text and the character range of each."""
        with _panics_as_user_errors(self._location):
            encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def encode_words(self, words: Sequence[str]) -> list[list[int]]:
        """Returns the same ids as `encode_batch`, with a shortcut for BERT's words of ASCII letters and digits.

        BERT's normalizer only lower-cases such words, and its pre-tokenizer keeps them whole and drops the spaces
        before them. They are passed directly to the model. Most words missing from the cache are of this kind.
        """
        if self._word_rule != word_cache.BERT:
            return self.encode_batch(words)
        lowercase, model = self._content["normalizer"]["lowercase"], self._tokenizer.model
        words = [word.strip(" ") for word in words]
        others = [word for word in words if not (word.isascii() and word.isalnum())]
        ids = dict(zip(others, self.encode_batch(others), strict=True))
        for word in words:
            if word not in ids:
                ids[word] = [piece.id for piece in model.tokenize(word.lower() if lowercase else word)]
        return [ids[word] for word in words]

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of ids; special tokens appear by name."""
        return self._tokenizer.decode(ids, skip_special_tokens=False)

    def pieces(self) -> list[str]:
        """Returns the piece of each id."""
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        size = max(vocabulary.values(), default=-1) + 1
        pieces = [f"[unused{index}]" for index in range(size)]  # placeholders for ids without a piece
        for piece, index in vocabulary.items():
            pieces[index] = piece
        return pieces

    def albert_settings(self) -> dict[str, bool] | None:
        """Settings of ALBERT's normalizer, by their keys in tokenizer_config.json; None for models of another type."""
        if self.kind != "Unigram":
            return None
        normalizer = self._content["normalizer"] or {}
        types = {part.get("type") for part in normalizer.get("normalizers", [normalizer])}
        return {"do_lower_case": "Lowercase" in types, "keep_accents": "StripAccents" not in types}

    def word_starts(self, pieces: Sequence[str]) -> list[bool]:
        """Whether each piece begins a word."""
        if self.kind == "WordPiece":
            prefix = self._content["model"]["continuing_subword_prefix"]
            return [not piece.startswith(prefix) for piece in pieces]
        return [piece.startswith(("Ġ", "▁")) for piece in pieces]

    def fingerprint(self) -> bytes:
        """Returns all parts of tokenizer.json that affect ids.

        Decoder and post-processor do not affect them, and differ between files of the same tokenizer.
        """
        relevant = {key: self._content[key] for key in ("normalizer", "pre_tokenizer", "model", "added_tokens")}
        relevant["added_tokens"] = sorted((t["id"], t["content"], t["special"]) for t in relevant["added_tokens"])
        return json.dumps(relevant, sort_keys=True).encode()

    def special_pieces(self) -> set[str]:
        """Returns the special tokens."""
        return {token["content"] for token in self._content["added_tokens"] if token["special"]}

    def pieces_with_space(self) -> set[str]:
        """Returns the special tokens that include the space before them."""
        return {token["content"] for token in self._content["added_tokens"] if token["lstrip"]}

    def make_word_cache(self, dtype: np.dtype) -> word_cache.WordCache | None:
        """Returns a cache that yields the library's ids, or None if this tokenizer cannot have one."""
        return word_cache.WordCache(self.encode_words, self._word_rule, dtype) if self._word_rule else None

    def words(self, text: str) -> list[str]:
        """Returns the words of a text, before a WordPiece model splits them into pieces."""
        normalizer, pre_tokenizer = self._tokenizer.normalizer, self._tokenizer.pre_tokenizer
        text = normalizer.normalize_str(text) if normalizer else text
        return [word for word, _ in pre_tokenizer.pre_tokenize_str(text)]

    def extended(self, words: Sequence[str]) -> "Backend":
        """Returns a WordPiece tokenizer with `words` appended to its vocabulary as word-initial pieces."""
        size = len(self.pieces())
        content = json.loads(self._tokenizer.to_str())
        content["model"]["vocab"] |= {word: size + number for number, word in enumerate(words)}
        return Backend(library.Tokenizer.from_str(json.dumps(content)), self._location)

    def save(self, directory: Path) -> None:
        """Writes tokenizer.json, and vocab.txt for WordPiece, into a directory."""
        self._tokenizer.save(str(directory / "tokenizer.json"))
        if self.kind == "WordPiece":
            vocabulary = "".join(f"{piece}\n" for piece in self.pieces())
            (directory / "vocab.txt").write_text(vocabulary, encoding="utf-8")


@contextlib.contextmanager
def _panics_as_user_errors(location: str | Path) -> Iterator[None]:
    """Turns a panic of the library, such as a damaged normalizer table causes on some texts, into a UserError."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # not importable, and not a subclass of Exception
            raise
        raise UserError(
            f"{location}: damaged tokenizer ({first_line(error)}); download the tokenizer files again"
        ) from error


def wordpiece_tokenizer(
    vocabulary: dict[str, int], lowercase: bool, chinese: bool = True, strip_accents: bool | None = None
) -> library.Tokenizer:
    """Returns BERT's tokenizer with this vocabulary.

    Args:
      vocabulary: piece → id.
      lowercase: whether text is lower-cased.
      chinese: whether each Chinese character is a word.
      strip_accents: whether accents are removed; by default only with `lowercase`.
    """
    tokenizer = library.Tokenizer(library.models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = library.normalizers.BertNormalizer(
        lowercase=lowercase, handle_chinese_chars=chinese, strip_accents=strip_accents
    )
    tokenizer.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = library.decoders.WordPiece()
    tokenizer.add_special_tokens([token for token in BERT_SPECIAL if token in vocabulary])
    if "[CLS]" in vocabulary and "[SEP]" in vocabulary:
        tokenizer.post_processor = bert_post_processor(vocabulary)
    return tokenizer


def bert_post_processor(vocabulary: Mapping[str, int]) -> library.processors.PostProcessor:
    """Returns the post-processor that adds [CLS] before a text or pair of texts and [SEP] after each text."""
    return library.processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
