"""The shape of the encoder."""

import dataclasses
import math

POOLINGS = ("mean", "cls", "max")  # of a text's states to its vector
ACTIVATIONS = ("gelu", "gelu_new", "relu")
MODEL_TYPES = ("bert", "roberta", "albert", "distilbert", "modernbert")
POOLER_ACTIVATIONS = ("tanh", "relu")
_VOCABULARY_MULTIPLE = 64  # so any power of two of devices up to this can share it


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The encoder's shape, in Hugging Face's names for it."""

    model_type: str = "bert"  # whose layout it is written in for transformers; what is computed the other fields say
    vocab_size: int = 30522  # at least the tokenizer's; 0 takes the tokenizer's
    hidden_size: int = 768
    embedding_size: int = 0  # width of the tables of embeddings, which are then projected (ALBERT); 0: hidden_size
    num_hidden_layers: int = 12
    num_hidden_groups: int = 0  # groups of layers, each with one set of parameters (ALBERT); 0: every layer has its own
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    type_vocab_size: int = 2  # 0: none (DistilBERT)
    hidden_act: str = "gelu"  # gelu is the exact one (erf), gelu_new the tanh approximation
    pooler_act: str = "tanh"  # tanh, relu (DistilBERT)
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    attention_output_dropout_prob: float = -1.0  # behind attention's last product (ModernBERT); -1: hidden_dropout_prob
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    # What ModernBERT has (Warner et al. 2024, arXiv:2412.13663); each works without the others.
    pre_norm: bool = False  # LayerNorm before attention (not the first layer's) and MLP, and one behind all layers
    use_bias: bool = True  # of dense layers and LayerNorms; the outputs of heads have theirs in any case
    gated_mlp: bool = False  # hidden_act(x·intermediate) * (x·gate) instead of hidden_act(x·intermediate)
    global_rope_theta: float = 0.0  # rotary positions with this base, in local layers with local_rope_theta; 0: learned
    local_rope_theta: float = 0.0
    local_attention: int = 0  # window of local attention: a token sees half of it to each side; 0: all layers see all
    global_attn_every_n_layers: int = 1  # of those with a window: layers 0, n, 2n, … see all
    prediction_head: bool = False  # tasks read dense, hidden_act and LayerNorm of each row instead of BERT's pooler

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
