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

# The prompts of models that have some for searching; the first that is there counts, as in sentence-transformers.
_OF_QUERIES = ("query",)
_OF_TEXTS = ("document", "passage", "corpus")


class Searcher:
    """The nearest of `options.texts` for each query, by the cosine of their vectors."""

    def __init__(self, source: Pretrained, options: Options) -> None:
        """Embeds the texts.

        Raises:
          UserError: there are none.
        """
        if not options.texts:
            raise UserError("there is nothing to search in; give --texts=FILE, or texts=[…]")
        options = dataclasses.replace(options, normalize=True)
        of_texts, of_queries = (_prompted(source, options, names) for names in (_OF_TEXTS, _OF_QUERIES))
        self._embed = Embedder(source, of_queries)
        embed_texts = self._embed if of_texts == of_queries else Embedder(source, of_texts)
        self.counts = embed_texts.counts = self._embed.counts  # of the texts and the queries
        self._texts, self._top = list(options.texts), options.top
        self._vectors = embed_texts.array(self._texts)

    def __call__(self, inputs: Sequence[Any], where: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """For each query `found`: the nearest texts, each with its place from 0 and its cosine, the nearest first."""
        queries = self._embed.array(inputs, where)
        return answers(read_texts(inputs, where), ({"found": self._nearest(query)} for query in queries))

    def _nearest(self, query: np.ndarray) -> list[dict[str, Any]]:
        scores = self._vectors @ query
        best = np.argsort(-scores, kind="stable")[: self._top]
        return [{"text": self._texts[i], "place": int(i), "score": rounded(scores[i])} for i in best]


def _prompted(source: Pretrained, options: Options, names: Sequence[str]) -> Options:
    """With the first of the prompts of these names that the model has, where the options choose none."""
    prompts = source.sentence.prompts if source.sentence else {}
    found = next((name for name in names if name in prompts), None)
    return dataclasses.replace(options, prompt=found if options.prompt is None else options.prompt)
