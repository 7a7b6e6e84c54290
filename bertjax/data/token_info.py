"""The facts about a tokenizer that the input pipeline needs."""

import dataclasses

import numpy as np

from bertjax.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True, eq=False)
class Vocabulary:
    """The special ids of a tokenizer, and the ids that begin a word.

    Attributes:
      size: number of ids.
      cls_id, sep_id, mask_id, pad_id: the special ids that the pipeline writes.
      ordinary_ids: int32 [size - special ids], all ids except special tokens; random tokens are drawn from them.
      word_starts: bool [size], whether an id begins a word.
    """

    size: int
    cls_id: int
    sep_id: int
    mask_id: int
    pad_id: int
    ordinary_ids: np.ndarray
    word_starts: np.ndarray

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "Vocabulary":
        """Returns the vocabulary of a tokenizer."""
        return cls(
            size=tokenizer.vocab_size,
            cls_id=tokenizer.cls_id,
            sep_id=tokenizer.sep_id,
            mask_id=tokenizer.mask_id,
            pad_id=tokenizer.pad_id,
            ordinary_ids=np.setdiff1d(np.arange(tokenizer.vocab_size, dtype=np.int32), tokenizer.special_ids),
            word_starts=np.asarray(tokenizer.word_starts(), dtype=bool),
        )
