"""Encodes text to ids and decodes ids with the `tokenizers` library: WordPiece, unigram, byte-level BPE.

A tokenizer folder holds `tokenizer.json`, `tokenizer_config.json` and, for WordPiece, `vocab.txt`; `transformers` loads
it directly. A `vocab.txt` or a SentencePiece `.model` without the other files can be read, too.
"""

import functools
import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypedDict, TypeVar, cast, overload

import numpy as np
import tokenizers as library

from bertjax import decoding
from bertjax.decoding import ShortText
from bertjax.errors import UserError
from bertjax.storage.files import local_path
from bertjax.text import unigram
from bertjax.text.backend import SAVE_AS_JSON, Backend, wordpiece_tokenizer

_LOG = logging.getLogger(__name__)
_Content = TypeVar("_Content")
_Parsed = TypeVar("_Parsed")

# Default names of the special tokens: those of BERT and ALBERT, then those of RoBERTa.
_ROLES = {
    "pad_token": ("[PAD]", "<pad>"),
    "unk_token": ("[UNK]", "<unk>"),
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
    "mask_token": ("[MASK]", "<mask>"),
}
# Tokenizer classes of transformers that read vocab.txt as BERT does.
_BERT_CLASSES = ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer")
# The folder names of Google's checkpoints show whether text is lower-cased; Google's own code relies on them, too.
_GOOGLE_FOLDER = re.compile(r"(?:\w+_)?(?P<name>uncased|cased|multilingual|chinese)_L-\d+_H-\d+_A-\d+")
_SAVED_FILES = ("tokenizer.json", "vocab.txt", "tokenizer_config.json")
_HINT = "pass a folder with tokenizer.json, vocab.txt or a SentencePiece .model"
_REMEDY = "download it again, or correct it"
_ALBERT_DEFAULTS = {"do_lower_case": True, "keep_accents": False}  # in transformers
_PROBE = "a 𐎀"  # a word, and a letter that hardly any vocabulary contains


class _AddedToken(TypedDict):
    """A special token with its properties."""

    content: ShortText


class TokenizerConfig(TypedDict, total=False):
    """The keys of tokenizer_config.json that BERT's and ALBERT's tokenizers use; the file may have others."""

    tokenizer_class: ShortText | None
    do_lower_case: bool
    do_basic_tokenize: bool | None
    keep_accents: bool | None
    add_prefix_space: bool
    strip_accents: bool | None
    tokenize_chinese_chars: bool
    pad_token: ShortText | _AddedToken | None
    unk_token: ShortText | _AddedToken | None
    cls_token: ShortText | _AddedToken | None
    sep_token: ShortText | _AddedToken | None
    mask_token: ShortText | _AddedToken | None
    model_max_length: object  # any number, also one larger than int64


