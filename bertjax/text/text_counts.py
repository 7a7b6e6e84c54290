"""Shares of unknown tokens and of truncated examples.

A tokenizer of the wrong case or of another model may turn an eighth of all tokens into [UNK] without any error.
"""

import dataclasses
import logging

_WARN_ABOVE = 0.01

_UNKNOWN_REMEDY = (
    "check that the tokenizer is the model's own and matches the language, and that its case is right "
    "(do_lower_case in tokenizer_config.json, lowercase of load_tokenizer, --lowercase of convert and prepare)"
)


@dataclasses.dataclass(frozen=True)
class TextCounts:
    """Counts of tokens and examples, summed over inputs, shards and splits."""

    tokens: int = 0  # without [CLS], [SEP], [PAD] and [MASK]
    unknown: int = 0  # [UNK] tokens
    examples: int = 0  # 0 if texts are never truncated, as in a corpus
    truncated: int = 0  # examples that lost tokens; texts read in windows lose none

    def __add__(self, other: "TextCounts") -> "TextCounts":
        return TextCounts(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))

    def describe(self) -> str:
        """Returns both shares for logging."""
        return ", ".join([self._unknown(), self._truncated()] if self.examples else [self._unknown()])

    def warnings(self, truncated_remedy: str = "", scope: str = "") -> dict[str, str]:
        """Returns a warning with a remedy for each share above 1 %, by field.

        `truncated_remedy` is for truncation; `scope` follows the counts.
        """
        lines = {}
        if self.unknown > _WARN_ABOVE * self.tokens:
            lines["unknown"] = f"{self._unknown()}{scope}: {_UNKNOWN_REMEDY}"
        if self.truncated > _WARN_ABOVE * self.examples:
            lines["truncated"] = f"{self._truncated()}{scope}: {truncated_remedy}"
        return lines

    def _unknown(self) -> str:
        return f"{_share(self.unknown, self.tokens, 'tokens')} unknown ([UNK])"

    def _truncated(self) -> str:
        return f"{_share(self.truncated, self.examples, 'examples')} truncated"


def log_counts(log: logging.Logger, name: str, counts: TextCounts, truncated_remedy: str = "") -> None:
    """Logs both shares, and a warning for each share above 1 %."""
    log.info(f"{name}: {counts.describe()}")
    for line in counts.warnings(truncated_remedy).values():
        log.warning(f"{name}: {line}")


def _share(part: int, whole: int, units: str) -> str:
    """Returns the counts and the share: a percentage of a few words alone is not meaningful."""
    return f"{part:,} of {whole:,} {units} ({part / max(whole, 1):.2%})"
