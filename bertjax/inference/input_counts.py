"""Counts of unknown tokens and truncated inputs, and warnings about them."""

import logging
from collections.abc import Sequence

from bertjax.checkpoints.pretrained import Pretrained
from bertjax.inference.runner import model_limits
from bertjax.tasks.encoding import EncodedExample, count_texts
from bertjax.text.text_counts import TextCounts

_LOG = logging.getLogger(__name__)


class InputCounts:
    """Sums the counts of all inputs of a predictor, and warns once about each share above 1 %.

    Attributes:
      total: the counts of all inputs so far.
    """

    def __init__(self, source: Pretrained, limit: str = "length") -> None:
        """`limit` is the field of `TokenLimits` that truncates inputs."""
        self.total = TextCounts()
        self._tokenizer, self._warned = source.tokenizer, set[str]()
        tokens = getattr(model_limits(source), limit)
        self._remedy = f"the model's {limit} is {tokens} tokens; shorten or split the texts"
        if tokens < source.config.model.max_position_embeddings:
            self._remedy += f", or fine-tune with a larger config.{limit}"

    def add(self, rows: Sequence[EncodedExample], ignored: int = 0) -> None:
        """Adds the rows of a call, except for `ignored` [UNK] tokens that the user wrote."""
        self.total += count_texts(rows, self._tokenizer) + TextCounts(-ignored, -ignored)
        for share, message in self.total.warnings(self._remedy).items():
            if share not in self._warned:
                self._warned.add(share)
                _LOG.warning(message)
