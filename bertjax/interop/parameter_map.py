"""Where each of our parameters stands in a Hugging Face model; bertjax/interop/families.py has the names."""

import dataclasses
from collections.abc import Iterator

from bertjax.config.model import ModelConfig
from bertjax.interop.families import FAMILIES, Family
from bertjax.model.layer_stacks import layer_stacks
from bertjax.tasks.kinds.base import TaskKind

_WIDE = (("intermediate",), ("gate",))  # what is intermediate_size wide


@dataclasses.dataclass(frozen=True)
class Name:
    """One tensor of theirs, and its place in our tree."""

    theirs: str
    path: tuple[str, ...]
    repeat: int | None = None  # index into the repeats of a stack
    transposed: bool = False
    rows: int | None = None  # the first rows of ours, which are padded; None takes all
    begin: int = 0  # the row of theirs where ours begins; rows that no name covers stand for nothing


def class_name(config: ModelConfig, kind: TaskKind) -> str:
    """The class of `transformers` for a model that is fine-tuned for a kind of task."""
    return FAMILIES[config.model_type].classes + kind.transformers_class


def pretraining_names(config: ModelConfig, pairs: bool, offset: int = 0) -> list[Name]:
    """Every parameter of a model for pre-training, without `pairs` of one for masked language modelling.

    The copies that tying makes (`….decoder.*`) are not among them. `offset`: see `position_offset`.
    """
    family, bias = FAMILIES[config.model_type], config.use_bias
    names = _encoder_names(config, family, offset)
    names += _dense(family.masked_lm["dense"], ("masked_lm_head", "dense"), bias)
    names += _norm(family.masked_lm["layer_norm"], ("masked_lm_head", "layer_norm"), bias)
    names.append(Name(family.masked_lm["bias"], ("masked_lm_head", "bias"), rows=config.vocab_size))
    if pairs:
        names += _dense(family.base + family.pooler, ("pooler",), bias)
        names += _dense(family.pair_head, (f"{family.pairs}_head",))
    return names


def fine_tuned_names(config: ModelConfig, kind: TaskKind, offset: int = 0) -> list[Name]:
    """Every parameter of a model that is fine-tuned for a kind of task."""
    family, bias = FAMILIES[config.model_type], config.use_bias
    names = _encoder_names(config, family, offset)
    if kind.bi_encoder:
        return names
    if config.prediction_head:
        dense, norm = family.prediction_head
        names += _dense(dense, ("prediction_head", "dense"), bias)
        names += _norm(norm, ("prediction_head", "layer_norm"), bias)
        return names + _dense("classifier", ("task_head",))
    usual = (family.base + family.pooler, kind.transformers_head)
    pooler, head = family.heads.get(class_name(config, kind), usual)
    if kind.pooled:
        names += _dense(pooler, ("pooler",), bias)
    return names + _dense(head, ("task_head",))


def position_offset(config: ModelConfig, pad_id: int) -> int:
    """The rows of their table of positions before the first one that is used."""
    return pad_id + 1 if FAMILIES[config.model_type].offset else 0


def _encoder_names(config: ModelConfig, family: Family, offset: int) -> list[Name]:
    bias = config.use_bias

    def table(theirs: str, ours: str, **more: int) -> Name:
        return Name(f"{family.base}{theirs}.weight", ("embeddings", ours, "embedding"), **more)

    names = [table(family.words, "word_embeddings", rows=config.vocab_size)]
    if not config.global_rope_theta:
        names.append(table("embeddings.position_embeddings", "position_embeddings", begin=offset))
    if config.type_vocab_size:
        names.append(table("embeddings.token_type_embeddings", "token_type_embeddings"))
    names += _norm(family.base + family.embedding_norm, ("embeddings", "layer_norm"), bias)
    if config.embedding_size:
        names += _dense(family.base + family.projection, ("embeddings", "projection"), bias)
    for number, (path, repeat) in enumerate(_layers(config)):
        prefix = family.base + family.layer.format(number)
        ends: dict[str, int] = {}  # of what is there of a tensor of theirs
        for ours, theirs in family.dense.items():
            begin = ends.get(theirs, 0)
            ends[theirs] = begin + (config.intermediate_size if ours in _WIDE else config.hidden_size)
            names += _dense(prefix + theirs, (*path, *ours), bias, repeat, begin)
        for ours, theirs in family.norm.items():
            if not (config.pre_norm and number == 0 and ours == ("attention_layer_norm",)):
                names += _norm(prefix + theirs, (*path, *ours), bias, repeat)
    if config.pre_norm:
        names += _norm(family.base + family.final_norm, ("encoder", "final_layer_norm"), bias)
    return names


def _layers(config: ModelConfig) -> Iterator[tuple[tuple[str, ...], int]]:
    """The path and the repeat of every layer that has parameters of its own, in order."""
    for number, stack in enumerate(layer_stacks(config)):
        for repeat in range(stack.stacked):
            for layer in range(stack.layers):
                yield ("encoder", f"segment_{number}", f"layer_{layer}"), repeat


def _dense(
    theirs: str, path: tuple[str, ...], bias: bool = True, repeat: int | None = None, begin: int = 0
) -> list[Name]:
    names = [Name(f"{theirs}.weight", (*path, "kernel"), repeat, transposed=True, begin=begin)]
    return [*names, Name(f"{theirs}.bias", (*path, "bias"), repeat, begin=begin)] if bias else names


def _norm(theirs: str, path: tuple[str, ...], bias: bool, repeat: int | None = None) -> list[Name]:
    names = [Name(f"{theirs}.weight", (*path, "scale"), repeat)]
    return [*names, Name(f"{theirs}.bias", (*path, "bias"), repeat)] if bias else names
