"""How documents become sequences with masked tokens."""

import dataclasses
import math

MASKING_UNITS = ("token", "word", "span")
PAIR_TASKS = ("next_sentence", "sentence_order")


@dataclasses.dataclass(frozen=True)
class MaskingConfig:
    """Which tokens are predicted, and what stands in their place."""

    rate: float = 0.15
    mask: float = 0.8  # share of the chosen that becomes [MASK]
    random: float = 0.1  # share that becomes a random token; the rest stays as it is
    max_predictions: int = 0  # a sequence; 0: rate × length, rounded up to a multiple of 4
    unit: str = "token"  # token, word (whole-word masking), span (n-grams of whole words)
    max_span: int = 3  # words in the longest span; P(n) ∝ 1/n

    def predictions(self, length: int, packing: int = 0) -> int:
        """The number of prediction slots of a row of `length` tokens: 20 at 128, 80 at 512.

        Where `packing` sequences share it there are enough for all, of which each rounds its own number, at least to 1.
        """
        if self.max_predictions:
            return self.max_predictions * max(1, packing)
        rounding = packing * max(0.5, 1 - 3 * self.rate)  # a sequence has three tokens or more
        return 4 * math.ceil(round(self.rate * length + rounding, 6) / 4)


@dataclasses.dataclass(frozen=True)
class Sequencing:
    """How documents are cut into sequences; `Config.sequencing` puts it together."""

    pairs: str = "next_sentence"  # or "sentence_order"; "": single segments
    short_sequences: float = 0.1
    full_sentences: bool = False
    packing: int = 0  # sequences a row holds at most; 0: one, padded

    @property
    def special_tokens(self) -> int:
        """[CLS] A [SEP] B [SEP] has three, [CLS] A [SEP] two."""
        return 3 if self.pairs else 2
