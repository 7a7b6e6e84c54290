"""What ModernBERT's `config.json` says in ways of its own: windows, rotary positions, and what its heads read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bertjax.config.model import ModelConfig
from bertjax.errors import UserError

# What transformers takes where a config says nothing.
_EVERY, _WINDOW, _GLOBAL_THETA, _LOCAL_THETA = 3, 128, 160_000.0, 10_000.0
_LARGEST = 2**31  # of numbers of layers and tokens; bases of rotary positions are far below
_POOLING = ("ModernBertForSequenceClassification", "ModernBertForMultipleChoice")


def read(values: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The fields of ModelConfig that a config spells otherwise, in today's spelling or an older one.

    Raises:
      UserError: it asks for mathematics that bertjax does not have.
    """
    _check_heads(values, path)
    every = _every(values, path)
    theta = _theta(values, "full_attention", "global_rope_theta", _GLOBAL_THETA, path)
    for place in (values, _mapping(values, "rope_parameters", path)):  # transformers overlooks these
        if place.get("rope_theta", theta) != theta:
            raise UserError(
                f"{path} has rope_theta={place['rope_theta']!r}, which transformers does not read; say what is meant "
                "as global_rope_theta and local_rope_theta"
            )
    fields = {"global_rope_theta": theta, "global_attn_every_n_layers": every}
    if every == 1:
        return fields | {"local_attention": 0, "local_rope_theta": 0.0}
    window = values.get("local_attention", _WINDOW)
    if type(window) is not int or not 2 <= window < _LARGEST:
        raise UserError(f"{path} has local_attention={window!r}; expected a number of tokens, at least 2")
    local = _theta(values, "sliding_attention", "local_rope_theta", _LOCAL_THETA, path)
    return fields | {"local_attention": window, "local_rope_theta": local}


def written(config: ModelConfig) -> dict[str, Any]:
    """What a config says of these fields, in both spellings, so that older versions of transformers read it as well.

    Raises:
      UserError: the model has no rotary positions.
    """
    if not config.global_rope_theta:
        raise UserError("the ModernBert of transformers has rotary positions; this model has learned ones")
    thetas = {"full_attention": config.global_rope_theta}
    values: dict[str, Any] = {"global_rope_theta": config.global_rope_theta}
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
        # Else those of its own tokenizer would be taken.
        **dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")),
    }


def _check_heads(values: Mapping[str, Any], path: Path) -> None:
    act, head_act = (values.get(f"{part}_activation", "gelu") for part in ("hidden", "classifier"))
    if head_act != act:
        raise UserError(
            f"{path} has classifier_activation={head_act!r}; bertjax's heads have "
            f"the activation of the layers, hidden_activation={act!r}"
        )
    architectures = values.get("architectures") or [None]
    pooling = values.get("classifier_pooling", "cls")
    if architectures[0] in _POOLING and pooling != "cls":
        raise UserError(
            f"{path} has classifier_pooling={pooling!r}; bertjax's heads read the first token: fine-tune the "
            "pre-trained model again, with classifier_pooling='cls' or with bertjax"
        )


def _layer_types(layers: int, every: int) -> list[str]:
    return ["sliding_attention" if number % every else "full_attention" for number in range(layers)]


def _every(values: Mapping[str, Any], path: Path) -> int:
    """Every how many layers one sees all; 1 where all do."""
    every, types = values.get("global_attn_every_n_layers", _EVERY), values.get("layer_types")
    if type(every) is not int or not 1 <= every < _LARGEST:
        raise UserError(f"{path} has global_attn_every_n_layers={every!r}; expected a number of layers")
    if types is None:
        return every
    found = None
    if isinstance(types, list) and len(types) == values.get("num_hidden_layers"):
        full = [number for number, name in enumerate(types) if name == "full_attention"]
        # A model may be too shallow to tell: then what the old key says, or would say by default.
        candidates = (every, full[1] if len(full) > 1 else len(types))
        found = next((n for n in candidates if n and types == _layer_types(len(types), n)), None)
    if found is None:
        raise UserError(f"{path} has layer_types={types!r}; bertjax has full_attention in layers 0, n, 2n, … alone")
    return found


def _theta(values: Mapping[str, Any], kind: str, old: str, default: float, path: Path) -> float:
    """The base of the rotary positions of a kind of layers."""
    rope = _mapping(_mapping(values, "rope_parameters", path), kind, path)
    scaling = values.get("rope_scaling")
    name = rope.get("rope_type", rope.get("type", "default"))
    if name != "default" or scaling:
        asked = f"rope_scaling={scaling!r}" if scaling else f"rope_type={name!r}"
        raise UserError(f"{path} has {asked}; bertjax's rotary positions have only 'default'")
    theta = rope.get("rope_theta", values.get(old, default))
    if type(theta) not in (int, float) or not 0 < theta < _LARGEST:
        raise UserError(f"{path} has {old}={theta!r}; expected a number like {default!r}")
    return float(theta)


def _mapping(values: Mapping[str, Any], key: str, path: Path) -> Mapping[str, Any]:
    """An object in a config; an empty one where there is none."""
    found = values.get(key) or {}
    if not isinstance(found, Mapping):
        raise UserError(f"{path} has {key}={found!r}; expected an object")
    return found
