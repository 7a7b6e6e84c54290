"""An objective with a head of its own: besides masked LM, [CLS] tells how many tokens of the row are masked.

python -m bertjax.train --config=examples/objective_with_head.py --workdir=runs/count --config.corpus=data/books
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp

import bertjax
from bertjax.config.parse import default_config
from bertjax.model.pretraining import PretrainingModel
from bertjax.objectives.terms import weighted


class CountingModel(PretrainingModel):
    """Adds a head; the names of your own modules end in `_head`. Needs `states`, and rows that are not packed."""

    def setup(self):
        """Creates the encoder, its heads and this head."""
        super().setup()
        self.count_head = nn.Dense(1)

    def __call__(self, batch, dropout_keys=None):
        """Returns the outputs of the base model, and `count` [batch]."""
        outputs = super().__call__(batch, dropout_keys)
        cls = outputs["states"][:, 0].astype(jnp.float32)
        return outputs | {"count": self.count_head(cls)[:, 0]}


@bertjax.register_objective("masked_count")
def masked_count(config, base):
    """Returns the built-in objective with this model and one more term, which counts a tenth in the loss."""
    model = CountingModel(base.model.config, base.model.pairs, base.model.computation, states=True)

    def real_rows(batch):  # the rows that fill up the last batch of an evaluation have no predictions
        return jnp.any(batch["masked_lm_weights"] > 0, axis=1)

    def terms(outputs, batch):
        error = outputs["count"] - jnp.sum(batch["masked_lm_weights"], axis=1)
        return base.terms(outputs, batch) | {"count_loss": weighted(error**2, real_rows(batch))}

    def weights(batch):
        return base.weights(batch) | {"count_loss": jnp.sum(real_rows(batch), dtype=jnp.float32)}

    scales = {**base.scales, "count_loss": 0.1}
    return dataclasses.replace(base, model=model, terms=terms, weights=weights, scales=scales)


def get_config():
    """BERT-Base with this objective."""
    config = default_config()
    config.objective = "masked_count"
    return config
