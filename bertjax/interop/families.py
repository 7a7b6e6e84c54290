"""Names of classes, tensors and config keys in `transformers`, per family.

All families are computed by the same encoder. Kernels are [in, out] in bertjax and [out, in] in `transformers`.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping

from bertjax.config.model import ModelConfig
from bertjax.interop import modernbert
from bertjax.tasks.kinds.base import TaskKind


@dataclasses.dataclass(frozen=True)
class Family:
    """One `model_type` of `transformers`; tensor names are those of a model with heads."""

    prefix: str  # of the encoder's tensors
    class_prefix: str
    masked_lm: tuple[str, str, str]  # dense, LayerNorm and bias of the head; a `prediction_head` has the first two
    decoder: str  # copy of the word embeddings, made by tying; its bias is a copy of masked_lm's
    pair_task: str = ""  # the sentence-pair task of the pre-training class; "": no such head
    # Within the encoder:
    layer: str = "encoder.layer.{}."  # or a group of layers that share their parameters
    # Within a layer; equal names mean one tensor that holds several kernels, one after another.
    attention: tuple[str, str, str, str] = (  # query, key, value, output
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
    )
    mlp: tuple[str, ...] = ("intermediate.dense", "output.dense")  # intermediate, with `gated_mlp` gate, output
    norms: tuple[str, str] = ("attention.output.LayerNorm", "output.LayerNorm")  # of attention and MLP
    word_embeddings: str = "embeddings.word_embeddings"
    embedding_norm: str = "embeddings.LayerNorm"
    pooler: str = "pooler.dense"
    pair_head: str = ""
    pair_logits: str = ""  # the name of this head's output
    projection: str = ""  # from the width of the embeddings to that of the layers
    # Class → (pooler, head), where they are not the encoder's pooler and `classifier`.
    heads: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    offset_positions: bool = False  # whether position numbers start after the padding id
    pad_id: int = 0  # used if a config has none
    # Fields of ModelConfig: keys with other names (field → key), defaults of missing keys, and values that cannot vary.
    config_keys: Mapping[str, str] = dataclasses.field(default_factory=dict)
    defaults: Mapping[str, object] = dataclasses.field(default_factory=dict)
    fixed: Mapping[str, object] = dataclasses.field(default_factory=lambda: _PLAIN)
    # Keys that are no fields of ModelConfig, and the only supported value, which exports contain.
    constants: Mapping[str, object] = dataclasses.field(default_factory=dict)
    # Keys that need code: (config, path) → fields of ModelConfig, and ModelConfig → keys.
    read_config: Callable[[Mapping[str, object], pathlib.Path], dict[str, object]] = lambda values, path: {}
    config_values: Callable[[ModelConfig], dict[str, object]] = lambda config: {}

    def class_name(self, kind: TaskKind | None, pairs: bool = False) -> str:
        """The class for a kind of task; for None the pre-training class, with or without a sentence-pair head."""
        pretraining = "ForPreTraining" if pairs else "ForMaskedLM"
        return self.class_prefix + (kind.transformers_class if kind else pretraining)

    @property
    def encoder_class(self) -> str:
        """The class without any head."""
        return f"{self.class_prefix}Model"

    def position_offset(self, pad_id: int) -> int:
        """The number of unused rows at the start of the position embeddings."""
        return pad_id + 1 if self.offset_positions else 0

    @property
    def unique_prefixes(self) -> tuple[str, ...]:
        """Prefixes of tensor names that no other family has."""
        return (self.prefix + self.layer.split("{}")[0], self.prefix + self.word_embeddings)

    @property
    def encoder_prefixes(self) -> tuple[str, ...]:
        """Prefixes of the tensor names in a folder that holds the encoder alone."""
        parts = {self.layer.split(".")[0], self.pooler.split(".")[0], "embeddings", "final_norm"}
        return tuple(f"{part}." for part in sorted(parts))


# Values that all families except ModernBERT share.
_CLASSIC = {
    "attention_output_dropout_prob": -1.0,
    "pre_norm": False,
    "use_bias": True,
    "gated_mlp": False,
    "global_rope_theta": 0.0,
    "local_rope_theta": 0.0,
    "local_attention": 0,
    "global_attn_every_n_layers": 1,
    "prediction_head": False,
}
_PLAIN = _CLASSIC | {"embedding_size": 0, "num_hidden_groups": 0, "pooler_act": "tanh"}

FAMILIES = {
    "bert": Family(
        prefix="bert.",
        class_prefix="Bert",
        masked_lm=("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.bias"),
        decoder="cls.predictions.decoder",
        pair_task="next_sentence",
        pair_head="cls.seq_relationship",
        pair_logits="seq_relationship_logits",
    ),
    "roberta": Family(
        prefix="roberta.",
        class_prefix="Roberta",
        masked_lm=("lm_head.dense", "lm_head.layer_norm", "lm_head.bias"),
        decoder="lm_head.decoder",
        heads={"RobertaForSequenceClassification": ("classifier.dense", "classifier.out_proj")},
        offset_positions=True,
        pad_id=1,
        fixed=_PLAIN | {"hidden_act": "gelu"},  # of the masked-LM head, whatever the layers use
    ),
    "albert": Family(
        prefix="albert.",
        class_prefix="Albert",
        layer="encoder.albert_layer_groups.{}.albert_layers.0.",
        attention=("attention.query", "attention.key", "attention.value", "attention.dense"),
        mlp=("ffn", "ffn_output"),
        norms=("attention.LayerNorm", "full_layer_layer_norm"),
        masked_lm=("predictions.dense", "predictions.LayerNorm", "predictions.bias"),
        decoder="predictions.decoder",
        pooler="pooler",
        pair_task="sentence_order",
        pair_head="sop_classifier.classifier",
        pair_logits="sop_logits",
        projection="encoder.embedding_hidden_mapping_in",
        defaults={
            "hidden_act": "gelu_new",
            "embedding_size": 128,
            "num_hidden_groups": 1,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        fixed=_CLASSIC | {"pooler_act": "tanh"},
    ),
    "distilbert": Family(
        prefix="distilbert.",
        class_prefix="DistilBert",
        layer="transformer.layer.{}.",
        attention=("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"),
        mlp=("ffn.lin1", "ffn.lin2"),
        norms=("sa_layer_norm", "output_layer_norm"),
        masked_lm=("vocab_transform", "vocab_layer_norm", "vocab_projector.bias"),
        decoder="vocab_projector",
        heads={
            "DistilBertForSequenceClassification": ("pre_classifier", "classifier"),
            "DistilBertForMultipleChoice": ("pre_classifier", "classifier"),
        },
        config_keys={
            "hidden_size": "dim",
            "num_hidden_layers": "n_layers",
            "num_attention_heads": "n_heads",
            "intermediate_size": "hidden_dim",
            "hidden_act": "activation",
            "hidden_dropout_prob": "dropout",
            "attention_probs_dropout_prob": "attention_dropout",
        },
        fixed=_PLAIN | {"type_vocab_size": 0, "layer_norm_eps": 1e-12, "pooler_act": "relu"},
    ),
    "modernbert": Family(
        prefix="model.",
        class_prefix="ModernBert",
        layer="layers.{}.",
        attention=("attn.Wqkv", "attn.Wqkv", "attn.Wqkv", "attn.Wo"),
        mlp=("mlp.Wi", "mlp.Wi", "mlp.Wo"),
        norms=("attn_norm", "mlp_norm"),
        masked_lm=("head.dense", "head.norm", "decoder.bias"),
        decoder="decoder",
        word_embeddings="embeddings.tok_embeddings",
        embedding_norm="embeddings.norm",
        pad_id=50283,
        # `attention_dropout` and `mlp_dropout` apply at slightly other places in `transformers`; only training differs.
        config_keys={
            "hidden_act": "hidden_activation",
            "hidden_dropout_prob": "mlp_dropout",
            "attention_probs_dropout_prob": "attention_dropout",
            "attention_output_dropout_prob": "attn_out_dropout_prob",  # of the authors' code; transformers ignores it
            "layer_norm_eps": "norm_eps",
        },
        defaults={
            "mlp_dropout": 0.0,
            "attention_dropout": 0.0,
            "norm_eps": 1e-5,
        },
        fixed={
            "embedding_size": 0,
            "num_hidden_groups": 0,
            "type_vocab_size": 0,
            "pooler_act": "tanh",
            "pre_norm": True,
            "use_bias": False,
            "gated_mlp": True,
            "prediction_head": True,
        },
        constants={
            "attention_bias": False,
            "mlp_bias": False,
            "norm_bias": False,
            "classifier_bias": False,
            "decoder_bias": True,
        },
        read_config=modernbert.read_config,
        config_values=modernbert.config_values,
    ),
}