class Tokenizer:
    """Encodes text to ids and decodes ids.

    Names of special tokens in text are encoded as plain characters, so a document may contain "[MASK]". Prompts are
    encoded with `encode(text, special_tokens=True)`.

    Attributes:
      vocab_size: number of ids.
      cls_id, sep_id, mask_id, pad_id, unk_id: ids of the special tokens.
      special_ids: all ids that represent no text, in increasing order (control and `[unused…]` tokens).
      dtype: `token_type` of the vocabulary.
      pair_separators: number of [SEP] between the two texts of a pair: one in BERT, two in RoBERTa.
    """

    def __init__(self, backend: Backend, config: TokenizerConfig):
        """Use `load_tokenizer` or `bertjax.text.tokenizer_training.train_tokenizer` instead."""
        self._backend = backend
        self._config = config
        self._pieces = backend.pieces()
        self._ids = {piece: index for index, piece in enumerate(self._pieces)}
        self.vocab_size = len(self._pieces)
        self.dtype = token_type(self.vocab_size)
        self.pair_separators = backend.pair_separators
        self._roles = {role: self._role(role) for role in _ROLES}
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (
            self._ids[self._roles[role]] for role in _ROLES
        )
        unused = {piece for piece in self._pieces if piece.startswith("[unused") and piece.endswith("]")}
        self._special_names = (backend.special_pieces() | unused | set(self._roles.values())) & self._ids.keys()
        self.special_ids = tuple(sorted(self._ids[name] for name in self._special_names))
        self._cache = backend.make_word_cache(token_type(self.vocab_size + 1))  # one more id marks the end of a text

    def __len__(self) -> int:
        return self.vocab_size

    def __repr__(self) -> str:
        return f"<Tokenizer {self._backend.kind}: {self.vocab_size} tokens>"

    @overload
    def __call__(self, text: str) -> list[int]: ...

    @overload
    def __call__(self, text: Sequence[str]) -> list[list[int]]: ...

    def __call__(self, text: str | Sequence[str]) -> list[int] | list[list[int]]:
        """Returns the ids of a text, or of each of several, without [CLS] and [SEP].

        A model reads `len(tokenizer(text)) + 2` tokens for a text: [CLS], the text and [SEP]. For a pair of texts it
        reads the ids of both and `2 + tokenizer.pair_separators` special tokens.
        """
        return self.encode(text) if isinstance(text, str) else self.encode_batch(text)

    def encode(self, text: str, special_tokens: bool = False) -> list[int]:
        """Returns the ids of a text, without [CLS] and [SEP].

        Args:
          text: any text.
          special_tokens: whether names such as "[MASK]" are encoded as special tokens.
        """
        if not special_tokens:
            # For a single text the cache costs more than it saves.
            return self.encode_batch([text], word_cache=False)[0]
        ids = []
        for part in self._special_pattern.split(text):
            name = part.strip()
            if name in self._special_names:
                ids.append(self._ids[name])
            elif part:
                ids += self.encode_batch([part], word_cache=False)[0]
        return ids

    def encode_batch(self, texts: Sequence[str], word_cache: bool = True) -> list[list[int]]:
        """Returns the ids of each text; `word_cache=False` bypasses the cache, which is faster for a few words."""
        if not (word_cache and self._cache):
            return [list(ids) for ids in self._backend.encode_batch(texts)]
        lengths, tokens = self._cache.encode(texts)
        return [ids.tolist() for ids in np.split(tokens, np.cumsum(lengths)[:-1])] if len(texts) else []

    def encode_words(self, words: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each word of a sentence; a byte-level word includes the space before it."""
        space = " " if self._backend.is_byte_level else ""
        return self.encode_batch([space + word for word in words], word_cache=False)

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Returns (ids, character range [first, last + 1) of each in the text), without special tokens."""
        return self._backend.encode_with_offsets(text)

    def encode_ragged(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the ids of all texts in one array.

        Returns:
          lengths: int64 [texts], the number of ids of each text.
          tokens: `dtype` [sum of lengths].
        """
        if self._cache:
            lengths, tokens = self._cache.encode(texts)
            return lengths, tokens.astype(self.dtype, copy=False)
        encoded = [np.array(ids, self.dtype) for ids in self._backend.encode_batch(texts)]
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        return lengths, np.concatenate([np.zeros(0, self.dtype), *encoded])

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of ids; special tokens appear by name."""
        return self._backend.decode([int(index) for index in ids])

    def id_to_token(self, index: int) -> str:
        """Returns the piece of an id; raises IndexError for an unknown id."""
        return self._pieces[index]

    def token_to_id(self, token: str) -> int | None:
        """Returns the id of a piece, or None."""
        return self._ids.get(token)

    def word_starts(self) -> np.ndarray:
        """Whether each piece begins a word: bool [vocab_size].

        WordPiece: pieces without "##", so every punctuation mark is a word. Unigram: pieces with "▁". Byte-level:
        pieces with "Ġ" (a space). Special tokens begin a word. In unigram and byte-level vocabularies punctuation
        belongs to the word before it. Byte-level text has no space before its first word; a corpus adds one before
        every sentence except the first of a document, which follows [CLS] or [SEP].
        """
        starts = np.array(self._backend.word_starts(self._pieces), bool)
        starts[list(self.special_ids)] = True
        return starts

    def words(self, text: str) -> list[str]:
        """Returns the normalized words of a text; raises UserError if this is not a WordPiece tokenizer."""
        return self._wordpiece_backend().words(text)

    def extended(self, words: Sequence[str]) -> "Tokenizer":
        """Returns this tokenizer with `words` appended to its vocabulary; raises UserError if it is not WordPiece."""
        return Tokenizer(self._wordpiece_backend().extended(words), self._config)

    def hash(self) -> str:
        """Returns the SHA-256 (hex) of vocabulary, normalization and special tokens, independent of the file format."""
        content = hashlib.sha256(self._backend.fingerprint())
        content.update(json.dumps(self._roles, sort_keys=True).encode())
        return content.hexdigest()

    def save(self, directory: str | Path, length: int | None = None) -> None:
        """Writes the files that `load_tokenizer` and `transformers` read into a directory, creating it if necessary.

        `length`: the model's maximum number of tokens; by default that of the loaded tokenizer.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        for name in _SAVED_FILES:  # replaces links without changing their targets
            (directory / name).unlink(missing_ok=True)
        self._backend.save(directory)
        values = {**self._config, **self._class_settings(), **self._roles}
        values |= {"model_max_length": length} if length else {}
        content = json.dumps(values, indent=1, ensure_ascii=False)
        (directory / "tokenizer_config.json").write_text(content + "\n", encoding="utf-8")

    def _class_settings(self) -> dict[str, str | bool | None]:
        """Returns the class of `transformers` that produces the same ids, and its settings.

        For BERT's and ALBERT's classes version 5 reads only the vocabulary from tokenizer.json and takes everything
        else from these settings, which default to those of an uncased model.
        """
        name = self._config.get("tokenizer_class")
        if settings := self._backend.bert_settings():
            return {"tokenizer_class": name if name and _is_bert_class(name) else _BERT_CLASSES[0], **settings}
        rebuilt = _is_bert_class(name) or _is_albert_class(name)
        return {"tokenizer_class": "PreTrainedTokenizerFast" if rebuilt else name}

    def _wordpiece_backend(self) -> Backend:
        kind = self._backend.kind
        if kind != "WordPiece":
            raise UserError(
                f"cannot add words to a {kind} vocabulary, only to WordPiece; keep the vocabulary, or train a new one"
            )
        return self._backend

    @functools.cached_property
    def _special_pattern(self) -> re.Pattern[str]:
        """Matches names of special tokens, and the white space before those that include it (RoBERTa's mask)."""
        with_space = self._backend.pieces_with_space()
        names = sorted(self._special_names, key=len, reverse=True)
        alternatives = [("\\s*" if name in with_space else "") + re.escape(name) for name in names]
        return re.compile("(" + "|".join(alternatives) + ")")

    def _role(self, role: str) -> str:
        configured = self._config.get(role)
        if isinstance(configured, dict):  # an AddedToken of transformers
            configured = configured.get("content")
        for name in (configured, *_ROLES[role]):
            if isinstance(name, str) and name in self._ids:
                return name
        expected = " or ".join(_ROLES[role])
        raise UserError(
            f"the tokenizer has no {role} ({expected}); add it to the vocabulary, or set it in tokenizer_config.json"
        )


def token_type(vocab_size: int) -> np.dtype:
    """Returns the integer type of the ids of a vocabulary: uint16, or uint32 above 65,536 ids."""
    return np.dtype(np.uint16 if vocab_size <= 2**16 else np.uint32)


def load_tokenizer(path: str | Path, lowercase: bool | None = None) -> Tokenizer:
    """Loads a tokenizer.

    Args:
      path: a folder or a file: tokenizer.json, vocab.txt or a SentencePiece .model. If a folder holds several of them,
        the first in this order is read. The settings in tokenizer_config.json of BERT's and ALBERT's tokenizers are
        applied.
      lowercase: whether text is lower-cased, for a vocab.txt or .model without a config file that specifies it.
        By default it is inferred from the name of Google's folder or from the vocabulary, and logged.

    Raises:
      UserError: the tokenizer is missing, cannot be read or lacks a special token, or `lowercase` is given although
        a file specifies it.
    """
    path = local_path(path, "the tokenizer")
    if not path.exists():
        raise UserError(f"{path}: no such tokenizer; {_HINT}")
    file = _tokenizer_file(path) if path.is_dir() else path
    try:
        config = _read_config(file.parent)
        if lowercase is not None and (file.suffix == ".json" or "do_lower_case" in config):
            raise UserError(
                "the tokenizer's files already specify whether text is lower-cased; omit lowercase (--lowercase)"
            )
        backend = _load_backend(file, config, lowercase)
        _parse("tokenizer", backend.encode_batch, [_PROBE])
        return Tokenizer(backend, config)
    except UserError as error:
        raise UserError(f"{file}: {str(error).removeprefix(f'{file}: ')}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read as a tokenizer ({error}); {_HINT}") from error


def _tokenizer_file(directory: Path) -> Path:
    for candidate in (
        directory / "tokenizer.json",
        directory / "vocab.txt",
        *sorted(directory.glob("*.model")),
    ):
        if candidate.is_file():
            return candidate
    raise UserError(f"{directory}: no tokenizer in this folder; {_HINT}")


def _load_backend(file: Path, config: TokenizerConfig, lowercase: bool | None) -> Backend:
    if file.suffix == ".json":
        tokenizer = _parse("tokenizer.json", library.Tokenizer.from_str, file.read_text(encoding="utf-8"))
        backend = _parse("tokenizer.json", lambda tokenizer: Backend(tokenizer, file), tokenizer)
        return _with_config_settings(backend, config)
    if file.suffix == ".txt":
        return Backend(_wordpiece(_read_vocabulary(file, config), config, file, lowercase))
    if file.suffix == ".model":
        model = unigram.parse(file.read_bytes())
        rules = _albert_rules([piece for piece, _ in model.pieces], config, file, lowercase)
        return _parse(
            "SentencePiece model", lambda model: Backend(unigram.unigram_tokenizer(model, rules), file), model
        )
    raise UserError("not a tokenizer file; " + _HINT)


def _read_vocabulary(file: Path, config: TokenizerConfig) -> dict[str, int]:
    """Returns piece → id of a vocab.txt."""
    pieces = file.read_text(encoding="utf-8").rstrip("\n").split("\n")
    vocabulary = {piece.rstrip("\r"): index for index, piece in enumerate(pieces)}
    if len(vocabulary) != len(pieces) or "" in vocabulary:
        raise UserError("empty or duplicate pieces in the vocabulary; correct the file, one distinct piece per line")
    if "[UNK]" not in vocabulary:
        raise UserError("not a WordPiece vocabulary ([UNK] is missing); " + _HINT)
    added_tokens = _read_json(file.parent / "added_tokens.json")
    if missing := sorted(added_tokens.keys() - vocabulary.keys()):
        raise UserError(f"{missing[0]!r} of added_tokens.json is not in vocab.txt; {SAVE_AS_JSON}")
    if not any(piece.startswith("##") for piece in vocabulary) and "tokenizer_class" not in config:
        raise UserError(
            "no piece begins with ##, so this may not be a WordPiece vocabulary (but one of molecules or proteins); "
            'if it is one, add a tokenizer_config.json with {"tokenizer_class": "BertTokenizer", '
            '"do_lower_case": false} to its folder'
        )
    return vocabulary


def _with_config_settings(backend: Backend, config: TokenizerConfig) -> Backend:
    """Applies the settings of tokenizer_config.json, which take precedence in `transformers` for BERT's classes.

    Raises:
      UserError: the settings of an ALBERT tokenizer, for which they take precedence too, differ between its files.
    """
    name = config.get("tokenizer_class")
    albert_settings = backend.albert_settings() if _is_albert_class(name) else None
    for key, value in (albert_settings or {}).items():
        configured = config.get(key, _ALBERT_DEFAULTS[key])
        if configured != value:
            raise UserError(
                f"tokenizer_config.json has {key}={configured} (the default if it is not set), but tokenizer.json has "
                f"{key}={value}; correct the wrong file"
            )
    settings = backend.bert_settings() if _is_bert_class(name) else None
    if settings is None:
        return backend
    configured_settings = {key: config.get(key, value) for key, value in settings.items()}
    return backend if configured_settings == settings else backend.with_bert_settings(configured_settings)


def _is_bert_class(name: str | None) -> bool:
    """Whether a tokenizer class of `transformers` is one of BERT's, which are the default."""
    return (name or _BERT_CLASSES[0]).removesuffix("Fast") in _BERT_CLASSES


def _wordpiece(
    vocabulary: dict[str, int], config: TokenizerConfig, file: Path, lowercase: bool | None
) -> library.Tokenizer:
    """Returns the tokenizer of a vocab.txt, with the settings of tokenizer_config.json."""
    name = config.get("tokenizer_class") or _BERT_CLASSES[0]
    if not _is_bert_class(name) or config.get("do_basic_tokenize") is False:
        raise UserError(
            f"tokenizer_config.json requires {name}, which splits words differently from BERT's basic tokenizer; "
            f"{SAVE_AS_JSON}"
        )
    if lowercase is None:
        lowercase = config["do_lower_case"] if "do_lower_case" in config else _infer_lowercase(vocabulary, file)
    chinese, strip_accents = config.get("tokenize_chinese_chars", True), config.get("strip_accents")
    return wordpiece_tokenizer(vocabulary, lowercase, chinese, strip_accents)


def _is_albert_class(name: str | None) -> bool:
    return (name or "").removesuffix("Fast") == "AlbertTokenizer"


def _albert_rules(
    pieces: Sequence[str], config: TokenizerConfig, file: Path, lowercase: bool | None
) -> unigram.NormalizationRules:
    """Returns ALBERT's normalization before a SentencePiece model, with the settings of tokenizer_config.json."""
    name = config.get("tokenizer_class")
    if name and not _is_albert_class(name):
        raise UserError(
            f"tokenizer_config.json requires {name}, whose ids differ from those of ALBERT's tokenizer; {SAVE_AS_JSON}"
        )
    if not config.get("add_prefix_space", True):
        raise UserError("tokenizer_config.json has add_prefix_space=false; " + SAVE_AS_JSON)
    configured = config.get("do_lower_case", _ALBERT_DEFAULTS["do_lower_case"] if name else None)
    if lowercase is None:
        lowercase = _infer_lowercase(pieces, file) if configured is None else configured
    keep_accents = config.get("keep_accents", configured is None and not lowercase)
    return unigram.NormalizationRules(lowercase, bool(keep_accents), quotes=True)


def _parse(kind: str, parser: Callable[[_Content], _Parsed], content: _Content) -> _Parsed:
    try:
        return parser(content)
    except (KeyboardInterrupt, SystemExit, UserError):
        raise
    # The library raises bare Exception for a file that it cannot parse; a panic in Rust is not even an Exception.
    except BaseException as error:
        raise UserError(f"not a valid {kind} ({error}); {_HINT}") from error


def _read_config(folder: Path) -> TokenizerConfig:
    values = _read_json(folder / "tokenizer_config.json")
    decoding.convert(values, TokenizerConfig, "tokenizer_config.json", _REMEDY, foreign=True)
    return cast(TokenizerConfig, values)  # with the other keys, which `save` writes again


def _read_json(path: Path) -> dict[str, object]:
    return decoding.read(path, dict[str, object], _REMEDY, foreign=True) if path.is_file() else {}


def _infer_lowercase(vocabulary: Iterable[str], file: Path) -> bool:
    """Whether text is lower-cased for the vocabulary in a file, if no other file specifies it."""
    if google := _GOOGLE_FOLDER.fullmatch(file.resolve().parent.name):
        lowercase, reason = google["name"] != "cased", "from the folder name"
    else:
        words = [piece for piece in vocabulary if not re.fullmatch(r"\[.*\]|<.*>", piece)]
        # Capitals outside A-Z are no evidence: some, such as ℝ, have no lower case.
        lowercase = not re.search("[A-Z]", "".join(words))
        reason = "no capital letters A to Z" if lowercase else "it has capital letters"
    _LOG.info(
        f"{file}: assuming {'an uncased' if lowercase else 'a cased'} vocabulary ({reason}); "
        f"to change this, pass lowercase={not lowercase} to load_tokenizer "
        f"(--lowercase={str(not lowercase).lower()} to convert or prepare)"
    )
    return lowercase
