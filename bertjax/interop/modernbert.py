"""Reads and writes the keys that only ModernBERT's `config.json` has: windows, rotary positions and heads."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from bertjax import decoding
from bertjax.config.model import ModelConfig
from bertjax.decoding import ShortText, Size
from bertjax.errors import UserError

_T = TypeVar("_T")

_REMEDY = "restore the values that the model was trained with"
_POOLING = ("ModernBertForSequenceClassification", "ModernBertForMultipleChoice")
_Theta = Annotated[float, msgspec.Meta(gt=0, lt=2**31)]  # a base of rotary positions
_Window = Annotated[int, msgspec.Meta(ge=2, lt=2**31)]  # tokens


@dataclasses.dataclass(frozen=True)
class _Rope:
    """The rotary positions of global or local layers, in the current format."""

    rope_type: ShortText | msgspec.UnsetType = msgspec.UNSET
    type: ShortText | msgspec.UnsetType = msgspec.UNSET
    rope_theta: _Theta | msgspec.UnsetType = msgspec.UNSET


@dataclasses.dataclass(frozen=True)
class _RopeParameters:
    full_attention: _Rope | None = None
    sliding_attention: _Rope | None = None
    rope_theta: _Theta | None = None  # ignored by transformers


@dataclasses.dataclass(frozen=True)
class _Keys:
    """The keys of a config in the current and the older format; defaults are those of transformers.

    `local_attention` and `local_rope_theta` are validated as `_Local`, if the model has local attention.
    """

    num_hidden_layers: Size
    global_attn_every_n_layers: Size = 3
    layer_types: list[ShortText] | None = None
    global_rope_theta: _Theta = 160_000.0
    rope_theta: _Theta | None = None  # ignored by transformers
    rope_parameters: _RopeParameters | None = None
    rope_scaling: dict[str, object] | None = None
    hidden_activation: ShortText = "gelu"
    classifier_activation: ShortText = "gelu"
    classifier_pooling: ShortText = "cls"
    architectures: list[ShortText] | None = None
    local_attention: object = 128
    local_rope_theta: object = 10_000.0


@dataclasses.dataclass(frozen=True)
class _Local:
    """The settings of local attention."""

    local_attention: _Window
    local_rope_theta: _Theta


def read_config(values: Mapping[str, object], path: Path) -> dict[str, object]:
    """Returns the fields of ModelConfig that ModernBERT's configs express in the current or the older format.

    Raises:
      UserError: a value is damaged, or needs computations that bertjax lacks.
    """
    keys = decoding.convert(values, _Keys, path, _REMEDY, foreign=True)
    rope = keys.rope_parameters or _RopeParameters()
    _check_heads(keys, path)
    period = _global_layer_period(keys, path)
    global_theta = _theta(rope.full_attention, keys.global_rope_theta, keys, path)
    for ignored_theta in (keys.rope_theta, rope.rope_theta):
        if ignored_theta not in (None, global_theta):
            raise UserError(
                f"{path}: rope_theta={ignored_theta!r}, which transformers ignores; set global_rope_theta and "
                "local_rope_theta instead"
            )
    fields: dict[str, object] = {"global_rope_theta": global_theta, "global_attn_every_n_layers": period}
    if period == 1:
        return fields | {"local_attention": 0, "local_rope_theta": 0.0}
    local_theta = _theta(rope.sliding_attention, keys.local_rope_theta, keys, path)
    local = {"local_attention": keys.local_attention, "local_rope_theta": local_theta}
    return fields | vars(decoding.convert(local, _Local, path, _REMEDY))


def config_values(config: ModelConfig) -> dict[str, object]:
    """Returns these keys for an exported model, in both formats, which older versions of transformers read as well.

    Raises:
      UserError: the model has no rotary positions.
    """
    if not config.global_rope_theta:
        raise UserError(
            "model.model_type=modernbert: ModernBert in transformers requires rotary positions, and this model has "
            "learned ones; choose the model.model_type that fits, or use the model with bertjax only"
        )
    thetas = {"full_attention": config.global_rope_theta}
    values: dict[str, object] = {"global_rope_theta": config.global_rope_theta}
    if config.local_attention:
        thetas["sliding_attention"] = config.local_rope_theta
        values |= {"local_rope_theta": config.local_rope_theta, "local_attention": config.local_attention}
    return values | {
        "global_attn_every_n_layers": config.global_attn_every_n_layers,
        "layer_types": _layer_types(config.num_hidden_layers, config.global_attn_every_n_layers),
        "rope_parameters": {name: {"rope_type": "default", "rope_theta": theta} for name, theta in thetas.items()},
        "embedding_dropout": config.hidden_dropout_prob,
        "classifier_dropout": config.hidden_dropout_prob,
        "classifier_activation": config.hidden_act,
        "classifier_pooling": "cls",
        # Without these, transformers uses the ids of ModernBERT's own tokenizer.
        **dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")),
    }


def _check_heads(keys: _Keys, path: Path) -> None:
    if keys.classifier_activation != keys.hidden_activation:
        raise UserError(
            f"{path}: classifier_activation={keys.classifier_activation!r} is not supported; bertjax's heads use the "
            f"activation of the layers, hidden_activation={keys.hidden_activation!r}"
        )
    if next(iter(keys.architectures or ()), "") in _POOLING and keys.classifier_pooling != "cls":
        raise UserError(
            f"{path}: classifier_pooling={keys.classifier_pooling!r} is not supported, because bertjax's heads read "
            "the first token; fine-tune the pre-trained model again, with classifier_pooling='cls' or with bertjax"
        )


def _layer_types(layers: int, period: int) -> list[str]:
    return ["sliding_attention" if number % period else "full_attention" for number in range(layers)]


def _global_layer_period(keys: _Keys, path: Path) -> int:
    """The n for which layers 0, n, 2n, … have global attention; 1 if all do."""
    types, layers = keys.layer_types, keys.num_hidden_layers
    if types is None:
        return keys.global_attn_every_n_layers
    if len(types) == layers:
        global_layers = [number for number, name in enumerate(types) if name == "full_attention"]
        # A shallow model fits several periods: the older key, or its default, comes first.
        for period in (keys.global_attn_every_n_layers, global_layers[1] if len(global_layers) > 1 else layers):
            if types == _layer_types(layers, period):
                return period
    raise UserError(
        f"{path}: layer_types={types!r} is not supported; bertjax has full_attention in exactly the layers 0, n, 2n, …"
    )


def _theta(rope: _Rope | None, older: _T, keys: _Keys, path: Path) -> _T | float:
    """The base of the rotary positions of global or local layers; `older` is the value in the older format."""
    rope = rope or _Rope()
    name = next((name for name in (rope.rope_type, rope.type) if name is not msgspec.UNSET), "default")
    if keys.rope_scaling or name != "default":
        option = f"rope_scaling={keys.rope_scaling!r}" if keys.rope_scaling else f"rope_type={name!r}"
        raise UserError(f"{path}: {option} is not supported; bertjax's rotary positions have only 'default'")
    return older if rope.rope_theta is msgspec.UNSET else rope.rope_theta
