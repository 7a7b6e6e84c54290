"""Metadata of a fine-tuned model, stored in its checkpoints."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from bertjax.config.model import DenseLayer
from bertjax.decoding import Count, Finite, ShortText, Size


@dataclasses.dataclass(frozen=True)
class TokenLimits:
    """Limits in tokens: of a sequence, of the overlap of two windows, of a question and of an answer."""

    length: Size = 128
    stride: Count = 64
    question_length: Size = 64
    answer_length: Size = 30


@dataclasses.dataclass(frozen=True)
class SentenceMetadata:
    """How a text becomes a vector (Reimers & Gurevych 2019, arXiv:1908.10084)."""

    pooling: Literal["mean", "cls", "max"] = "mean"  # of the last hidden states, [CLS] and [SEP] included
    normalize: bool = False  # to length 1
    lowest: Finite = 0.0  # similarity: label at cosine 0
    highest: Finite = 5.0  # similarity: label at cosine 1
    length: Size | None = None  # maximum tokens per text; None: the model's maximum
    dense: tuple[DenseLayer, ...] = ()  # layers between pooling and normalization
    prompts: Mapping[ShortText, ShortText] = dataclasses.field(default_factory=dict)  # name → prefix of each text
    prompt: ShortText = ""  # name of the default prompt; "": none
    include_prompt: bool = True  # pool the tokens of the prompt too


@dataclasses.dataclass(frozen=True)
class TaskMetadata:
    """The task that a model is fine-tuned for."""

    name: ShortText  # in tasks/registry.py; "" if unknown
    kind: ShortText
    labels: tuple[str, ...] = ()  # class names in the order of the model's outputs
    limits: TokenLimits | None = None  # None if unknown
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)  # of the user's table
    threshold: float | None = None  # span: null odds above which a question is predicted to have no answer
    features: Literal["", "last", "concat_last_4", "weighted_sum"] = (
        ""  # of a frozen encoder; "": all parameters were fine-tuned
    )
    sentence: SentenceMetadata | None = None  # bi-encoders only
    run: Mapping[str, object] | None = None  # settings and scores of the sweep's best run
