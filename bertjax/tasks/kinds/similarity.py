"""Similarity of two texts: the cosine of their vectors, on the scale of the labels."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from bertjax.arrays.types import Batch
from bertjax.tasks.examples import TextExample
from bertjax.tasks.kinds.base import Prediction, ScoredSequences
from bertjax.tasks.kinds.bi_encoder import BiEncoder
from bertjax.tasks.metadata import TokenLimits


@dataclass(frozen=True)
class Similarity(BiEncoder[TextExample]):
    """Predicts the cosine on the scale of the labels, a float; `labels` are float [units]."""

    name = "similarity"
    data_kind = "regression"
    default_metric = "spearman"
    label_dtype = np.float32

    def losses(self, outputs: Batch, batch: Batch) -> jax.Array:
        """Returns the squared error of the cosine; labels are mapped from [lowest, highest] to [0, 1]."""
        lowest, highest = self.sentence.lowest, self.sentence.highest
        cosines = self.class_logits(outputs["logits"], batch)[:, 0]
        return jnp.square(cosines - (batch["labels"] - lowest) / (highest - lowest))

    def decide(self, example: TextExample, scored: ScoredSequences, limits: TokenLimits) -> Prediction[float]:
        """Predicts the cosine on the scale of the labels."""
        lowest, highest = self.sentence.lowest, self.sentence.highest
        return Prediction(lowest + float(self.example_scores(scored)[0]) * (highest - lowest))
