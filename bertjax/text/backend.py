"""The library `tokenizers` as `bertjax.text.tokenizer` needs it."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import tokenizers as library

from bertjax.errors import UserError, first_line
from bertjax.text import word_cache

AS_JSON = "save it as tokenizer.json first (save_pretrained of a fast tokenizer of transformers)"
BERT_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_MAX_GAP = 100_000  # ids that a small vocabulary may leave out
# Of tokenizer_config.json → of the library's BertNormalizer.
_BERT_SETTINGS = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}


class Backend:
    """A tokenizer of the library: WordPiece, unigram, byte-level BPE, and whatever else a tokenizer.json describes.

    Attributes:
      kind: of the model, "WordPiece", "BPE", …
      is_byte_level: whether the space before a word belongs to it.
      pair_separators: how many [SEP] stand between two texts of a row: two in RoBERTa.
    """

    def __init__(self, tokenizer: library.Tokenizer, where: str | Path = "the tokenizer"):
        """Raises UserError where most ids stand for nothing, which the library counts through.

        `where`: its file, for messages.
        """
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        if max(vocabulary.values(), default=0) > 2 * len(vocabulary) + _MAX_GAP:
            raise UserError(
                f"the highest id is {max(vocabulary.values())} for {len(vocabulary)} pieces; get the tokenizer again"
            )
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = True
        self._tokenizer, self._where = tokenizer, where
        self._content = json.loads(tokenizer.to_str())
        self.kind = self._content["model"]["type"]
        self._word_rule = word_cache.word_rule(self._content)
        rule = self._content["pre_tokenizer"] or {}
        self.is_byte_level = "ByteLevel" in [part["type"] for part in rule.get("pretokenizers", [rule]) if part]
        self.pair_separators = max(1, tokenizer.num_special_tokens_to_add(True) - 2)  # [CLS] and the last [SEP]

    def bert_settings(self) -> dict[str, bool | None] | None:
        """What BERT's tokenizer is told, by the names of tokenizer_config.json; None if this is another one."""
        normalizer, model = self._content["normalizer"] or {}, self._content["model"]
        rules = (normalizer.get("type"), (self._content["pre_tokenizer"] or {}).get("type"), self.kind)
        if rules != ("BertNormalizer", "BertPreTokenizer", "WordPiece") or not normalizer["clean_text"]:
            return None
        if (model["continuing_subword_prefix"], model["max_input_chars_per_word"]) != ("##", 100):
            return None
        return {ours: normalizer[theirs] for ours, theirs in _BERT_SETTINGS.items()}

    def with_bert_settings(self, settings: Mapping[str, bool | None]) -> "Backend":
        """BERT's tokenizer with other settings."""
        content = json.loads(self._tokenizer.to_str())
        content["normalizer"] |= {theirs: settings[ours] for ours, theirs in _BERT_SETTINGS.items()}
        return Backend(library.Tokenizer.from_str(json.dumps(content)), self._where)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without special tokens."""
        with _panics_explained(self._where):
            encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids of a text, and the characters that each stands for."""
        with _panics_explained(self._where):
            encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def encode_words(self, words: Sequence[str]) -> list[list[int]]:
        """As `encode_batch`, but BERT's words of ASCII letters and digits take a shorter way through the library.

        BERT's normaliser does nothing to them but lower them, and its pre-tokenizer leaves them whole and drops the
        spaces before them, so they can go to the model at once. Most words that the cache does not know are such ones.
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
        """Text of ids, special tokens by name."""
        return self._tokenizer.decode(ids, skip_special_tokens=False)

    def pieces(self) -> list[str]:
        """The piece of each id."""
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        size = max(vocabulary.values(), default=-1) + 1
        pieces = [f"[unused{index}]" for index in range(size)]  # names of ids that a vocabulary leaves out
        for piece, index in vocabulary.items():
            pieces[index] = piece
        return pieces

    def albert_settings(self) -> dict[str, bool] | None:
        """What the normaliser does, by ALBERT's names of tokenizer_config.json; None for another kind of model."""
        if self.kind != "Unigram":
            return None
        normalizer = self._content["normalizer"] or {}
        kinds = {part.get("type") for part in normalizer.get("normalizers", [normalizer])}
        return {"do_lower_case": "Lowercase" in kinds, "keep_accents": "StripAccents" not in kinds}

    def word_starts(self, pieces: Sequence[str]) -> list[bool]:
        """For each piece whether it begins a word."""
        if self.kind == "WordPiece":
            prefix = self._content["model"]["continuing_subword_prefix"]
            return [not piece.startswith(prefix) for piece in pieces]
        return [piece.startswith(("Ġ", "▁")) for piece in pieces]

    def fingerprint(self) -> bytes:
        """Everything that decides ids. Decoder and post-processor do not, and differ between files of one tokenizer."""
        relevant = {key: self._content[key] for key in ("normalizer", "pre_tokenizer", "model", "added_tokens")}
        relevant["added_tokens"] = sorted((t["id"], t["content"], t["special"]) for t in relevant["added_tokens"])
        return json.dumps(relevant, sort_keys=True).encode()

    def special_pieces(self) -> set[str]:
        """The pieces that stand for no text."""
        return {token["content"] for token in self._content["added_tokens"] if token["special"]}

    def pieces_with_space(self) -> set[str]:
        """The special pieces that stand for the space before them too."""
        return {token["content"] for token in self._content["added_tokens"] if token["lstrip"]}

    def make_word_cache(self, dtype: np.dtype) -> word_cache.WordCache | None:
        """A cache that gives the library's ids, where there can be one."""
        return word_cache.WordCache(self.encode_words, self._word_rule, dtype) if self._word_rule else None

    def words(self, text: str) -> list[str]:
        """A text's words, before a WordPiece model cuts them into pieces."""
        normalizer, rule = self._tokenizer.normalizer, self._tokenizer.pre_tokenizer
        text = normalizer.normalize_str(text) if normalizer else text
        return [word for word, _ in rule.pre_tokenize_str(text)]

    def extended(self, words: Sequence[str]) -> "Backend":
        """With more pieces, which begin words, in a WordPiece vocabulary."""
        size = len(self.pieces())
        content = json.loads(self._tokenizer.to_str())
        content["model"]["vocab"] |= {word: size + number for number, word in enumerate(words)}
        return Backend(library.Tokenizer.from_str(json.dumps(content)), self._where)

    def save(self, directory: Path) -> None:
        """Writes the files of the format into a directory."""
        self._tokenizer.save(str(directory / "tokenizer.json"))
        if self.kind == "WordPiece":
            vocabulary = "".join(f"{piece}\n" for piece in self.pieces())
            (directory / "vocab.txt").write_text(vocabulary, encoding="utf-8")


