"""Semantic search: the texts nearest to a query."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from bertjax.checkpoints.pretrained import Pretrained
from bertjax.errors import UserError
from bertjax.inference.embedding import Embedder
from bertjax.inference.inputs import Record, make_records, read_texts
from bertjax.inference.runner import PredictOptions
from bertjax.tasks.user_io import rounded

# Names of the prompts for queries and texts; the first one that the model has is used, as in sentence-transformers.
_QUERY_PROMPTS = ("query",)
_TEXT_PROMPTS = ("document", "passage", "corpus")


class Searcher:
    """Finds the texts of `options.texts` with the largest cosine similarity to a query."""

    def __init__(self, source: Pretrained, options: PredictOptions) -> None:
        """Embeds the texts.

        Raises:
          UserError: `options.texts` is empty.
        """
        if not options.texts:
            raise UserError("there are no texts to search; give texts=[…] (--texts=FILE)")
        options = dataclasses.replace(options, normalize=True)
        text_options, query_options = (
            _with_prompt(source, options, names) for names in (_TEXT_PROMPTS, _QUERY_PROMPTS)
        )
        self._embed = Embedder(source, query_options)
        embed_texts = self._embed if text_options == query_options else Embedder(source, text_options)
        self.counts = embed_texts.counts = self._embed.counts  # counts texts and queries together
        self._texts, self._top = list(options.texts), options.top
        self._vectors = embed_texts.array(self._texts)

    def __call__(
        self, inputs: Sequence[object], where: Sequence[str] | None = None, top: int | None = None
    ) -> list[Record]:
        """Returns `found` for each query: the texts with the largest cosines (`score`) and their indices (`place`).

        `top`: texts per query; default: `options.top`.
        """
        queries, count = self._embed.array(inputs, where), top or self._top
        return make_records(read_texts(inputs, where), ({"found": self._nearest(query, count)} for query in queries))

    def _nearest(self, query: np.ndarray, count: int) -> list[Record]:
        scores = self._vectors @ query
        best = np.argsort(-scores, kind="stable")[:count]
        return [{"text": self._texts[i], "place": int(i), "score": rounded(scores[i])} for i in best]


def _with_prompt(source: Pretrained, options: PredictOptions, names: Sequence[str]) -> PredictOptions:
    """Returns the options with the first prompt of `names` that the model has, unless they name a prompt."""
    prompts = source.sentence.prompts if source.sentence else {}
    default = next((name for name in names if name in prompts), None)
    return dataclasses.replace(options, prompt=default if options.prompt is None else options.prompt)
