"""What a fine-tuned model says about itself, as its checkpoints carry it."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from bertjax.config.finetuning import FEATURES
from bertjax.config.model import POOLINGS, DenseLayer
from bertjax.decoding import Count, Finite, ShortText, Size


@dataclasses.dataclass(frozen=True)
class TokenLimits:
    """Tokens: of a row, of the overlap of two windows, of a question and of an answer."""

    length: Size = 128
    stride: Count = 64
    question_length: Size = 64
    answer_length: Size = 30


@dataclasses.dataclass(frozen=True)
class SentenceMetadata:
    """How a text becomes a vector (Reimers & Gurevych 2019, arXiv:1908.10084)."""

    pooling: Literal[POOLINGS] = "mean"  # of the last layer's states, [CLS] and [SEP] included: mean, cls, max
    normalize: bool = False  # to length 1
    lowest: Finite = 0.0  # similarity: the label that stands for the cosine 0
    highest: Finite = 5.0  # similarity: the label that stands for the cosine 1
    length: Size | None = None  # tokens per text; None: as many as the model reads
    dense: tuple[DenseLayer, ...] = ()  # between pooling and normalisation
    prompts: Mapping[ShortText, ShortText] = dataclasses.field(default_factory=dict)  # name → what a text begins with
    prompt: ShortText = ""  # the name of the one that is used by default; "": none
    include_prompt: bool = True  # whether the tokens of a prompt are pooled too


@dataclasses.dataclass(frozen=True)
class TaskMetadata:
    """The task that a model is fine-tuned for."""

    name: ShortText  # of tasks/registry.py; "" where unknown
    kind: ShortText
    labels: tuple[str, ...] = ()  # the classes, in the order of the model's outputs
    limits: TokenLimits | None = None  # None where unknown
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)  # of the user's own table
    threshold: float | None = None  # span: null_odds above which a question has no answer
    features: Literal["", *FEATURES] = ""  # of a frozen encoder; "": the whole model is fine-tuned
    sentence: SentenceMetadata | None = None  # of texts that are encoded on their own
    run: Mapping[str, Any] | None = None  # of the sweep: its settings and scores
