"""The encoder with the heads of pre-training: masked words, and optionally a task of sentence pairs."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32, Int, Key

from bertjax.arrays.types import Batch, Params
from bertjax.config.data import PAIR_TASKS
from bertjax.config.model import ModelConfig
from bertjax.model.attention import SharedInputs
from bertjax.model.computation import Computation
from bertjax.model.encoder import Embeddings, Encoder
from bertjax.model.layers import Dense, head_transform
from bertjax.model.ops import activation, add_bias, matmul_precision
from bertjax.parallel.sharding import constrain


def pairs_of(params: Params) -> str:
    """Returns the task of sentence pairs for which a tree of parameters has a head; "" for none."""
    return next((task for task in PAIR_TASKS if f"{task}_head" in params), "")


class MaskedLMHead(nn.Module):
    """Dense, activation, LayerNorm, and scores by the word embeddings (tied), with one bias per word."""

    config: ModelConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch predictions hidden"], word_embeddings: Float[Array, "vocab embedding"]
    ) -> Float32[Array, "batch predictions vocab"]:
        """Scores words; `vocab` is padded, and the padding has no probability."""
        config = self.config
        vocab = config.padded_vocab_size
        x = head_transform(x, config.embedding_width, config, self.dtype)
        # Flat, as XLA multiplies two matrices faster than a batch of them.
        logits = jnp.dot(
            x.reshape(-1, x.shape[-1]),
            word_embeddings.astype(self.dtype).T,
            precision=matmul_precision(self.dtype),
            preferred_element_type=jnp.float32,
        )
        logits = logits.reshape(*x.shape[:-1], vocab)
        logits = add_bias(logits, self.param("bias", nn.initializers.zeros, (vocab,)))
        if vocab != config.vocab_size:
            logits = jnp.where(jnp.arange(vocab) < config.vocab_size, logits, jnp.finfo(jnp.float32).min)
        return constrain(logits, "batch", None, "vocab")


class PretrainingModel(nn.Module):
    """BERT and its family for pre-training (Devlin et al. 2018, arXiv:1810.04805).

    `pairs` is "next_sentence", "sentence_order", or "" for no pooler and no head behind it. With `states` the model
    returns the last layer's output as well.
    """

    config: ModelConfig
    pairs: str = "next_sentence"
    computation: Computation = Computation()
    states: bool = False

    def setup(self) -> None:
        """Creates encoder and heads."""
        config, dtype = self.config, self.computation.dtype
        self.embeddings = Embeddings(config, dtype)
        self.encoder = Encoder(config, self.computation)
        self.masked_lm_head = MaskedLMHead(config, dtype)
        if self.pairs:
            self.pooler = Dense(config.hidden_size, config, dtype, name="pooler")
            self.pairs_head = Dense(2, config, jnp.float32, output=True, name=f"{self.pairs}_head")

    def __call__(
        self, batch: Batch, dropout_keys: Key[Array, " batch"] | None = None
    ) -> dict[str, Float[Array, "batch ..."]]:
        """Encodes a batch and scores its masked positions only.

        Args:
          batch: `input_ids`, `token_type_ids`, `attention_mask` [batch, length] and `masked_lm_positions` [batch,
            predictions]; bertjax/data/batch.py documents packed rows.
          dropout_keys: typed threefry keys, one per row; None disables dropout.

        Returns:
          `masked_lm_logits` f32 [batch, predictions, vocab] and, with pairs, `next_sentence_logits` or
          `sentence_order_logits` f32 [batch, 2], packed [batch, packing, 2] (0: B follows A). `vocab` is the padded
          one. With `states` also `states` [batch, length, hidden], the complete output of the last layer.
        """
        head_positions = batch["masked_lm_positions"]
        cls = batch.get("cls_positions", jnp.zeros_like(head_positions[:, :1]))
        if self.pairs:  # the pooler reads [CLS]
            head_positions = jnp.concatenate([cls, head_positions], axis=1)
        states = self.encode(batch, dropout_keys, None if self.states else head_positions)
        hidden = jnp.take_along_axis(states, head_positions[..., None], axis=1) if self.states else states
        masked = hidden[:, cls.shape[1] :] if self.pairs else hidden
        logits = self.masked_lm_head(masked, self.embeddings.word_embeddings.embedding)
        outputs = {"masked_lm_logits": logits} | ({"states": states} if self.states else {})
        if self.pairs:
            pooled = activation(self.config.pooler_act)(self.pooler(hidden[:, : cls.shape[1]]))
            logits = self.pairs_head(pooled)
            outputs[f"{self.pairs}_logits"] = logits if "cls_positions" in batch else logits[:, 0]
        return outputs

    def encode(
        self,
        batch: Batch,
        dropout_keys: Key[Array, " batch"] | None = None,
        query_indices: Int[Array, "batch queries"] | None = None,
    ) -> Float[Array, "batch queries hidden"]:
        """Returns the last layer's output for all positions, or for those at `query_indices`."""
        shared = SharedInputs.from_batch(batch, dropout_keys)
        x = self.embeddings(batch["input_ids"], batch["token_type_ids"], shared)
        return self.encoder(x, shared, query_indices)
