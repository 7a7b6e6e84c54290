"""Converts SentencePiece unigram models for the `tokenizers` library, as `transformers` 5 does for ALBERT.

SentencePiece itself segments a whole text at once. The library segments each word ("▁" and the characters up to the
next white space) separately, so the ids of a text are the ids of its words.
"""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import tokenizers as library

from bertjax.errors import UserError
from bertjax.text.backend import SAVE_AS_JSON, bert_post_processor

_UNIGRAM = 1  # TrainerSpec.model_type
_UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(2, 7)  # SentencePiece.type
_UNK_ID = 1  # transformers always uses this id, regardless of the model
_SPACE = "▁"
_GRID = 2**13  # see `_rounded`
_DAMAGED = "not a valid SentencePiece model; download it again"


@dataclasses.dataclass(frozen=True)
class UnigramModel:
    """The content of a SentencePiece unigram model.

    Attributes:
      pieces: (piece, log probability) of each id.
      special: the special tokens.
      charsmap: the table of the normalizer; empty if there is none.
    """

    pieces: Sequence[tuple[str, float]]
    special: Sequence[str]
    charsmap: bytes


@dataclasses.dataclass(frozen=True)
class NormalizationRules:
    """Changes that ALBERT applies to a text before the model's own normalizer.

    Attributes:
      lowercase: whether letters are lower-cased.
      keep_accents: whether accents are kept.
      quotes: whether `` and '' are replaced by ".
    """

    lowercase: bool = False
    keep_accents: bool = True
    quotes: bool = False


def parse(data: bytes) -> UnigramModel:
    """Parses a SentencePiece `.model`.

    Raises:
      UserError: it is damaged, or `transformers` would interpret it differently.
    """
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    model_type = sentencepiece_model_pb2.ModelProto  # pyright: ignore[reportAttributeAccessIssue]  # built at import
    try:
        model = model_type.FromString(data)
    except DecodeError as error:
        raise UserError(_DAMAGED) from error
    pieces = [(piece.piece, piece.score) for piece in model.pieces]
    names = [name for name, _ in pieces]
    # protobuf returns a piece that is not UTF-8 as bytes.
    if not all(isinstance(name, str) and name for name in names) or len(set(names)) != len(names):
        raise UserError(_DAMAGED)
    if not all(math.isfinite(score) for _, score in pieces):
        raise UserError(_DAMAGED)
    types = [piece.type for piece in model.pieces]
    if problem := _incompatibility(model, types, names):
        raise UserError(f"this SentencePiece model {problem}; {SAVE_AS_JSON}")
    special = [name for name, type_ in zip(names, types, strict=True) if type_ in (_UNKNOWN, _CONTROL, _UNUSED)]
    rounded = [(name, _rounded(score)) for name, score in pieces]
    return UnigramModel(rounded, special, model.normalizer_spec.precompiled_charsmap)


def _incompatibility(model: Any, types: Sequence[int], names: Sequence[str]) -> str:  # noqa: ANN401
    """Returns the property of a model that ALBERT's tokenizer in `transformers` does not support; "" if none."""
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    if trainer.model_type != _UNIGRAM:
        return "is not a unigram model"
    if trainer.byte_fallback or _BYTE in types:
        return "encodes unknown characters as bytes"
    if _USER_DEFINED in types:
        return f"has user-defined symbols such as {names[types.index(_USER_DEFINED)]!r}"
    if not normalizer.add_dummy_prefix or trainer.treat_whitespace_as_suffix:
        return "does not add a space before the first word"
    if not (normalizer.escape_whitespaces and normalizer.remove_extra_whitespaces):
        return "keeps runs of spaces"
    if [index for index, type_ in enumerate(types) if type_ == _UNKNOWN] != [_UNK_ID]:
        return f"has its unknown token at an id other than {_UNK_ID}"
    if any(type_ in (_CONTROL, _UNUSED) and len(name) == 1 for name, type_ in zip(names, types, strict=True)):
        return "has a special token of one character"
    if missing := {"[CLS]", "[SEP]"} - set(names):
        return f"has no {min(missing)}"
    return ""


def _rounded(score: float) -> float:
    """Rounds a score to a multiple of 2**-13, so that sums are exact and JSON keeps every digit.

    Equally likely segmentations then remain equal in any order of addition, and after saving: the library reads up to
    15 digits of its own files exactly.
    """
    return round(score * _GRID) / _GRID


def unigram_tokenizer(model: UnigramModel, rules: NormalizationRules = NormalizationRules()) -> library.Tokenizer:
    """Returns the library's tokenizer of a model; [CLS] and [SEP] are placed as in BERT."""
    normalizers, steps = library.normalizers, []
    if rules.quotes:
        steps += [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    if not rules.keep_accents:
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    if rules.lowercase:
        steps.append(normalizers.Lowercase())
    if model.charsmap:
        steps.append(normalizers.Precompiled(model.charsmap))
    tokenizer = library.Tokenizer(library.models.Unigram(list(model.pieces), _UNK_ID, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = library.pre_tokenizers.Sequence(
        [
            library.pre_tokenizers.WhitespaceSplit(),
            library.pre_tokenizers.Metaspace(_SPACE, prepend_scheme="always"),
            # Special tokens are pieces of the model, too: their names within a text must be encoded as characters.
            library.pre_tokenizers.Split(library.Regex(_first_characters(model.special)), "isolated"),
        ]
    )
    tokenizer.decoder = library.decoders.Metaspace(_SPACE, prepend_scheme="always")
    tokenizer.add_special_tokens(list(model.special))
    tokenizer.post_processor = bert_post_processor({piece: index for index, (piece, _) in enumerate(model.pieces)})
    return tokenizer


def _first_characters(names: Sequence[str]) -> str:
    """Returns a pattern that matches the first character of a name if the rest of the name follows."""
    return "|".join(f"{re.escape(name[0])}(?={re.escape(name[1:])})" for name in names)
