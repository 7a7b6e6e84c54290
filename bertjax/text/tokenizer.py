"""Text to ids and back, by the library `tokenizers`: WordPiece, unigram, byte-level BPE.

A folder holds what the ecosystem reads: `tokenizer.json`, for WordPiece `vocab.txt` too, and `tokenizer_config.json`;
`transformers` loads it as it is. A `vocab.txt` or a SentencePiece `.model` alone is read, too.
"""

import dataclasses
import functools
import hashlib
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers as library

from bertjax import decoding
from bertjax.decoding import ShortText
from bertjax.errors import UserError
from bertjax.storage.files import local_path
from bertjax.text import unigram
from bertjax.text.backend import AS_JSON, Backend, wordpiece

_LOG = logging.getLogger(__name__)

# The names that a role goes by, where tokenizer_config.json does not say: BERT and ALBERT, then RoBERTa.
_ROLES = {
    "pad_token": ("[PAD]", "<pad>"),
    "unk_token": ("[UNK]", "<unk>"),
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
    "mask_token": ("[MASK]", "<mask>"),
}
# What reads vocab.txt as BERT does.
_OF_VOCABULARIES = ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer")
# Folders of Google's checkpoints say by their names whether text is lower-cased; its own code goes by them, too.
_GOOGLE_FOLDER = re.compile(r"(?:\w+_)?(?P<name>uncased|cased|multilingual|chinese)_L-\d+_H-\d+_A-\d+")
_FILES = ("tokenizer.json", "vocab.txt", "tokenizer_config.json")  # that are written
_HINT = "give a folder with tokenizer.json, vocab.txt or a SentencePiece .model"
_CURE = "get it again, or put it right"
_ALBERT = {"do_lower_case": True, "keep_accents": False}  # the defaults of its tokenizer in transformers
_PROBE = "a 𐎀"  # a word, and a letter that is in hardly any vocabulary


@dataclasses.dataclass(frozen=True)
class _AddedToken:
    """A special token, written out."""

    content: ShortText


@dataclasses.dataclass(frozen=True)
class _Settings:
    """The settings in tokenizer_config.json of BERT's and ALBERT's tokenizers."""

    tokenizer_class: ShortText | None = None
    do_lower_case: bool = True
    do_basic_tokenize: bool | None = None
    keep_accents: bool | None = None
    add_prefix_space: bool = True
    strip_accents: bool | None = None
    tokenize_chinese_chars: bool = True
    pad_token: ShortText | _AddedToken | None = None
    unk_token: ShortText | _AddedToken | None = None
    cls_token: ShortText | _AddedToken | None = None
    sep_token: ShortText | _AddedToken | None = None
    mask_token: ShortText | _AddedToken | None = None


