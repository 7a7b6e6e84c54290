"""Finds the texts that are nearest to a query."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from bertjax.checkpoints.pretrained import Pretrained
from bertjax.errors import UserError
from bertjax.inference.embedding import Embedder
from bertjax.inference.inputs import answers, read_texts
from bertjax.inference.runner import Options
from bertjax.tasks.user_io import rounded


class Searcher:
    """The nearest of `options.texts` for each query, by the cosine of their vectors."""

    def __init__(self, source: Pretrained, options: Options) -> None:
        """Embeds the texts.

        Raises:
          UserError: there are none.
        """
        if not options.texts:
            raise UserError("there is nothing to search in; give --texts=FILE, or texts=[…]")
        self._embed = Embedder(source, dataclasses.replace(options, normalize=True))
        self.counts = self._embed.counts  # of the texts and the queries
        self._texts, self._top = list(options.texts), options.top
        self._vectors = self._embed.array(self._texts)

    def __call__(self, inputs: Sequence[Any], where: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """For each query `found`: the nearest texts, each with its place from 0 and its cosine, the nearest first."""
        queries = self._embed.array(inputs, where)
        return answers(read_texts(inputs, where), ({"found": self._nearest(query)} for query in queries))

    def _nearest(self, query: np.ndarray) -> list[dict[str, Any]]:
        scores = self._vectors @ query
        best = np.argsort(-scores, kind="stable")[: self._top]
        return [{"text": self._texts[i], "place": int(i), "score": rounded(scores[i])} for i in best]
