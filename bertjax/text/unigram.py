"""SentencePiece unigram models in the library `tokenizers`: as `transformers` 5 has them, word by word.

SentencePiece's own search runs along the whole text, and the rounding of its float32 sums, and with it the choice
between two almost equal segmentations, depends on what stands before. Here each word, "▁" and what follows up to the
next white space, is cut by itself, so that a text's ids are the ids of its words.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Sequence

import tokenizers as library

from bertjax.errors import UserError

_UNIGRAM = 1  # TrainerSpec.model_type
_UNKNOWN, _CONTROL, _UNUSED, _BYTE = 2, 3, 5, 6  # Piece.type
_SPACE = "▁"


@dataclasses.dataclass(frozen=True)
class UnigramModel:
    """What a SentencePiece unigram model says.

    Attributes:
      pieces: (piece, log probability) of each id.
      unk_id: the id of what no piece covers.
      special: the pieces that stand for no text.
      charsmap: the normaliser's table; empty where there is none.
    """

    pieces: Sequence[tuple[str, float]]
    unk_id: int
    special: Sequence[str]
    charsmap: bytes


def parse(data: bytes) -> UnigramModel:
    """The content of a SentencePiece `.model`.

    Raises:
      UserError: it is none, or one whose texts are cut otherwise.
    """
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    try:
        model = sentencepiece_model_pb2.ModelProto.FromString(data)
    except DecodeError as error:
        raise UserError("not a valid SentencePiece model; get it again") from error
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    kinds = [piece.type for piece in model.pieces]
    ours = {
        "a unigram model": trainer.model_type == _UNIGRAM,
        "without bytes for unknown characters": not trainer.byte_fallback and _BYTE not in kinds,
        "with spaces before their words": normalizer.add_dummy_prefix and not trainer.treat_whitespace_as_suffix,
        "with spaces as a character": normalizer.escape_whitespaces and normalizer.remove_extra_whitespaces,
    }
    if missing := [what for what, holds in ours.items() if not holds]:
        raise UserError(
            f"a SentencePiece model is read only where it is {missing[0]}; save it as tokenizer.json first "
            "(save_pretrained of a fast tokenizer of transformers)"
        )
    pieces = [(piece.piece, piece.score) for piece in model.pieces]
    known = dict(pieces)
    if kinds.count(_UNKNOWN) != 1 or len(known) != len(pieces) or "" in known or not _all_finite(known.values()):
        raise UserError("not a valid SentencePiece model (its pieces are damaged); get it again")
    special = [piece for (piece, _), kind in zip(pieces, kinds, strict=True) if kind in (_UNKNOWN, _CONTROL, _UNUSED)]
    return UnigramModel(pieces, kinds.index(_UNKNOWN), special, normalizer.precompiled_charsmap)


@dataclasses.dataclass(frozen=True)
class Rules:
    """What ALBERT changes in a text before the model's own normaliser does its part.

    Attributes:
      lowercase: capitals.
      keep_accents: it leaves accents as they are.
      quotes: quotation marks that are written as two characters.
    """

    lowercase: bool = False
    keep_accents: bool = True
    quotes: bool = False


def with_exact_sums(model: UnigramModel) -> UnigramModel:
    """With scores of few digits, whose sums are exact: what is as likely as something else is so in any order."""
    return dataclasses.replace(model, pieces=[(piece, round(score * 2**13) / 2**13) for piece, score in model.pieces])


def tokenizer(model: UnigramModel, rules: Rules = Rules()) -> library.Tokenizer:
    """The library's tokenizer of a model, with [CLS] and [SEP] as BERT has them."""
    normalizers, steps = library.normalizers, []
    if rules.quotes:
        steps += [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    if not rules.keep_accents:
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    if rules.lowercase:
        steps.append(normalizers.Lowercase())
    if model.charsmap:
        steps.append(normalizers.Precompiled(model.charsmap))
    # The library reads no more than 15 digits of its own files right.
    pieces = [(piece, float(f"{score:.15g}")) for piece, score in model.pieces]
    made = library.Tokenizer(library.models.Unigram(pieces, model.unk_id, byte_fallback=False))
    made.normalizer = normalizers.Sequence(steps)
    made.pre_tokenizer = library.pre_tokenizers.Sequence(
        [
            library.pre_tokenizers.WhitespaceSplit(),
            library.pre_tokenizers.Metaspace(_SPACE, prepend_scheme="always"),
            # The names of special tokens are pieces too; a text that has one is to get the ids of its characters.
            library.pre_tokenizers.Split(library.Regex(_first_of_names(model.special)), "isolated"),
        ]
    )
    made.decoder = library.decoders.Metaspace(_SPACE, prepend_scheme="always")
    made.add_special_tokens(list(model.special))
    ids = {piece: index for index, (piece, _) in enumerate(model.pieces)}
    if "[CLS]" in ids and "[SEP]" in ids:
        made.post_processor = library.processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[(token, ids[token]) for token in ("[CLS]", "[SEP]")],
        )
    return made


def _all_finite(scores: Iterable[float]) -> bool:
    return all(map(math.isfinite, scores))


def _first_of_names(names: Sequence[str]) -> str:
    """A pattern for the first character of each name."""
    return "|".join(f"{re.escape(name[0])}(?={re.escape(name[1:])})" for name in names)
