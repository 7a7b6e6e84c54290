"""The shape of the encoder."""

import dataclasses
import math
from typing import Literal

from bertjax.config.fields import AT_LEAST_ONE, DROPOUT, NON_NEGATIVE, POSITIVE, Range, setting
from bertjax.config.validation import require

POOLINGS = ("mean", "cls", "max")  # of a text's states to its vector
DENSE_ACTIVATIONS = ("identity", "tanh", "relu", "gelu")
ACTIVATIONS = ("gelu", "gelu_new", "relu")
MODEL_TYPES = ("bert", "roberta", "albert", "distilbert", "modernbert")
_OWN_DROPOUT = dataclasses.replace(DROPOUT, special=-1)
_VOCABULARY_MULTIPLE = 64  # so any power of two of devices up to this can share it


@dataclasses.dataclass(frozen=True)
class DenseLayer:
    """A layer between a text's pooled states and its vector."""

    features: int
    activation: Literal[DENSE_ACTIVATIONS]


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The encoder's shape, in Hugging Face's names for it."""

    model_type: str = setting("bert", "Architecture used on export; does not affect computation.", MODEL_TYPES)
    vocab_size: int = setting(30522, "Entries of the vocabulary; 0: those of the tokenizer.", NON_NEGATIVE)
    hidden_size: int = setting(768, "Width of the hidden states.", AT_LEAST_ONE)
    embedding_size: int = setting(0, "Width of embeddings before projection (ALBERT); 0: hidden_size.", NON_NEGATIVE)
    num_hidden_layers: int = setting(12, "Transformer layers.", AT_LEAST_ONE)
    num_hidden_groups: int = setting(
        0, "Groups of layers that share parameters (ALBERT); 0: none shared.", NON_NEGATIVE
    )
    num_attention_heads: int = setting(12, "Attention heads per layer.", AT_LEAST_ONE)
    intermediate_size: int = setting(3072, "Width of the MLP.", AT_LEAST_ONE)
    max_position_embeddings: int = setting(512, "Longest sequence, in tokens.", AT_LEAST_ONE)
    type_vocab_size: int = setting(2, "Segment types; 0: no segment embeddings (DistilBERT).", NON_NEGATIVE)
    hidden_act: str = setting("gelu", "Activation; gelu is exact (erf), gelu_new the tanh approximation.", ACTIVATIONS)
    pooler_act: str = setting("tanh", "Activation of the pooler; DistilBERT has relu.", ("tanh", "relu"))
    hidden_dropout_prob: float = setting(0.1, "Dropout of embeddings and of layer outputs.", DROPOUT)
    attention_probs_dropout_prob: float = setting(0.1, "Dropout of attention probabilities.", DROPOUT)
    attention_output_dropout_prob: float = setting(
        -1.0, "Dropout after attention's output projection (ModernBERT); -1: hidden_dropout_prob.", _OWN_DROPOUT
    )
    layer_norm_eps: float = setting(1e-12, "Added to the variance in LayerNorm.", POSITIVE)
    initializer_range: float = setting(0.02, "Standard deviation of initial weights.", POSITIVE)
    # ModernBERT's settings (Warner et al. 2024, arXiv:2412.13663); each works without the others.
    pre_norm: bool = setting(
        False, "LayerNorm before attention (not in the first layer) and MLP, and after all layers."
    )
    use_bias: bool = setting(True, "Biases in dense layers and LayerNorms; output heads always have one.")
    gated_mlp: bool = setting(False, "hidden_act(x·intermediate) * (x·gate) instead of hidden_act(x·intermediate).")
    global_rope_theta: float = setting(
        0.0, "Base of rotary positions in global layers; 0: learned positions.", NON_NEGATIVE
    )
    local_rope_theta: float = setting(0.0, "Base of rotary positions in local layers.", NON_NEGATIVE)
    local_attention: int = setting(
        0, "Window of local attention, half of it to each side; 0: all layers are global.", Range(at_least=2, special=0)
    )
    global_attn_every_n_layers: int = setting(1, "With local attention, layers 0, n, 2n, … are global.", AT_LEAST_ONE)
    prediction_head: bool = setting(
        False, "Tasks read dense, hidden_act and LayerNorm per row instead of BERT's pooler."
    )

    def check(self) -> None:
        """Raises UserError for settings that contradict one another."""

        def check(ok: bool, name: str, rule: str) -> None:
            require(ok, f"model.{name}", getattr(self, name), rule)

        groups, layers, heads = self.num_hidden_groups, self.num_hidden_layers, self.num_attention_heads
        rule = f"0, or divide model.num_hidden_layers ({layers})"
        check(groups == 0 or layers % groups == 0, "num_hidden_groups", rule)
        rule = f"a multiple of model.num_attention_heads ({heads})"
        check(self.hidden_size % heads == 0, "hidden_size", rule)
        window, every, rotary = self.local_attention, self.global_attn_every_n_layers, self.global_rope_theta
        rule = "at least 2 where model.local_attention is set, else 1"
        check(every >= 2 if window else every == 1, "global_attn_every_n_layers", rule)
        rule = f"set where model.global_rope_theta ({rotary}) and model.local_attention ({window}) are, else 0"
        needed = rotary > 0 and window > 0
        check(self.local_rope_theta > 0 if needed else self.local_rope_theta == 0, "local_rope_theta", rule)
        even = not rotary or self.head_size % 2 == 0
        require(even, "model.hidden_size / num_attention_heads", self.head_size, "even for rotary")
        alike = not (window or self.pre_norm)
        check(alike or not groups, "num_hidden_groups", "0 where layers are not alike (windows, pre_norm)")
        fits = not self.prediction_head or self.pooler_act == "tanh"
        check(fits, "pooler_act", "left alone with model.prediction_head, which has hidden_act")

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the word embeddings: `vocab_size` rounded up, so that a mesh can share them; the rest stay zero."""
        return _VOCABULARY_MULTIPLE * math.ceil(self.vocab_size / _VOCABULARY_MULTIPLE)

    @property
    def embedding_width(self) -> int:
        """The width of the tables of embeddings."""
        return self.embedding_size or self.hidden_size

    @property
    def head_size(self) -> int:
        """The width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def attention_window(self) -> int:
        """How far a token sees to each side in layers of local attention; 0 where there are none."""
        return self.local_attention // 2

    def is_local(self, layer: int) -> bool:
        """Whether the layer of this number, from 0, has local attention."""
        return layer % self.global_attn_every_n_layers != 0
