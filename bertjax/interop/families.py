"""How `transformers` writes each family's models; what they compute is the same encoder's.

Ours → theirs. Kernels are [in, out] here and [out, in] there.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Family:
    """One `model_type` of `transformers`. Names are within a model with heads; `base` is the encoder's prefix."""

    base: str
    classes: str  # how the names of its classes begin
    layer: str  # of a layer, or of a group of layers that share their parameters
    dense: Mapping[Path, str]  # within a layer
    norm: Mapping[Path, str]
    masked_lm: Mapping[str, str]  # our parts of the masked-LM head
    decoder: str  # the copy of the word embeddings that tying makes; its bias is a copy of masked_lm's
    pretraining: tuple[str, str]  # classes with and without a head for pairs of sentences; "" where there is none
    pairs: str = ""  # the task of that head
    pooler: str = "pooler.dense"  # behind `base`
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

    @property
    def prefixes(self) -> tuple[str, ...]:
        """How the encoder's tensors begin in a folder that holds it alone."""
        parts = {self.layer.split(".")[0], self.pooler.split(".")[0], "embeddings"}
        return tuple(f"{part}." for part in sorted(parts))


_PLAIN = {"embedding_size": 0, "num_hidden_groups": 0, "pooler_act": "tanh"}
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
        fixed={"pooler_act": "tanh"},
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
}
