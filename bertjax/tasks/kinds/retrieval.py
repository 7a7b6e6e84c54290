"""The partner of a text is found among the texts of all examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from bertjax.config.finetuning import Table
from bertjax.errors import UserError
from bertjax.objectives.sentence import retrieval_losses
from bertjax.tasks import scores, table_records
from bertjax.tasks.encoding import EncodedExample
from bertjax.tasks.examples import ChoiceExample
from bertjax.tasks.kinds.base import Arrays, Prediction
from bertjax.tasks.kinds.bi_encoder import BiEncoder
from bertjax.tasks.metadata import TokenLimits

_QUERIES = 1024  # that are compared with all others at once


@dataclass(frozen=True)
class Retrieval(BiEncoder):
    """Predicts the rank, from 1, of the right text among all those of the split; there are no labels."""

    name = "retrieval"
    has_labels = False
    own_table = True
    table_label_type = str

    def other_texts(self, example: ChoiceExample) -> Sequence[str]:
        """The text to be found, and those that are not."""
        return example.choices

    def losses(self, outputs: Arrays, batch: Arrays) -> jax.Array:
        """The cross-entropy of the partner, by cosines times `scale` (Henderson et al. 2017, arXiv:1705.00652)."""
        return retrieval_losses(outputs["vectors"], batch["weights"], self.sentence.scale)

    def row_scores(self, outputs: Arrays) -> jax.Array:
        """The vector of each text."""
        vectors = outputs["vectors"]
        return vectors.reshape(-1, vectors.shape[-1])

    def predictions(
        self, examples: Sequence[Any], rows: Sequence[EncodedExample], scores: Sequence[np.ndarray], limits: TokenLimits
    ) -> list[Prediction]:
        """By the vectors of all examples."""
        vectors = np.asarray(scores, np.float32)
        return ranked(vectors.reshape(len(examples), self.texts, -1), examples)

    def describe(
        self, example: ChoiceExample, prediction: Prediction, labels: tuple[str, ...], threshold: float
    ) -> dict:
        """The rank."""
        return {"id": example.id, "rank": prediction.value}

    def table_columns(self, table: Table) -> Table:
        """The third column holds texts that are not to be found."""
        if not table.second:
            raise UserError("table/retrieval finds the text of a second column; give table.second")
        return replace(table, label=table.negative)

    def table_texts(self, table: Table) -> int:
        """A text, its partner, and perhaps one that is not to be found."""
        return 3 if table.negative else 2

    def table_example(self, identity: str, record: table_records.Record, numbers: Mapping[str, int]) -> ChoiceExample:
        """A text with those that are to be found and not to be found."""
        choices = [table_records.text(record.second, "the second text", record.where)]
        if record.label is not None:
            choices.append(table_records.text(record.label, "the negative text", record.where))
        text = table_records.text(record.text, "the text", record.where)
        return ChoiceExample(identity, record.where, text, tuple(choices), 0)

    def default_score(self, labels: Sequence[str]) -> tuple[scores.Score, str]:
        """The mean reciprocal rank chooses."""
        return scores.ranks, "mrr"


def ranked(vectors: np.ndarray, examples: Sequence[ChoiceExample]) -> list[Prediction]:
    """At which rank, from 1, each example's text finds the first of its choices among the choices of all examples.

    vectors: [examples, 1 + choices, hidden]. By the cosine. The same text elsewhere is as right; another one that is
    as near stands before it, so that vectors that are all alike find nothing.
    """
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    vectors = vectors / np.maximum(lengths, 1e-12)
    others = vectors[:, 1:].reshape(-1, vectors.shape[-1])
    first: dict[str, int] = {}  # where each text comes first
    choices = (text for example in examples for text in example.choices)
    texts = np.array([first.setdefault(text, place) for place, text in enumerate(choices)])
    predictions = []
    for begin in range(0, len(vectors), _QUERIES):
        similarities = vectors[begin : begin + _QUERIES, 0] @ others.T
        right = (begin + np.arange(len(similarities))) * (vectors.shape[1] - 1)
        near = similarities >= similarities[np.arange(len(similarities)), right][:, None]
        before = (near & (texts != texts[right][:, None])).sum(axis=1)
        predictions += [Prediction(int(rank) + 1) for rank in before]
    return predictions
