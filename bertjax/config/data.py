"""Masking, and the cutting of documents into sequences."""

import dataclasses
import math

from bertjax.config.fields import AT_LEAST_ONE, FRACTION, NON_NEGATIVE, Range, setting
from bertjax.config.validation import require

PAIR_TASKS = ("next_sentence", "sentence_order")


@dataclasses.dataclass(frozen=True)
class MaskingConfig:
    """Selection and replacement of the tokens to predict."""

    rate: float = setting(0.15, "Fraction of tokens to predict.", Range(above=0, at_most=1))
    mask_prob: float = setting(0.8, "Fraction of the selected tokens replaced by [MASK].", FRACTION)
    random_prob: float = setting(
        0.1, "Fraction of the selected tokens replaced by a random token; the rest stay unchanged.", FRACTION
    )
    max_predictions: int = setting(
        0, "Maximum predictions per sequence; 0: rate × length, rounded up to a multiple of 4.", NON_NEGATIVE
    )
    unit: str = setting(
        "token", "Unit of masking: token (single tokens), word (whole words), span (of words), or your own."
    )
    max_span: int = setting(
        3, "Maximum words per span (unit span only); a span of n words has probability ∝ 1/n.", AT_LEAST_ONE
    )

    def check(self) -> None:
        """Raises UserError if settings contradict one another."""
        total = self.mask_prob + self.random_prob
        require(total <= 1 + 1e-9, "masking.mask_prob + masking.random_prob", total, "at most 1")

    def predictions(self, length: int, packing: int = 0) -> int:
        """Returns the number of prediction slots in a row of `length` tokens: 20 at 128, 80 at 512.

        In a row of `packing` sequences there are enough slots for all: each sequence rounds its own number of
        predictions, to at least 1.
        """
        if self.max_predictions:
            return self.max_predictions * max(1, packing)
        rounding = packing * max(0.5, 1 - 3 * self.rate)  # a sequence has three tokens or more
        return 4 * math.ceil(round(self.rate * length + rounding, 6) / 4)


@dataclasses.dataclass(frozen=True)
class Sequencing:
    """How documents are cut into sequences; built by `Config.sequencing`."""

    pairs: str = "next_sentence"  # or "sentence_order"; "": single segments
    short_seq_prob: float = 0.1
    full_sentences: bool = False
    packing: int = 0  # maximum sequences per row; 0: one, padded

    @property
    def special_tokens(self) -> int:
        """Number of special tokens: three in [CLS] A [SEP] B [SEP], two in [CLS] A [SEP]."""
        return 3 if self.pairs else 2
