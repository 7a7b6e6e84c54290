"""The encoder with a head for a downstream task (Devlin et al. 2018, arXiv:1810.04805, section 4)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Key

from bertjax.arrays.types import Batch
from bertjax.config.model import ModelConfig
from bertjax.model.attention import SharedInputs
from bertjax.model.computation import Computation
from bertjax.model.dropout import Dropout
from bertjax.model.encoder import SITES, Embeddings, Encoder
from bertjax.model.layers import Dense, PredictionHead, head_init
from bertjax.model.ops import activation


class LayerMixture(nn.Module):
    """A learned weighted mean of layers with a learned scale (Peters et al. 2018, arXiv:1802.05365, section 3.2)."""

    @nn.compact
    def __call__(self, layers: Float[Array, "*batch layers hidden"]) -> Float32[Array, "*batch hidden"]:
        """Mixes the layers."""
        weights = self.param("weights", nn.initializers.zeros, layers.shape[-2:-1])
        scale = self.param("scale", nn.initializers.ones, ())
        shares = jax.nn.softmax(weights)
        return scale * jnp.einsum("l,...lh->...h", shares, layers.astype(jnp.float32), precision="highest")


class FinetuningModel(nn.Module):
    """Encoder and `task_head`.

    `outputs` is the size of the head. The head reads [CLS] if `pooled`, through the pooler where there is one, else
    every token; `dropout_before_head` enables dropout on its input.

    With `features` the encoder is frozen, without dropout, and the head reads from each token the last layer ("last"),
    the concatenation of the last four ("concat_last_4"), or a `LayerMixture` of the embeddings and all layers
    ("weighted_sum"): Devlin et al. 2018, section 5.3.
    """

    config: ModelConfig
    outputs: int
    pooled: bool
    dropout_before_head: bool = True
    computation: Computation = Computation()
    features: str = ""

    def setup(self) -> None:
        """Creates encoder and head."""
        config, dtype = self.config, self.computation.dtype
        self.embeddings = Embeddings(config, dtype)
        self.encoder = Encoder(config, self.computation)
        if self.features == "weighted_sum":
            self.layer_mixture = LayerMixture()
        if config.prediction_head:
            self.prediction_head = PredictionHead(config, dtype)
        elif self.pooled:
            self.pooler = Dense(config.hidden_size, config, dtype, name="pooler")
        self.task_head = Dense(self.outputs, config, jnp.float32, head_init, output=True, name="task_head")

    def __call__(
        self, batch: Batch, dropout_keys: Key[Array, " batch"] | None = None
    ) -> dict[str, Float32[Array, "batch *positions outputs"]]:
        """Scores a batch of `input_ids`, `token_type_ids`, `attention_mask` [batch, length], or of its `features`.

        Rows with `position_ids` [batch, length] hold several packed sequences: positions restart with each, the mask
        numbers them from 1, and `cls_positions` [batch, slots] holds their first positions.
        `features` are the output of `encode`; a model that is initialized with them is the head alone.
        `dropout_keys` are typed threefry keys, one per row; None disables dropout.

        Returns:
          `logits`: [batch, outputs] if pooled, [batch, slots, outputs] if pooled and packed, else [batch, length,
          outputs].
        """
        if "features" in batch:
            features = batch["features"]
        else:
            features = self.encode(batch, None if self.features else dropout_keys)
        return {"logits": self._head(features, dropout_keys)}

    def encode(
        self, batch: Batch, dropout_keys: Key[Array, " batch"] | None = None
    ) -> Float[Array, "batch *positions layers hidden"]:
        """Returns the head's input: for all positions, if pooled for [CLS], if pooled and packed for each [CLS]."""
        shared = SharedInputs.from_batch(batch, dropout_keys)
        packed = shared.position_ids is not None
        x = self.embeddings(batch["input_ids"], batch["token_type_ids"], shared)
        cls = None
        if self.pooled:
            cls = batch["cls_positions"] if packed else jnp.zeros((x.shape[0], 1), jnp.int32)
        if self.features in ("", "last"):
            hidden = self.encoder(x, shared, cls)[:, :, None]
        else:

            def read(output: Array) -> Array:
                return output if cls is None else jnp.take_along_axis(output, cls[..., None], axis=1)

            layers = self.encoder(x, shared, collect=read)
            weighted = self.features == "weighted_sum"
            layers = jnp.concatenate([read(x)[None], layers]) if weighted else layers[-4:]
            hidden = jnp.moveaxis(layers, 0, 2)
        return hidden if cls is None or packed else hidden[:, 0]

    def _head(
        self, features: Float[Array, "batch *positions layers hidden"], dropout_keys: Key[Array, " batch"] | None
    ) -> Float32[Array, "batch *positions outputs"]:
        site = SITES * (self.config.num_hidden_layers + 1)
        drop = Dropout(self.config.hidden_dropout_prob, dropout_keys, site)
        if self.features == "weighted_sum":
            hidden = self.layer_mixture(features)
        else:
            hidden = features.reshape(*features.shape[:-2], -1)
        if self.features:  # a frozen encoder has not dropped them
            hidden = drop(hidden)
        if self.config.prediction_head:
            hidden = self.prediction_head(hidden)
        elif self.pooled:
            hidden = activation(self.config.pooler_act)(self.pooler(hidden))
        # The order of the official implementations: ModernBERT's always drops here, BERT's by task.
        if not self.features and (self.config.prediction_head or self.dropout_before_head):
            hidden = drop(hidden)
        return self.task_head(hidden)
