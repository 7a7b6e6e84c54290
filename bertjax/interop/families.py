"""How `transformers` writes each family's models; what they compute is the same encoder's.

Ours → theirs. Kernels are [in, out] here and [out, in] there.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from bertjax.config.model import ModelConfig
from bertjax.interop import modernbert

Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Family:
    """One `model_type` of `transformers`. Names are within a model with heads; `base` is the encoder's prefix."""

    base: str
    classes: str  # how the names of its classes begin
    layer: str  # of a layer, or of a group of layers that share their parameters
    dense: Mapping[Path, str]  # within a layer; what has one name there lies in one tensor, one after the other
    norm: Mapping[Path, str]
    masked_lm: Mapping[str, str]  # our parts of the masked-LM head
    decoder: str  # the copy of the word embeddings that tying makes; its bias is a copy of masked_lm's
    pretraining: tuple[str, str]  # classes with and without a head for pairs of sentences; "" where there is none
    pairs: str = ""  # the task of that head
    # Behind `base`:
    words: str = "embeddings.word_embeddings"
    embedding_norm: str = "embeddings.LayerNorm"
    final_norm: str = "final_norm"  # with pre_norm
    pooler: str = "pooler.dense"
    pair_head: str = ""
    pair_logits: str = ""  # what the class calls its output
    projection: str = ""  # from the embeddings' width to the layers'
    # (pooler, head) of a class where they are not the encoder's pooler and `classifier`
    heads: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    prediction_head: tuple[str, str] = ("", "")  # dense and LayerNorm of a `prediction_head`; then `classifier`
    offset: bool = False  # whether positions count from behind the id of padding
    pad_id: int = 0  # where a config does not say
    # Fields of ModelConfig: what a config calls otherwise, what it need not say, and what such models cannot change.
    keys: Mapping[str, str] = dataclasses.field(default_factory=dict)
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=lambda: _PLAIN)
    needed: tuple[str, ...] = ("type_vocab_size",)  # that must not be 0, unless they are fixed
    # Keys of a config that are no fields of ModelConfig, and the only value that bertjax computes; they are written.
    constants: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    # What its configs say in ways of their own: fields of ModelConfig of (config, path), and the other way round.
    read: Callable[[Mapping[str, Any], pathlib.Path], dict[str, Any]] = lambda values, path: {}
    written: Callable[[ModelConfig], dict[str, Any]] = lambda config: {}

    @property
    def prefixes(self) -> tuple[str, ...]:
        """How the encoder's tensors begin in a folder that holds it alone."""
        parts = {self.layer.split(".")[0], self.pooler.split(".")[0], "embeddings", self.final_norm}
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
_BERT_DENSE = {
    ("attention", "query"): "attention.self.query",
    ("attention", "key"): "attention.self.key",
    ("attention", "value"): "attention.self.value",
    ("attention", "output"): "attention.output.dense",
    ("intermediate",): "intermediate.dense",
    ("output",): "output.dense",
}
_BERT_NORM = {
    ("attention_layer_norm",): "attention.output.LayerNorm",
    ("output_layer_norm",): "output.LayerNorm",
}

FAMILIES = {
    "bert": Family(
        base="bert.",
        classes="Bert",
        layer="encoder.layer.{}.",
        dense=_BERT_DENSE,
        norm=_BERT_NORM,
        masked_lm={
            "dense": "cls.predictions.transform.dense",
            "layer_norm": "cls.predictions.transform.LayerNorm",
            "bias": "cls.predictions.bias",
        },
        decoder="cls.predictions.decoder",
        pretraining=("BertForPreTraining", "BertForMaskedLM"),
        pairs="next_sentence",
        pair_head="cls.seq_relationship",
        pair_logits="seq_relationship_logits",
    ),
    "roberta": Family(
        base="roberta.",
        classes="Roberta",
        layer="encoder.layer.{}.",
        dense=_BERT_DENSE,
        norm=_BERT_NORM,
        masked_lm={"dense": "lm_head.dense", "layer_norm": "lm_head.layer_norm", "bias": "lm_head.bias"},
        decoder="lm_head.decoder",
        pretraining=("", "RobertaForMaskedLM"),
        heads={"RobertaForSequenceClassification": ("classifier.dense", "classifier.out_proj")},
        offset=True,
        pad_id=1,
        fixed=_PLAIN | {"hidden_act": "gelu"},  # of the masked-LM head, whatever the layers have
    ),
    "albert": Family(
        base="albert.",
        classes="Albert",
        layer="encoder.albert_layer_groups.{}.albert_layers.0.",
        dense={
            ("attention", "query"): "attention.query",
            ("attention", "key"): "attention.key",
            ("attention", "value"): "attention.value",
            ("attention", "output"): "attention.dense",
            ("intermediate",): "ffn",
            ("output",): "ffn_output",
        },
        norm={
            ("attention_layer_norm",): "attention.LayerNorm",
            ("output_layer_norm",): "full_layer_layer_norm",
        },
        masked_lm={
            "dense": "predictions.dense",
            "layer_norm": "predictions.LayerNorm",
            "bias": "predictions.bias",
        },
        decoder="predictions.decoder",
        pretraining=("AlbertForPreTraining", "AlbertForMaskedLM"),
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
        needed=("type_vocab_size", "embedding_size", "num_hidden_groups"),
    ),
    "distilbert": Family(
        base="distilbert.",
        classes="DistilBert",
        layer="transformer.layer.{}.",
        dense={
            ("attention", "query"): "attention.q_lin",
            ("attention", "key"): "attention.k_lin",
            ("attention", "value"): "attention.v_lin",
            ("attention", "output"): "attention.out_lin",
            ("intermediate",): "ffn.lin1",
            ("output",): "ffn.lin2",
        },
        norm={
            ("attention_layer_norm",): "sa_layer_norm",
            ("output_layer_norm",): "output_layer_norm",
        },
        masked_lm={"dense": "vocab_transform", "layer_norm": "vocab_layer_norm", "bias": "vocab_projector.bias"},
        decoder="vocab_projector",
        pretraining=("", "DistilBertForMaskedLM"),
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
        dense={
            ("attention", "query"): "attn.Wqkv",
            ("attention", "key"): "attn.Wqkv",
            ("attention", "value"): "attn.Wqkv",
            ("attention", "output"): "attn.Wo",
            ("intermediate",): "mlp.Wi",
            ("gate",): "mlp.Wi",
            ("output",): "mlp.Wo",
        },
        norm={
            ("attention_layer_norm",): "attn_norm",
            ("mlp_layer_norm",): "mlp_norm",
        },
        masked_lm={"dense": "head.dense", "layer_norm": "head.norm", "bias": "decoder.bias"},
        decoder="decoder",
        pretraining=("", "ModernBertForMaskedLM"),
        words="embeddings.tok_embeddings",
        embedding_norm="embeddings.norm",
        prediction_head=("head.dense", "head.norm"),
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
            "hidden_activation": "gelu",
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
