"""Counts of unknown tokens and truncated inputs, and warnings about them."""

import logging
from collections.abc import Sequence

from bertjax.checkpoints.pretrained import Pretrained
from bertjax.inference.runner import model_limits
from bertjax.tasks.encoding import EncodedExample, count_texts
from bertjax.text.text_counts import TextCounts

_LOG = logging.getLogger(__name__)

ALL_CALLS = " in all calls so far"


class InputCounts:
    """Sums the counts of all inputs of a predictor, and warns once about each share above 1 %.

    Attributes:
      total: the counts of all inputs so far.
      scope: what warnings add to the counts from the second call on: `ALL_CALLS` in Python; "" in commands, where the
        calls are parts of one input.
    """

    def __init__(self, source: Pretrained, limit: str = "length") -> None:
        """`limit` is the field of `TokenLimits` that truncates inputs."""
        self.total, self.scope, self._calls = TextCounts(), "", 0
        self._tokenizer, self._warned = source.tokenizer, set[str]()
        tokens = getattr(model_limits(source), limit)
        self._remedy = f"the model's {limit} is {tokens} tokens; shorten or split the texts"
        if tokens < source.config.model.max_position_embeddings:
            self._remedy += f", or fine-tune with a larger config.{limit}"

    def add(self, rows: Sequence[EncodedExample], ignored: int = 0) -> None:
        """Adds the rows of a call, except for `ignored` [UNK] tokens that the user wrote."""
        self.total += count_texts(rows, self._tokenizer) + TextCounts(-ignored, -ignored)
        self._calls += 1
        scope = self.scope if self._calls > 1 else ""
        for share, message in self.total.warnings(self._remedy, scope).items():
            if share not in self._warned:
                self._warned.add(share)
                _LOG.warning(message)
