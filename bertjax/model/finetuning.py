"""The encoder with a head for a downstream task (Devlin et al. 2018, arXiv:1810.04805, section 4)."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from bertjax.config import ModelConfig
from bertjax.model.dropout import dropout
from bertjax.model.encoder import SITES, Embeddings, Encoder
from bertjax.model.layers import Dense

# The kinds of tasks whose head reads [CLS] through the pooler; the others read every token.
POOLED = ("classification", "multi_label", "regression", "choice")


class FinetuningModel(nn.Module):
    """Encoder and `task_head`; the other fields are those of `PretrainingModel`.

    `kind` is one of `bertjax.tasks.task.KINDS`; `outputs` is the number of labels, 1 for regression and choice, and 2
    for span (where the answer begins and ends).
    """

    config: ModelConfig
    kind: str
    outputs: int
    dtype: jnp.dtype = jnp.float32
    unroll: int = 1
    remat: str = "none"
    attention: str = "xla"

    def setup(self) -> None:
        """Makes encoder and head."""
        config = self.config
        self.embeddings = Embeddings(config, self.dtype)
        self.encoder = Encoder(config, self.dtype, self.unroll, self.remat, self.attention)
        if self.kind in POOLED:
            self.pooler = Dense(config.hidden_size, config, self.dtype, name="pooler")
        self.task_head = Dense(self.outputs, config, jnp.float32, name="task_head")

    def __call__(self, batch: Mapping[str, jax.Array], dropout_keys: jax.Array | None = None) -> dict[str, jax.Array]:
        """Scores a batch of `input_ids`, `token_type_ids`, `attention_mask` [rows, length].

        dropout_keys: typed threefry keys [rows], one a row; None drops nothing.
        Returns `logits`, f32: [rows, outputs], or [rows, length, outputs] for tagging and span.
        """
        x = self.embeddings(batch["input_ids"], batch["token_type_ids"], dropout_keys)
        cls = jnp.zeros((x.shape[0], 1), jnp.int32) if self.kind in POOLED else None
        hidden = self.encoder(x, batch["attention_mask"], dropout_keys, cls)
        if self.kind in POOLED:
            hidden = jnp.tanh(self.pooler(hidden[:, 0]))
        if self.kind != "span":  # as the official code has it
            site = SITES * (self.config.num_hidden_layers + 1)
            hidden = dropout(hidden, self.config.hidden_dropout_prob, dropout_keys, site)
        return {"logits": self.task_head(hidden)}
