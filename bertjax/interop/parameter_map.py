"""Maps bertjax's parameters to the tensors of a Hugging Face model, by the names in bertjax/interop/families.py."""

import dataclasses
from collections.abc import Iterator

from bertjax.config.model import ModelConfig
from bertjax.interop.families import FAMILIES, Family
from bertjax.model.layer_stacks import layer_stacks
from bertjax.tasks.kinds.base import TaskKind

_WIDE = ("intermediate", "gate")  # parts with intermediate_size outputs
# In the order of a family's `attention` and `mlp`.
_DENSE = ("attention/query", "attention/key", "attention/value", "attention/output", "intermediate", "gate", "output")


@dataclasses.dataclass(frozen=True)
class TensorMapping:
    """A parameter and the tensor of a Hugging Face model that holds it."""

    tensor: str
    path: tuple[str, ...]  # of the parameter
    repeat: int | None = None  # index into the repeats of a layer stack
    transposed: bool = False
    rows: int | None = None  # number of rows of the parameter without its padding; None: all
    begin: int = 0  # row of the tensor where the parameter begins; unmapped rows are unused


def pretraining_mappings(config: ModelConfig, pairs: bool, pad_id: int = 0) -> list[TensorMapping]:
    """Returns the mappings of all parameters of a pre-training model, with or without a sentence-pair head.

    The copies that tying makes (`….decoder.*`) are left out.
    """
    family, bias = FAMILIES[config.model_type], config.use_bias
    mappings = _encoder(config, family, pad_id) + _transform(config, family, "masked_lm_head")
    mappings.append(TensorMapping(family.masked_lm[2], ("masked_lm_head", "bias"), rows=config.vocab_size))
    if pairs:
        mappings += _module(family.prefix + family.pooler, "pooler", bias)
        mappings += _module(family.pair_head, f"{family.pair_task}_head")
    return mappings


def finetuned_mappings(config: ModelConfig, kind: TaskKind, pad_id: int = 0) -> list[TensorMapping]:
    """Returns the mappings of all parameters of a model that is fine-tuned for a kind of task."""
    family = FAMILIES[config.model_type]
    mappings = _encoder(config, family, pad_id)
    if kind.bi_encoder:
        return mappings
    if config.prediction_head:
        return mappings + _transform(config, family, "prediction_head") + _module("classifier", "task_head")
    default = (family.prefix + family.pooler, kind.transformers_head)
    pooler, head = family.heads.get(family.class_name(kind), default)
    if kind.pooled:
        mappings += _module(pooler, "pooler", config.use_bias)
    return mappings + _module(head, "task_head")


def _encoder(config: ModelConfig, family: Family, pad_id: int) -> list[TensorMapping]:
    prefix, bias = family.prefix, config.use_bias
    mappings = _embedding("word_embeddings", prefix + family.word_embeddings, rows=config.vocab_size)
    if not config.global_rope_theta:
        begin = family.position_offset(pad_id)
        mappings += _embedding("position_embeddings", f"{prefix}embeddings.position_embeddings", begin=begin)
    if config.type_vocab_size:
        mappings += _embedding("token_type_embeddings", f"{prefix}embeddings.token_type_embeddings")
    mappings += _module(prefix + family.embedding_norm, "embeddings/layer_norm", bias)
    if config.embedding_size:
        mappings += _module(prefix + family.projection, "embeddings/projection", bias)
    dense = [part for part in _DENSE if part != "gate" or config.gated_mlp]
    norms = ("attention_layer_norm", "mlp_layer_norm" if config.pre_norm else "output_layer_norm")
    for number, (layer, repeat) in enumerate(_layers(config)):
        layer_prefix = prefix + family.layer.format(number)
        ends: dict[str, int] = {}  # tensor → its rows that are mapped already
        for part, name in zip(dense, family.attention + family.mlp, strict=True):
            begin = ends.get(name, 0)
            ends[name] = begin + (config.intermediate_size if part in _WIDE else config.hidden_size)
            mappings += _module(layer_prefix + name, f"{layer}/{part}", bias, repeat, begin)
        for part, name in zip(norms, family.norms, strict=True):
            if not (config.pre_norm and number == 0 and part == "attention_layer_norm"):
                mappings += _module(layer_prefix + name, f"{layer}/{part}", bias, repeat)
    if config.pre_norm:
        mappings += _module(f"{prefix}final_norm", "encoder/final_layer_norm", bias)
    return mappings


def _layers(config: ModelConfig) -> Iterator[tuple[str, int]]:
    """Yields the path and the repeat of every layer that has its own parameters, in order."""
    for number, stack in enumerate(layer_stacks(config)):
        for repeat in range(stack.stacked):
            for layer in range(stack.layers):
                yield f"encoder/segment_{number}/layer_{layer}", repeat


def _transform(config: ModelConfig, family: Family, head: str) -> list[TensorMapping]:
    """The dense layer and the LayerNorm at the start of `head`."""
    dense, norm, _ = family.masked_lm
    return _module(dense, f"{head}/dense", config.use_bias) + _module(norm, f"{head}/layer_norm", config.use_bias)


def _embedding(name: str, module: str, rows: int | None = None, begin: int = 0) -> list[TensorMapping]:
    return [TensorMapping(f"{module}.weight", ("embeddings", name, "embedding"), rows=rows, begin=begin)]


def _module(
    module: str, path: str, bias: bool = True, repeat: int | None = None, begin: int = 0
) -> list[TensorMapping]:
    """The parameters of the dense layer or LayerNorm at `path`; `module` is its name in the Hugging Face model."""
    parts, is_norm = path.split("/"), path.endswith("layer_norm")
    weight_path = (*parts, "scale" if is_norm else "kernel")
    weight = TensorMapping(f"{module}.weight", weight_path, repeat, not is_norm, begin=begin)
    return [weight, TensorMapping(f"{module}.bias", (*parts, "bias"), repeat, begin=begin)] if bias else [weight]
