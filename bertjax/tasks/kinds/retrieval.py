"""Retrieval: finds the partner of a text among the texts of all examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import jax
import numpy as np

from bertjax.arrays.types import Batch
from bertjax.config.finetuning import TableConfig
from bertjax.errors import UserError
from bertjax.objectives.sentence import retrieval_losses
from bertjax.tasks import scores, table_records
from bertjax.tasks.encoding import EncodedExample
from bertjax.tasks.examples import ChoiceExample
from bertjax.tasks.kinds.base import Prediction
from bertjax.tasks.kinds.bi_encoder import BiEncoder
from bertjax.tasks.metadata import TokenLimits

_QUERIES = 1024  # compared with all texts at once


@dataclass(frozen=True)
class Retrieval(BiEncoder[ChoiceExample]):
    """Predicts the rank, from 1, of the right text among all texts of the split, an int; there are no labels."""

    name = "retrieval"
    has_labels = False
    has_table_task = True
    table_label_type = str

    def losses(self, outputs: Batch, batch: Batch) -> jax.Array:
        """Returns the cross-entropy of the partner by cosine × `scale` (Henderson et al. 2017, arXiv:1705.00652)."""
        return retrieval_losses(outputs["vectors"], batch["weights"], self.sentence.scale)

    def row_scores(self, outputs: Batch) -> jax.Array:
        """Returns the vector of each text."""
        vectors = outputs["vectors"]
        return vectors.reshape(-1, vectors.shape[-1])

    def predictions(
        self,
        examples: Sequence[ChoiceExample],
        sequences: Sequence[EncodedExample],
        scores: Sequence[np.ndarray],
        limits: TokenLimits,
    ) -> list[Prediction[int]]:
        """Ranks the texts of all examples; `scores` are their vectors."""
        vectors = np.asarray(scores, np.float32)
        return ranked(vectors.reshape(len(examples), self.texts, -1), examples)

    def describe(
        self, example: ChoiceExample, prediction: Prediction[int], labels: tuple[str, ...], threshold: float
    ) -> dict[str, object]:
        """Returns the rank."""
        return {"id": example.id, "rank": prediction.value}

    def table_columns(self, table: TableConfig) -> TableConfig:
        """Reads hard negatives as the label."""
        if not table.second:
            raise UserError("table/retrieval: no column of the text to find; set table.second")
        return replace(table, label=table.negative)

    def texts_per_example(self, table: TableConfig) -> int:
        """Returns 3 with hard negatives, else 2."""
        return 3 if table.negative else 2

    def table_example(
        self, identity: str, record: table_records.TableRecord, numbers: Mapping[str, int]
    ) -> ChoiceExample:
        """Returns the text with its partner and, if there is one, its hard negative."""
        choices = [table_records.required_text(record.text_pair, "the second text", record.where)]
        if record.label is not None:
            choices.append(table_records.required_text(record.label, "the negative text", record.where))
        text = table_records.required_text(record.text, "the text", record.where)
        return ChoiceExample(identity, record.where, text, tuple(choices), 0)

    def default_score(self, labels: Sequence[str]) -> tuple[scores.Score, str]:
        """Mean reciprocal rank and recalls; selects by the mean reciprocal rank."""
        return scores.ranks, "mrr"


def ranked(vectors: np.ndarray, examples: Sequence[ChoiceExample]) -> list[Prediction[int]]:
    """Returns, for each text, the rank of its first choice among the choices of all examples, by cosine.

    Ranks start at 1. Copies of the right text do not count. Other texts with the same cosine rank before it: a model
    with equal vectors for all texts finds nothing.

    Args:
      vectors: [examples, 1 + choices, hidden].
      examples: the examples.
    """
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    vectors = vectors / np.maximum(lengths, 1e-12)
    others = vectors[:, 1:].reshape(-1, vectors.shape[-1])
    first: dict[str, int] = {}  # text → index of its first occurrence
    choices = (text for example in examples for text in example.choices)
    texts = np.array([first.setdefault(text, index) for index, text in enumerate(choices)])
    predictions = []
    for begin in range(0, len(vectors), _QUERIES):
        similarities = vectors[begin : begin + _QUERIES, 0] @ others.T
        right = (begin + np.arange(len(similarities))) * (vectors.shape[1] - 1)
        near = similarities >= similarities[np.arange(len(similarities)), right][:, None]
        before = (near & (texts != texts[right][:, None])).sum(axis=1)
        predictions += [Prediction(int(rank) + 1) for rank in before]
    return predictions
