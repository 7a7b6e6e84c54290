"""Kinds of tokenizers that `prepare` trains, and files of SentencePiece."""

import io
from collections.abc import Iterable
from typing import Any

KINDS = ("wordpiece", "wordpiece-cased", "unigram", "bpe")


def sentencepiece_model(texts: Iterable[str], size: int, **changes: Any) -> bytes:
    """Trains a SentencePiece `.model` with ALBERT's special tokens."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        **{
            "vocab_size": size,
            "hard_vocab_limit": False,
            "pad_id": 0,
            "unk_id": 1,
            "bos_id": -1,
            "eos_id": -1,
            "control_symbols": ["[CLS]", "[SEP]", "[MASK]"],
            "minloglevel": 2,
        }
        | changes,
    )
    return model.getvalue()
