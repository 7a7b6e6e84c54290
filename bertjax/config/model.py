"""The architecture of the encoder."""

import dataclasses
import math
from typing import Literal

from bertjax.config.fields import AT_LEAST_ONE, DROPOUT, NON_NEGATIVE, POSITIVE, Range, setting
from bertjax.config.validation import require

POOLINGS = ("mean", "cls", "max")  # from the hidden states of a text to its vector
ACTIVATIONS = ("gelu", "gelu_new", "relu")
MODEL_TYPES = ("bert", "roberta", "albert", "distilbert", "modernbert")
_OPTIONAL_DROPOUT = dataclasses.replace(DROPOUT, special=-1)
_VOCABULARY_MULTIPLE = 64  # so that any power of two up to 64 devices can shard the vocabulary


@dataclasses.dataclass(frozen=True)
class DenseLayer:
    """A dense layer between the pooled hidden states of a text and its vector."""

    features: int
    activation: Literal["identity", "tanh", "relu", "gelu"]


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The architecture of the encoder, under Hugging Face's names."""

    model_type: str = setting(
        "bert", "Hugging Face architecture used on export; does not affect computation.", MODEL_TYPES
    )
    vocab_size: int = setting(
        30522, "Number of vocabulary entries; 0: the vocabulary size of the tokenizer.", NON_NEGATIVE
    )
    hidden_size: int = setting(768, "Width of the hidden states.", AT_LEAST_ONE)
    embedding_size: int = setting(
        0, "Width of the embeddings before projection to hidden_size (ALBERT); 0: hidden_size.", NON_NEGATIVE
    )
    num_hidden_layers: int = setting(12, "Number of transformer layers.", AT_LEAST_ONE)
    num_hidden_groups: int = setting(
        0, "Number of groups of layers with shared parameters (ALBERT); 0: no sharing.", NON_NEGATIVE
    )
    num_attention_heads: int = setting(12, "Number of attention heads per layer.", AT_LEAST_ONE)
    intermediate_size: int = setting(3072, "Width of the MLP.", AT_LEAST_ONE)
    max_position_embeddings: int = setting(512, "Maximum sequence length in tokens.", AT_LEAST_ONE)
    type_vocab_size: int = setting(2, "Number of segment types; 0: no segment embeddings (DistilBERT).", NON_NEGATIVE)
    hidden_act: str = setting(
        "gelu",
        "Activation function of the MLP and the masked-LM head; gelu is exact (erf), gelu_new the tanh approximation.",
        ACTIVATIONS,
    )
    pooler_act: str = setting("tanh", "Activation function of the pooler; DistilBERT uses relu.", ("tanh", "relu"))
    hidden_dropout_prob: float = setting(
        0.1, "Dropout probability of embeddings and of attention and MLP outputs.", DROPOUT
    )
    attention_probs_dropout_prob: float = setting(0.1, "Dropout probability of attention probabilities.", DROPOUT)
    attention_output_dropout_prob: float = setting(
        -1.0,
        "Dropout probability after the output projection of attention (ModernBERT); -1: hidden_dropout_prob.",
        _OPTIONAL_DROPOUT,
    )
    layer_norm_eps: float = setting(1e-12, "Constant added to the variance in LayerNorm.", POSITIVE)
    initializer_range: float = setting(0.02, "Standard deviation of the initial weights.", POSITIVE)
    # ModernBERT's settings (Warner et al. 2024, arXiv:2412.13663); each can be used without the others.
    pre_norm: bool = setting(
        False,
        "Apply LayerNorm before attention (except in the first layer) and the MLP and after the last layer, instead "
        "of after attention and the MLP.",
    )
    use_bias: bool = setting(True, "Use biases in dense layers and LayerNorms; output heads always have a bias.")
    gated_mlp: bool = setting(
        False, "Gate the MLP: hidden_act(x·intermediate) * (x·gate) instead of hidden_act(x·intermediate)."
    )
    global_rope_theta: float = setting(
        0.0,
        "Base of the rotary position embeddings in layers with global attention; 0: learned position embeddings.",
        NON_NEGATIVE,
    )
    local_rope_theta: float = setting(
        0.0, "Base of the rotary position embeddings in layers with local attention.", NON_NEGATIVE
    )
    local_attention: int = setting(
        0,
        "Window of local attention in tokens, half of it on each side; 0: all layers use global attention.",
        Range(at_least=2, special=0),
    )
    global_attn_every_n_layers: int = setting(
        1, "Period n of layers with global attention (0, n, 2n, …); the others use local attention.", AT_LEAST_ONE
    )
    prediction_head: bool = setting(
        False,
        "Apply ModernBERT's prediction head (dense layer, hidden_act, LayerNorm) before task heads, instead of BERT's "
        "pooler.",
    )

    def check(self) -> None:
        """Raises UserError if settings contradict one another."""

        def check(ok: bool, name: str, rule: str) -> None:
            require(ok, f"model.{name}", getattr(self, name), rule)

        groups, layers, heads = self.num_hidden_groups, self.num_hidden_layers, self.num_attention_heads
        rule = f"0, or a divisor of model.num_hidden_layers ({layers})"
        check(groups == 0 or layers % groups == 0, "num_hidden_groups", rule)
        rule = f"a multiple of model.num_attention_heads ({heads})"
        check(self.hidden_size % heads == 0, "hidden_size", rule)
        window, period, rotary = self.local_attention, self.global_attn_every_n_layers, self.global_rope_theta
        rule = "at least 2 with model.local_attention, otherwise 1"
        check(period >= 2 if window else period == 1, "global_attn_every_n_layers", rule)
        rule = f"positive if model.global_rope_theta ({rotary}) and model.local_attention ({window}) are, otherwise 0"
        needed = rotary > 0 and window > 0
        check(self.local_rope_theta > 0 if needed else self.local_rope_theta == 0, "local_rope_theta", rule)
        even = not rotary or self.head_size % 2 == 0
        require(even, "model.hidden_size / num_attention_heads", self.head_size, "even with rotary position embeddings")
        uniform = not (window or self.pre_norm)
        rule = "0 with model.local_attention or model.pre_norm, whose layers differ"
        check(uniform or not groups, "num_hidden_groups", rule)
        fits = not self.prediction_head or self.pooler_act == "tanh"
        check(fits, "pooler_act", "'tanh', its default, with model.prediction_head, which uses model.hidden_act")

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the word embeddings: `vocab_size` rounded up for sharding; the additional rows stay zero."""
        return _VOCABULARY_MULTIPLE * math.ceil(self.vocab_size / _VOCABULARY_MULTIPLE)

    @property
    def embedding_width(self) -> int:
        """Width of the embedding tables."""
        return self.embedding_size or self.hidden_size

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def attention_window(self) -> int:
        """Tokens that a token attends to on each side in layers with local attention; 0 without such layers."""
        return self.local_attention // 2

    def is_local(self, layer: int) -> bool:
        """Whether a layer, counted from 0, uses local attention."""
        return layer % self.global_attn_every_n_layers != 0
