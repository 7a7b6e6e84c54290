"""How documents become sequences with masked tokens."""

import dataclasses
import math

from bertjax.config.fields import AT_LEAST_ONE, FRACTION, NON_NEGATIVE, Range, setting
from bertjax.config.validation import require

MASKING_UNITS = ("token", "word", "span")
PAIR_TASKS = ("next_sentence", "sentence_order")


@dataclasses.dataclass(frozen=True)
class MaskingConfig:
    """Which tokens are predicted, and what stands in their place."""

    rate: float = setting(0.15, "Fraction of tokens to predict.", Range(above=0, at_most=1))
    mask_prob: float = setting(0.8, "Fraction of the chosen tokens that become [MASK].", FRACTION)
    random_prob: float = setting(0.1, "Fraction that become a random token; the rest stay unchanged.", FRACTION)
    max_predictions: int = setting(
        0, "Predictions per sequence; 0: rate × length, up to a multiple of 4.", NON_NEGATIVE
    )
    unit: str = setting("token", "Masked together: a token, the tokens of a word, or a span of words.", MASKING_UNITS)
    max_span: int = setting(3, "Words in the longest span; P(n) ∝ 1/n for n words.", AT_LEAST_ONE)

    def check(self) -> None:
        """Raises UserError for settings that contradict one another."""
        both = self.mask_prob + self.random_prob
        require(both <= 1 + 1e-9, "masking.mask_prob + masking.random_prob", both, "at most 1")

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
    short_seq_prob: float = 0.1
    full_sentences: bool = False
    packing: int = 0  # sequences a row holds at most; 0: one, padded

    @property
    def special_tokens(self) -> int:
        """[CLS] A [SEP] B [SEP] has three, [CLS] A [SEP] two."""
        return 3 if self.pairs else 2
