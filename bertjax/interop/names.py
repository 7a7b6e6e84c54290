"""Where each of our parameters stands in a Hugging Face BERT."""

import dataclasses
from collections.abc import Iterator

from bertjax.config import ModelConfig
from bertjax.model.encoder import segments
from bertjax.model.finetuning import POOLED

# Ours → theirs. Kernels are [in, out] here and [out, in] there.
_EMBEDDINGS = {
    ("word_embeddings", "embedding"): "word_embeddings.weight",
    ("position_embeddings", "embedding"): "position_embeddings.weight",
    ("token_type_embeddings", "embedding"): "token_type_embeddings.weight",
}
_LAYER_DENSE = {
    ("attention", "query"): "attention.self.query",
    ("attention", "key"): "attention.self.key",
    ("attention", "value"): "attention.self.value",
    ("attention", "output"): "attention.output.dense",
    ("intermediate",): "intermediate.dense",
    ("output",): "output.dense",
}
_LAYER_NORM = {
    ("attention_layer_norm",): "attention.output.LayerNorm",
    ("output_layer_norm",): "output.LayerNorm",
}


@dataclasses.dataclass(frozen=True)
class Name:
    """One tensor of theirs, and its place in our tree."""

    theirs: str
    path: tuple[str, ...]
    repeat: int | None = None  # index into the stacked repeats of a segment
    transposed: bool = False
    rows: int | None = None  # the first rows of ours, which are padded; None takes all


def bert_names(config: ModelConfig, next_sentence: bool) -> list[Name]:
    """Every parameter of a BertForPreTraining, without `next_sentence` of a BertForMaskedLM.

    The copies that tying makes (`cls.predictions.decoder.*`) are not among them.
    """
    names = _encoder_names(config)
    names += _dense("cls.predictions.transform.dense", ("masked_lm_head", "dense"))
    names += _norm("cls.predictions.transform.LayerNorm", ("masked_lm_head", "layer_norm"))
    names.append(Name("cls.predictions.bias", ("masked_lm_head", "bias"), rows=config.vocab_size))
    if next_sentence:
        names += _dense("bert.pooler.dense", ("pooler",))
        names += _dense("cls.seq_relationship", ("next_sentence_head",))
    return names


def fine_tuned_names(config: ModelConfig, kind: str) -> list[Name]:
    """Every parameter of a BERT that is fine-tuned for a kind of task (`bertjax.tasks.task.KINDS`)."""
    names = _encoder_names(config)
    if kind in POOLED:
        names += _dense("bert.pooler.dense", ("pooler",))
    return names + _dense("qa_outputs" if kind == "span" else "classifier", ("task_head",))


def _encoder_names(config: ModelConfig) -> list[Name]:
    names = []
    for ours, theirs in _EMBEDDINGS.items():
        rows = config.vocab_size if "word_embeddings" in ours else None
        names.append(Name("bert.embeddings." + theirs, ("embeddings", *ours), rows=rows))
    names += _norm("bert.embeddings.LayerNorm", ("embeddings", "layer_norm"))
    for number, (path, repeat) in enumerate(_layers(config)):
        prefix = f"bert.encoder.layer.{number}."
        for ours, theirs in _LAYER_DENSE.items():
            names += _dense(prefix + theirs, (*path, *ours), repeat)
        for ours, theirs in _LAYER_NORM.items():
            names += _norm(prefix + theirs, (*path, *ours), repeat)
    return names


def _layers(config: ModelConfig) -> Iterator[tuple[tuple[str, ...], int]]:
    """The path and the repeat of every layer, in order."""
    for number, segment in enumerate(segments(config)):
        for repeat in range(segment.repeats):
            for layer in range(segment.layers):
                yield ("encoder", f"segment_{number}", f"layer_{layer}"), repeat


def _dense(theirs: str, path: tuple[str, ...], repeat: int | None = None) -> list[Name]:
    return [
        Name(f"{theirs}.weight", (*path, "kernel"), repeat, transposed=True),
        Name(f"{theirs}.bias", (*path, "bias"), repeat),
    ]


def _norm(theirs: str, path: tuple[str, ...], repeat: int | None = None) -> list[Name]:
    return [
        Name(f"{theirs}.weight", (*path, "scale"), repeat),
        Name(f"{theirs}.bias", (*path, "bias"), repeat),
    ]