class Tokenizer:
    """Text to ids and back.

    Special tokens are never read out of text: a document that speaks of "[MASK]" gets the ids of those characters.
    `encode(text, special_tokens=True)` is for prompts.

    Attributes:
      vocab_size: number of ids.
      cls_id, sep_id, mask_id, pad_id, unk_id: ids of the special tokens.
      special_ids: all ids that stand for no text, rising (control and `[unused…]` tokens).
      dtype: `token_type` of the vocabulary.
      pair_separators: how many [SEP] stand between two texts: one in BERT, two in RoBERTa.
    """

    def __init__(self, backend: Backend, config: dict[str, Any]):
        """Use `load_tokenizer` or `bertjax.text.tokenizer_training.train`."""
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
        self._cache = backend.make_word_cache(token_type(self.vocab_size + 1))  # one id more: the end of a text

    def encode(self, text: str, special_tokens: bool = False) -> list[int]:
        """Ids of a text, without [CLS] and [SEP] around them.

        Args:
          text: any text.
          special_tokens: read the names of special tokens ("[MASK]") as those tokens.
        """
        if not special_tokens:
            # For one text a call of the cache costs more than it saves.
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
        """Ids of each text; `word_cache=False` asks the library for every text, which is faster for a few words."""
        if not (word_cache and self._cache):
            return [list(ids) for ids in self._backend.encode_batch(texts)]
        lengths, tokens = self._cache.encode(texts)
        return [ids.tolist() for ids in np.split(tokens, np.cumsum(lengths)[:-1])] if len(texts) else []

    def encode_words(self, words: Sequence[str]) -> list[list[int]]:
        """Ids of each word of a sentence, as within it: in a byte-level vocabulary with the space before it."""
        space = " " if self._backend.is_byte_level else ""
        return self.encode_batch([space + word for word in words], word_cache=False)

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """(ids, the characters [first, last + 1) of the text that each stands for), without special tokens."""
        return self._backend.encode_with_offsets(text)

    def encode_ragged(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids of all texts in one array.

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
        """Text of ids; special tokens appear by name."""
        return self._backend.decode([int(index) for index in ids])

    def id_to_token(self, index: int) -> str:
        """The piece of an id. IndexError where there is none."""
        return self._pieces[index]

    def token_to_id(self, token: str) -> int | None:
        """The id of a piece, or None."""
        return self._ids.get(token)

    def word_starts(self) -> np.ndarray:
        """Which pieces begin a word: bool [vocab_size].

        WordPiece: those without "##", so every punctuation mark is a word. Unigram: those with "▁". Byte-level: those
        with "Ġ" (a space). Special tokens begin one. In unigram and byte-level vocabularies punctuation belongs to
        the word before it, and byte-level text has no space before its first word: a corpus puts one before every
        sentence but a document's first, which [CLS] or [SEP] stands before.
        """
        starts = np.array(self._backend.word_starts(self._pieces), bool)
        starts[list(self.special_ids)] = True
        return starts

    def words(self, text: str) -> list[str]:
        """A text's words as the normaliser and the rule for words leave them. UserError where it is not WordPiece."""
        return self._wordpiece_backend().words(text)

    def extended(self, words: Sequence[str]) -> "Tokenizer":
        """A tokenizer with more words behind the pieces of this one. UserError where it is not WordPiece."""
        return Tokenizer(self._wordpiece_backend().extended(words), self._config)

    def hash(self) -> str:
        """Identity of vocabulary, normalisation and special tokens (hex SHA-256), whatever files it came from."""
        content = hashlib.sha256(self._backend.fingerprint())
        content.update(json.dumps(self._roles, sort_keys=True).encode())
        return content.hexdigest()

    def save(self, directory: str | Path, length: int | None = None) -> None:
        """Writes the files that `load` and `transformers` read into a directory, made where it is missing.

        `length`: how many tokens the model reads; by default as where the tokenizer was read.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        for name in _FILES:  # a link is replaced, and what it points to stays as it is
            (directory / name).unlink(missing_ok=True)
        self._backend.save(directory)
        values = self._config | self._class_settings() | self._roles
        values |= {"model_max_length": length} if length else {}
        content = json.dumps(values, indent=1, ensure_ascii=False)
        (directory / "tokenizer_config.json").write_text(content + "\n", encoding="utf-8")

    def _class_settings(self) -> dict[str, Any]:
        """The class of `transformers` that gives the same ids, and its settings.

        Version 5 takes no more than the vocabulary from a tokenizer.json where the class is BERT's or ALBERT's, and
        makes the rest from these settings, whose defaults are those of an uncased model.
        """
        name = self._config.get("tokenizer_class")
        if settings := self._backend.bert_settings():
            return {"tokenizer_class": name if name and _reads_as_bert(name) else _OF_VOCABULARIES[0]} | settings
        rebuilt = _reads_as_bert(name) or _reads_as_albert(name)
        return {"tokenizer_class": "PreTrainedTokenizerFast" if rebuilt else name}

    def _wordpiece_backend(self) -> Backend:
        kind = self._backend.kind
        if kind != "WordPiece":
            raise UserError(f"words can be added to a WordPiece vocabulary, not to {kind}; keep it, or make a new one")
        return self._backend

    @functools.cached_property
    def _special_pattern(self) -> re.Pattern[str]:
        """Finds names of special tokens, with the space before those that stand for it too (RoBERTa's mask)."""
        with_space = self._backend.pieces_with_space()
        names = sorted(self._special_names, key=len, reverse=True)
        alternatives = [("\\s*" if name in with_space else "") + re.escape(name) for name in names]
        return re.compile("(" + "|".join(alternatives) + ")")

    def _role(self, role: str) -> str:
        configured = self._config.get(role)
        if isinstance(configured, dict):  # an AddedToken, written out
            configured = configured.get("content")
        for name in (configured, *_ROLES[role]):
            if name in self._ids:
                return name
        expected = " or ".join(_ROLES[role])
        raise UserError(
            f"the tokenizer has no {role} ({expected}); add it to the vocabulary or name it in tokenizer_config.json"
        )


def token_type(vocab_size: int) -> np.dtype:
    """The integer type of the ids of a vocabulary: uint16, or uint32 above 65,536 ids."""
    return np.dtype(np.uint16 if vocab_size <= 2**16 else np.uint32)


def load_tokenizer(path: str | Path, lowercase: bool | None = None) -> Tokenizer:
    """Loads a tokenizer.

    Args:
      path: a folder, or the file itself: tokenizer.json, vocab.txt or a SentencePiece .model. In a folder with several
        of them the first of this list is taken. The settings of BERT's and ALBERT's tokenizers in
        tokenizer_config.json are applied.
      lowercase: whether text is lower-cased, of a vocab.txt or .model where no file says it; by default as the name
        of Google's folder says, else as the vocabulary looks, which is logged.

    Raises:
      UserError: there is no tokenizer, it cannot be read, it lacks a special token, or `lowercase` is given where a
        file says it.
    """
    path = local_path(path, "the tokenizer")
    if not path.exists():
        raise UserError(f"{path}: no such tokenizer; {_HINT}")
    file = _tokenizer_file(path) if path.is_dir() else path
    try:
        config = _read_config(file.parent)
        if lowercase is not None and (file.suffix == ".json" or "do_lower_case" in config):
            raise UserError("its own files say whether text is lower-cased; leave --lowercase out")
        backend = _backend(file, config, lowercase)
        _parse("tokenizer for any text", backend.encode_batch, [_PROBE])
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


def _backend(file: Path, config: Mapping[str, Any], lowercase: bool | None) -> Backend:
    if file.suffix == ".json":
        parsed = _parse("tokenizer.json", library.Tokenizer.from_str, file.read_text(encoding="utf-8"))
        return _as_configured(_parse("tokenizer.json", lambda parsed: Backend(parsed, file), parsed), config)
    if file.suffix == ".txt":
        pieces = file.read_text(encoding="utf-8").rstrip("\n").split("\n")
        vocabulary = {piece.rstrip("\r"): index for index, piece in enumerate(pieces)}
        if len(vocabulary) != len(pieces) or "" in vocabulary:
            raise UserError("a vocabulary holds one piece a line, none empty or twice; put the file right")
        if "[UNK]" not in vocabulary:
            raise UserError("not a WordPiece vocabulary ([UNK] is missing); " + _HINT)
        added = _read_json(file.parent / "added_tokens.json")
        if unknown := sorted(added.keys() - vocabulary.keys()):
            raise UserError(f"added_tokens.json has {unknown[0]!r}, which vocab.txt has not; {AS_JSON}")
        if not any(piece.startswith("##") for piece in vocabulary) and "tokenizer_class" not in config:
            raise UserError(
                "no piece begins with ##, so this may be no WordPiece vocabulary (of molecules or proteins, perhaps); "
                'if it is one, write {"tokenizer_class": "BertTokenizer", "do_lower_case": false} into '
                "tokenizer_config.json beside it"
            )
        return Backend(_wordpiece(vocabulary, config, file, lowercase))
    if file.suffix == ".model":
        model = unigram.parse(file.read_bytes())
        rules = _albert_rules([piece for piece, _ in model.pieces], config, file, lowercase)
        return _parse("SentencePiece model", lambda model: Backend(unigram.tokenizer(model, rules), file), model)
    raise UserError("not a tokenizer file; " + _HINT)


def _as_configured(backend: Backend, config: Mapping[str, Any]) -> Backend:
    """With the settings of tokenizer_config.json, which `transformers` prefers to the file's for BERT's classes.

    Raises:
      UserError: it prefers them for ALBERT's, too, and they differ.
    """
    found = backend.albert_settings() if _reads_as_albert(config.get("tokenizer_class")) else None
    for key, value in (found or {}).items():
        if config.get(key, _ALBERT[key]) != value:
            raise UserError(
                f"tokenizer_config.json has {key}={config.get(key, _ALBERT[key])} (the default, if it does not say), "
                f"tokenizer.json has {key}={value}; correct the one that is wrong"
            )
    settings = backend.bert_settings() if _reads_as_bert(config.get("tokenizer_class")) else None
    asked = settings and {key: config.get(key, value) for key, value in settings.items()}
    return backend if asked == settings else backend.with_bert_settings(asked)


def _reads_as_bert(name: str | None) -> bool:
    """Whether a tokenizer class of `transformers` is one of BERT's; one that is not named is."""
    return (name or _OF_VOCABULARIES[0]).removesuffix("Fast") in _OF_VOCABULARIES


def _wordpiece(
    vocabulary: dict[str, int], config: Mapping[str, Any], file: Path, lowercase: bool | None
) -> library.Tokenizer:
    """The tokenizer of the vocabulary in a file, as tokenizer_config.json says where it is there."""
    name = config.get("tokenizer_class") or _OF_VOCABULARIES[0]
    if not _reads_as_bert(name) or config.get("do_basic_tokenize") is False:
        raise UserError(
            f"tokenizer_config.json asks for {name}, which cuts words in another way than BERT's basic tokenizer; "
            f"{AS_JSON}"
        )
    if lowercase is None:
        lowercase = config["do_lower_case"] if "do_lower_case" in config else _guessed_lowercase(vocabulary, file)
    return wordpiece(vocabulary, lowercase, config.get("tokenize_chinese_chars", True), config.get("strip_accents"))


def _reads_as_albert(name: str | None) -> bool:
    return (name or "").removesuffix("Fast") == "AlbertTokenizer"


def _albert_rules(
    pieces: Sequence[str], config: Mapping[str, Any], file: Path, lowercase: bool | None
) -> unigram.Rules:
    """How ALBERT changes text before the SentencePiece model in a file, as tokenizer_config.json says."""
    name = config.get("tokenizer_class")
    if name and not _reads_as_albert(name):
        raise UserError(
            f"tokenizer_config.json asks for {name}, which gives other ids than ALBERT's tokenizer; {AS_JSON}"
        )
    if not config.get("add_prefix_space", True):
        raise UserError("tokenizer_config.json has add_prefix_space=false; " + AS_JSON)
    said = config.get("do_lower_case", _ALBERT["do_lower_case"] if name else None)
    if lowercase is None:
        lowercase = _guessed_lowercase(pieces, file) if said is None else said
    keep_accents = said is None and not lowercase  # unless the file says it
    return unigram.Rules(lowercase, config.get("keep_accents", keep_accents), quotes=True)


def _parse(what: str, parser: Any, content: Any) -> Any:
    try:
        return parser(content)
    except (KeyboardInterrupt, SystemExit):
        raise
    except UserError:
        raise
    # The library raises bare Exception for a file that it cannot parse; a panic in Rust is not even that.
    except BaseException as error:
        raise UserError(f"not a valid {what} ({error}); {_HINT}") from error


def _read_config(folder: Path) -> dict[str, Any]:
    values = _read_json(folder / "tokenizer_config.json")
    decoding.convert(values, _Settings, "tokenizer_config.json", _CURE, foreign=True)
    return values


def _read_json(path: Path) -> dict[str, Any]:
    return decoding.read(path, dict[str, Any], _CURE, foreign=True) if path.is_file() else {}


def _guessed_lowercase(vocabulary: Iterable[str], file: Path) -> bool:
    """Whether text is lower-cased before the vocabulary in a file cuts it, where no other file says so."""
    if google := _GOOGLE_FOLDER.fullmatch(file.resolve().parent.name):
        lowercase, reason = google["name"] != "cased", "by the folder's name"
    else:
        words = [piece for piece in vocabulary if not re.fullmatch(r"\[.*\]|<.*>", piece)]
        # Capitals of other alphabets prove nothing: no lower case is known of some, as of ℝ.
        lowercase = not re.search("[A-Z]", "".join(words))
        reason = "it has no capital letters A to Z" if lowercase else "it has capital letters"
    _LOG.info(
        f"{file} is taken for {'an uncased' if lowercase else 'a cased'} vocabulary ({reason}); "
        f"--lowercase={str(not lowercase).lower()} of convert and prepare changes that"
    )
    return lowercase