@contextlib.contextmanager
def _panics_explained(where: str | Path) -> Iterator[None]:
    """Raises UserError where the library breaks off on a text, as it does with a damaged table of its normaliser."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # which has no public name, and is no Exception
            raise
        raise UserError(f"{where}: damaged ({first_line(error)}); get the tokenizer's files again") from error


def wordpiece(
    vocabulary: dict[str, int], lowercase: bool, chinese: bool = True, strip_accents: bool | None = None
) -> library.Tokenizer:
    """BERT's tokenizer with this vocabulary (piece to id), cased or not.

    `chinese`: each Chinese character is a word. `strip_accents`: by default where text is lower-cased.
    """
    tokenizer = library.Tokenizer(library.models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = library.normalizers.BertNormalizer(
        lowercase=lowercase, handle_chinese_chars=chinese, strip_accents=strip_accents
    )
    tokenizer.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = library.decoders.WordPiece()
    tokenizer.add_special_tokens([token for token in BERT_SPECIAL if token in vocabulary])
    if "[CLS]" in vocabulary and "[SEP]" in vocabulary:
        tokenizer.post_processor = bert_template(vocabulary)
    return tokenizer


def bert_template(vocabulary: Mapping[str, int]) -> library.processors.PostProcessor:
    """Puts [CLS] before a text or a pair of texts and [SEP] behind each, by their ids in the vocabulary."""
    return library.processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
