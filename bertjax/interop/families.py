"""How `transformers` writes each family's models; what they compute is the same encoder's.

Ours → theirs. Kernels are [in, out] here and [out, in] there.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from bertjax.config.model import ModelConfig
from bertjax.interop import modernbert
from bertjax.tasks.kinds.base import TaskKind


@dataclasses.dataclass(frozen=True)
class Family:
    """One `model_type` of `transformers`. Names are within a model with heads; `base` is the encoder's prefix."""

    base: str
    classes: str  # how the names of its classes begin
    masked_lm: tuple[str, str, str]  # dense, LayerNorm and bias of its head; a `prediction_head` has the former two
    decoder: str  # the copy of the word embeddings that tying makes; its bias is a copy of masked_lm's
    pairs: str = ""  # the task of its head for pairs of sentences; "": there is none
    # Behind `base`:
    layer: str = "encoder.layer.{}."  # or a group of layers that share their parameters
    # Within a layer; what has one name there lies in one tensor, one after the other.
    attention: tuple[str, str, str, str] = (  # query, key, value, output
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
    )
    mlp: tuple[str, ...] = ("intermediate.dense", "output.dense")  # intermediate, with `gated_mlp` gate, output
    norms: tuple[str, str] = ("attention.output.LayerNorm", "output.LayerNorm")  # of attention and MLP
    words: str = "embeddings.word_embeddings"
    embedding_norm: str = "embeddings.LayerNorm"
    pooler: str = "pooler.dense"
    pair_head: str = ""
    pair_logits: str = ""  # what the class calls its output
    projection: str = ""  # from the embeddings' width to the layers'
    # (pooler, head) of a class where they are not the encoder's pooler and `classifier`
    heads: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    offset: bool = False  # whether positions count from behind the id of padding
    pad_id: int = 0  # where a config does not say
    # Fields of ModelConfig: what a config calls otherwise, what it need not say, and what such models cannot change.
    keys: Mapping[str, str] = dataclasses.field(default_factory=dict)
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=lambda: _PLAIN)
    # Keys of a config that are no fields of ModelConfig, and the only value that bertjax computes; they are written.
    constants: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    # What its configs say in ways of their own: fields of ModelConfig of (config, path), and the other way round.
    read: Callable[[Mapping[str, Any], pathlib.Path], dict[str, Any]] = lambda values, path: {}
    written: Callable[[ModelConfig], dict[str, Any]] = lambda config: {}

    def class_name(self, kind: TaskKind | None, pairs: bool = False) -> str:
        """The class for a kind of task; without one that for pre-training, with or without a head for pairs."""
        pretraining = "ForPreTraining" if pairs else "ForMaskedLM"
        return self.classes + (kind.transformers_class if kind else pretraining)

    def position_offset(self, pad_id: int) -> int:
        """The rows of the table of positions before the first one that is used."""
        return pad_id + 1 if self.offset else 0

    @property
    def named(self) -> tuple[str, ...]:
        """How tensors begin that only this family has."""
        return (self.base + self.layer.split("{}")[0], self.base + self.words)

    @property
    def prefixes(self) -> tuple[str, ...]:
        """How the encoder's tensors begin in a folder that holds it alone."""
        parts = {self.layer.split(".")[0], self.pooler.split(".")[0], "embeddings", "final_norm"}
        return tuple(f"{part}." for part in sorted(parts))


# What all but ModernBERT have.
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
        base="bert.",
        classes="Bert",
        masked_lm=("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.bias"),
        decoder="cls.predictions.decoder",
        pairs="next_sentence",
        pair_head="cls.seq_relationship",
        pair_logits="seq_relationship_logits",
    ),
    "roberta": Family(
        base="roberta.",
        classes="Roberta",
        masked_lm=("lm_head.dense", "lm_head.layer_norm", "lm_head.bias"),
        decoder="lm_head.decoder",
        heads={"RobertaForSequenceClassification": ("classifier.dense", "classifier.out_proj")},
        offset=True,
        pad_id=1,
        fixed=_PLAIN | {"hidden_act": "gelu"},  # of the masked-LM head, whatever the layers have
    ),
    "albert": Family(
        base="albert.",
        classes="Albert",
        layer="encoder.albert_layer_groups.{}.albert_layers.0.",
        attention=("attention.query", "attention.key", "attention.value", "attention.dense"),
        mlp=("ffn", "ffn_output"),
        norms=("attention.LayerNorm", "full_layer_layer_norm"),
        masked_lm=("predictions.dense", "predictions.LayerNorm", "predictions.bias"),
        decoder="predictions.decoder",
        pooler="pooler",
        pairs="sentence_order",
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
        base="distilbert.",
        classes="DistilBert",
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
        keys={
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
        base="model.",
        classes="ModernBert",
        layer="layers.{}.",
        attention=("attn.Wqkv", "attn.Wqkv", "attn.Wqkv", "attn.Wo"),
        mlp=("mlp.Wi", "mlp.Wi", "mlp.Wo"),
        norms=("attn_norm", "mlp_norm"),
        masked_lm=("head.dense", "head.norm", "decoder.bias"),
        decoder="decoder",
        words="embeddings.tok_embeddings",
        embedding_norm="embeddings.norm",
        pad_id=50283,
        # `attention_dropout` and `mlp_dropout` are at somewhat other places there, and nothing but training sees them.
        keys={
            "hidden_act": "hidden_activation",
            "hidden_dropout_prob": "mlp_dropout",
            "attention_probs_dropout_prob": "attention_dropout",
            "attention_output_dropout_prob": "attn_out_dropout_prob",  # as its authors call it; ignored there
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
        read=modernbert.read,
        written=modernbert.written,
    ),
}
