"""How much of its texts a model can read: the shares of unknown tokens and of truncated examples.

A tokenizer with the wrong case, or of another model, turns an eighth of all tokens into [UNK], and nothing else fails.
"""

import dataclasses
import logging

_WARN_ABOVE = 0.01

_UNKNOWN_REMEDY = (
    "check that the tokenizer is the model's own, made for this language, and that its case is right "
    "(do_lower_case in tokenizer_config.json, --lowercase of convert and prepare)"
)


@dataclasses.dataclass(frozen=True)
class TextCounts:
    """Tokens and examples as a model reads them; they are summed over inputs, shards and splits."""

    tokens: int = 0  # without [CLS], [SEP], [PAD] and [MASK]
    unknown: int = 0  # tokens that are [UNK]
    examples: int = 0  # 0 where no text is truncated, as in a corpus
    truncated: int = 0  # examples whose texts lost tokens; a text that is read in windows loses none

    def __add__(self, other: "TextCounts") -> "TextCounts":
        return TextCounts(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))

    def describe(self) -> str:
        """Both shares, as a command logs them."""
        return ", ".join([self._unknown(), self._truncated()] if self.examples else [self._unknown()])

    def warnings(self, truncated_remedy: str = "") -> dict[str, str]:
        """A line with a remedy for each share above 1 %, by field; `truncated_remedy` names what limits the length."""
        lines = {}
        if self.unknown > _WARN_ABOVE * self.tokens:
            lines["unknown"] = f"{self._unknown()}: {_UNKNOWN_REMEDY}"
        if self.truncated > _WARN_ABOVE * self.examples:
            lines["truncated"] = f"{self._truncated()}: {truncated_remedy}"
        return lines

    def _unknown(self) -> str:
        return f"{_share(self.unknown, self.tokens, 'tokens')} unknown ([UNK])"

    def _truncated(self) -> str:
        return f"{_share(self.truncated, self.examples, 'examples')} truncated"


def log_counts(log: logging.Logger, name: str, counts: TextCounts, truncated_remedy: str = "") -> None:
    """Logs the shares of what a command has read, and a warning for each that is above 1 %."""
    log.info(f"{name}: {counts.describe()}")
    for line in counts.warnings(truncated_remedy).values():
        log.warning(f"{name}: {line}")


def _share(part: int, whole: int, units: str) -> str:
    """Counts beside the share: of a few words a percentage alone says little."""
    return f"{part:,} of {whole:,} {units} ({part / max(whole, 1):.2%})"
