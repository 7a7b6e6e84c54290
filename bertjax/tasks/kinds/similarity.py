"""The cosine of the vectors of two texts is a number."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bertjax.tasks.kinds.base import Arrays, Prediction, Scored
from bertjax.tasks.kinds.bi_encoder import BiEncoder
from bertjax.tasks.metadata import TokenLimits


@dataclass(frozen=True)
class Similarity(BiEncoder):
    """Predicts the cosine on the scale of the labels; a batch's labels are float [units]."""

    name = "similarity"
    data_kind = "regression"
    default_metric = "spearman"
    label_dtype = np.float32

    def losses(self, outputs: Arrays, batch: Arrays) -> jax.Array:
        """The square of the cosine less the label, which goes from `lowest` (0) to `highest` (1)."""
        lowest, highest = self.sentence.lowest, self.sentence.highest
        cosines = self.class_logits(outputs["logits"], batch)[:, 0]
        return jnp.square(cosines - (batch["labels"] - lowest) / (highest - lowest))

    def decide(self, example: Any, scored: Scored, limits: TokenLimits) -> Prediction:
        """The cosine on the scale of the labels."""
        lowest, highest = self.sentence.lowest, self.sentence.highest
        return Prediction(lowest + float(self.example_scores(scored)[0]) * (highest - lowest))
