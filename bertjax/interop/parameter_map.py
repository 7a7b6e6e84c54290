"""Where each of our parameters stands in a Hugging Face model; bertjax/interop/families.py has the names."""

import dataclasses
from collections.abc import Iterator

from bertjax.config.model import ModelConfig
from bertjax.interop.families import FAMILIES, Family
from bertjax.model.layer_stacks import layer_stacks
from bertjax.tasks.kinds.base import TaskKind

_WIDE = ("intermediate", "gate")  # what is intermediate_size wide
# In the order of a family's `attention` and `mlp`.
_DENSE = ("attention/query", "attention/key", "attention/value", "attention/output", "intermediate", "gate", "output")


@dataclasses.dataclass(frozen=True)
class Name:
    """One tensor of theirs, and its place in our tree."""

    theirs: str
    path: tuple[str, ...]
    repeat: int | None = None  # index into the repeats of a stack
    transposed: bool = False
    rows: int | None = None  # the first rows of ours, which are padded; None takes all
    begin: int = 0  # the row of theirs where ours begins; rows that no name covers stand for nothing


def pretraining_names(config: ModelConfig, pairs: bool, pad_id: int = 0) -> list[Name]:
    """Every parameter of a model for pre-training, without `pairs` of one for masked language modelling.

    The copies that tying makes (`….decoder.*`) are not among them.
    """
    family, bias = FAMILIES[config.model_type], config.use_bias
    names = _encoder_names(config, family, pad_id) + _transform_names(config, family, "masked_lm_head")
    names.append(Name(family.masked_lm[2], ("masked_lm_head", "bias"), rows=config.vocab_size))
    if pairs:
        names += _module(family.base + family.pooler, "pooler", bias)
        names += _module(family.pair_head, f"{family.pairs}_head")
    return names


def fine_tuned_names(config: ModelConfig, kind: TaskKind, pad_id: int = 0) -> list[Name]:
    """Every parameter of a model that is fine-tuned for a kind of task."""
    family = FAMILIES[config.model_type]
    names = _encoder_names(config, family, pad_id)
    if kind.bi_encoder:
        return names
    if config.prediction_head:
        return names + _transform_names(config, family, "prediction_head") + _module("classifier", "task_head")
    usual = (family.base + family.pooler, kind.transformers_head)
    pooler, head = family.heads.get(family.class_name(kind), usual)
    if kind.pooled:
        names += _module(pooler, "pooler", config.use_bias)
    return names + _module(head, "task_head")


def _encoder_names(config: ModelConfig, family: Family, pad_id: int) -> list[Name]:
    bias = config.use_bias

    def table(theirs: str, ours: str, **more: int) -> Name:
        return Name(f"{family.base}{theirs}.weight", ("embeddings", ours, "embedding"), **more)

    names = [table(family.words, "word_embeddings", rows=config.vocab_size)]
    if not config.global_rope_theta:
        begin = family.position_offset(pad_id)
        names.append(table("embeddings.position_embeddings", "position_embeddings", begin=begin))
    if config.type_vocab_size:
        names.append(table("embeddings.token_type_embeddings", "token_type_embeddings"))
    names += _module(family.base + family.embedding_norm, "embeddings/layer_norm", bias)
    if config.embedding_size:
        names += _module(family.base + family.projection, "embeddings/projection", bias)
    dense = [part for part in _DENSE if part != "gate" or config.gated_mlp]
    norms = ("attention_layer_norm", "mlp_layer_norm" if config.pre_norm else "output_layer_norm")
    for number, (layer, repeat) in enumerate(_layers(config)):
        prefix = family.base + family.layer.format(number)
        ends: dict[str, int] = {}  # of what is there of a tensor of theirs
        for part, theirs in zip(dense, family.attention + family.mlp, strict=True):
            begin = ends.get(theirs, 0)
            ends[theirs] = begin + (config.intermediate_size if part in _WIDE else config.hidden_size)
            names += _module(prefix + theirs, f"{layer}/{part}", bias, repeat, begin)
        for part, theirs in zip(norms, family.norms, strict=True):
            if not (config.pre_norm and number == 0 and part == "attention_layer_norm"):
                names += _module(prefix + theirs, f"{layer}/{part}", bias, repeat)
    if config.pre_norm:
        names += _module(family.base + "final_norm", "encoder/final_layer_norm", bias)
    return names


def _layers(config: ModelConfig) -> Iterator[tuple[str, int]]:
    """The path and the repeat of every layer that has parameters of its own, in order."""
    for number, stack in enumerate(layer_stacks(config)):
        for repeat in range(stack.stacked):
            for layer in range(stack.layers):
                yield f"encoder/segment_{number}/layer_{layer}", repeat


def _transform_names(config: ModelConfig, family: Family, head: str) -> list[Name]:
    """The dense layer and the LayerNorm that `head` begins with."""
    dense, norm, _ = family.masked_lm
    return _module(dense, f"{head}/dense", config.use_bias) + _module(norm, f"{head}/layer_norm", config.use_bias)


def _module(theirs: str, ours: str, bias: bool = True, repeat: int | None = None, begin: int = 0) -> list[Name]:
    """The parameters of a dense layer, or of a LayerNorm, at the path `ours`."""
    path, is_norm = ours.split("/"), ours.endswith("layer_norm")
    weight = Name(f"{theirs}.weight", (*path, "scale" if is_norm else "kernel"), repeat, not is_norm, begin=begin)
    return [weight, Name(f"{theirs}.bias", (*path, "bias"), repeat, begin=begin)] if bias else [weight]
