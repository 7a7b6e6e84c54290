"""What the input pipeline has to know of a tokenizer."""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Vocabulary:
    """The ids with a meaning of their own, and where words begin.

    Attributes:
      size: number of ids.
      cls_id, sep_id, mask_id, pad_id: the special ids that the pipeline writes.
      ordinary_ids: int32 [size - special ones], the ids that are no special tokens, from which random ones are drawn.
      word_starts: bool [size], whether a piece begins a word.
    """

    size: int
    cls_id: int
    sep_id: int
    mask_id: int
    pad_id: int
    ordinary_ids: np.ndarray
    word_starts: np.ndarray

    @classmethod
    def of(cls, tokenizer: Any) -> "Vocabulary":
        """The vocabulary of a `bertjax.text.tokenizer.Tokenizer`."""
        return cls(
            size=tokenizer.vocab_size,
            cls_id=tokenizer.cls_id,
            sep_id=tokenizer.sep_id,
            mask_id=tokenizer.mask_id,
            pad_id=tokenizer.pad_id,
            ordinary_ids=np.setdiff1d(np.arange(tokenizer.vocab_size, dtype=np.int32), tokenizer.special_ids),
            word_starts=np.asarray(tokenizer.word_starts(), dtype=bool),
        )
