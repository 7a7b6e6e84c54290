"""SentencePiece unigram models for the library `tokenizers`, as `transformers` 5 builds ALBERT's tokenizer.

SentencePiece itself segments a whole text at once. The library segments each word ("▁" and the characters up to the
next white space) on its own, so the ids of a text are the ids of its words.
"""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import tokenizers as library

from bertjax.errors import UserError
from bertjax.text.backend import AS_JSON, bert_template

_UNIGRAM = 1  # TrainerSpec.model_type
_UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(2, 7)  # SentencePiece.type
_UNK_ID = 1  # which transformers takes whatever the model says
_SPACE = "▁"
_GRID = 2**13  # see `_rounded`
_DAMAGED = "not a valid SentencePiece model; get it again"


@dataclasses.dataclass(frozen=True)
class UnigramModel:
    """The content of a SentencePiece unigram model.

    Attributes:
      pieces: (piece, log probability) of each id.
      special: the pieces that stand for no text.
      charsmap: the table of the normaliser; empty where there is none.
    """

    pieces: Sequence[tuple[str, float]]
    special: Sequence[str]
    charsmap: bytes


@dataclasses.dataclass(frozen=True)
class Rules:
    """Changes that ALBERT makes to a text before the model's own normaliser.

    Attributes:
      lowercase: whether letters are lower-cased.
      keep_accents: whether accents are kept.
      quotes: whether `` and '' become ".
    """

    lowercase: bool = False
    keep_accents: bool = True
    quotes: bool = False


def parse(data: bytes) -> UnigramModel:
    """The content of a SentencePiece `.model`.

    Raises:
      UserError: it is damaged, or of a kind that `transformers` would read in another way.
    """
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    try:
        model = sentencepiece_model_pb2.ModelProto.FromString(data)
    except DecodeError as error:
        raise UserError(_DAMAGED) from error
    pieces = [(piece.piece, piece.score) for piece in model.pieces]
    names = [name for name, _ in pieces]
    # A piece that is not UTF-8 comes as bytes.
    if not all(isinstance(name, str) and name for name in names) or len(set(names)) != len(names):
        raise UserError(_DAMAGED)
    if not all(math.isfinite(score) for _, score in pieces):
        raise UserError(_DAMAGED)
    kinds = [piece.type for piece in model.pieces]
    if problem := _unlike_albert(model, kinds, names):
        raise UserError(f"this SentencePiece model {problem}; {AS_JSON}")
    special = [name for name, kind in zip(names, kinds, strict=True) if kind in (_UNKNOWN, _CONTROL, _UNUSED)]
    rounded = [(name, _rounded(score)) for name, score in pieces]
    return UnigramModel(rounded, special, model.normalizer_spec.precompiled_charsmap)


def _unlike_albert(model: Any, kinds: Sequence[int], names: Sequence[str]) -> str:
    """What a model has that ALBERT's tokenizer in `transformers` does not expect; "" if nothing."""
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    if trainer.model_type != _UNIGRAM:
        return "is not a unigram model"
    if trainer.byte_fallback or _BYTE in kinds:
        return "has bytes for unknown characters"
    if _USER_DEFINED in kinds:
        return f"has user-defined symbols such as {names[kinds.index(_USER_DEFINED)]!r}"
    if not normalizer.add_dummy_prefix or trainer.treat_whitespace_as_suffix:
        return "does not put a space before the first word"
    if not (normalizer.escape_whitespaces and normalizer.remove_extra_whitespaces):
        return "keeps runs of spaces"
    if [number for number, kind in enumerate(kinds) if kind == _UNKNOWN] != [_UNK_ID]:
        return f"has its unknown token at another id than {_UNK_ID}"
    if any(kind in (_CONTROL, _UNUSED) and len(name) == 1 for name, kind in zip(names, kinds, strict=True)):
        return "has a special token of one character"
    if missing := {"[CLS]", "[SEP]"} - set(names):
        return f"has no {min(missing)}"
    return ""


def _rounded(score: float) -> float:
    """`score` on a grid of 2**-13, where sums are exact and JSON keeps every digit.

    Equally likely segmentations then stay equal in any order of addition, and after saving: the library is exact for up
    to 15 digits of its own files.
    """
    return round(score * _GRID) / _GRID


def tokenizer(model: UnigramModel, rules: Rules = Rules()) -> library.Tokenizer:
    """The library's tokenizer of a model; [CLS] and [SEP] stand where BERT has them."""
    normalizers, steps = library.normalizers, []
    if rules.quotes:
        steps += [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    if not rules.keep_accents:
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    if rules.lowercase:
        steps.append(normalizers.Lowercase())
    if model.charsmap:
        steps.append(normalizers.Precompiled(model.charsmap))
    made = library.Tokenizer(library.models.Unigram(list(model.pieces), _UNK_ID, byte_fallback=False))
    made.normalizer = normalizers.Sequence(steps)
    made.pre_tokenizer = library.pre_tokenizers.Sequence(
        [
            library.pre_tokenizers.WhitespaceSplit(),
            library.pre_tokenizers.Metaspace(_SPACE, prepend_scheme="always"),
            # The names of special tokens are pieces of the model, too: a text with one gets the ids of its characters.
            library.pre_tokenizers.Split(library.Regex(_beginnings(model.special)), "isolated"),
        ]
    )
    made.decoder = library.decoders.Metaspace(_SPACE, prepend_scheme="always")
    made.add_special_tokens(list(model.special))
    made.post_processor = bert_template({piece: index for index, (piece, _) in enumerate(model.pieces)})
    return made


def _beginnings(names: Sequence[str]) -> str:
    """A pattern that matches the first character of each of these names, where the rest follows."""
    return "|".join(f"{re.escape(name[0])}(?={re.escape(name[1:])})" for name in names)
