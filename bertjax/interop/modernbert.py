"""What ModernBERT's `config.json` says in ways of its own: windows, rotary positions, and what its heads read."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from bertjax import decoding
from bertjax.config.model import ModelConfig
from bertjax.decoding import ShortText, Size
from bertjax.errors import UserError

_CURE = "put it right as the model was trained"
_POOLING = ("ModernBertForSequenceClassification", "ModernBertForMultipleChoice")
_Theta = Annotated[float, msgspec.Meta(gt=0, lt=2**31)]  # a base of rotary positions
_Window = Annotated[int, msgspec.Meta(ge=2, lt=2**31)]  # tokens


@dataclasses.dataclass(frozen=True)
class _Rope:
    """The rotary positions of a kind of layers, in today's spelling."""

    rope_type: ShortText | msgspec.UnsetType = msgspec.UNSET
    type: ShortText | msgspec.UnsetType = msgspec.UNSET
    rope_theta: _Theta | msgspec.UnsetType = msgspec.UNSET


@dataclasses.dataclass(frozen=True)
class _RopeParameters:
    full_attention: _Rope | None = None
    sliding_attention: _Rope | None = None
    rope_theta: _Theta | None = None  # which transformers overlooks


@dataclasses.dataclass(frozen=True)
class _Said:
    """The keys of a config in today's spelling and in an older one; defaults are those of transformers.

    The last two are settings of local attention: `_Local` validates them, if the model has any.
    """

    num_hidden_layers: Size
    global_attn_every_n_layers: Size = 3
    layer_types: list[ShortText] | None = None
    global_rope_theta: _Theta = 160_000.0
    rope_theta: _Theta | None = None  # which transformers overlooks
    rope_parameters: _RopeParameters | None = None
    rope_scaling: dict[str, Any] | None = None
    hidden_activation: ShortText = "gelu"
    classifier_activation: ShortText = "gelu"
    classifier_pooling: ShortText = "cls"
    architectures: list[ShortText] | None = None
    local_attention: Any = 128
    local_rope_theta: Any = 10_000.0


@dataclasses.dataclass(frozen=True)
class _Local:
    """The settings of local attention."""

    local_attention: _Window
    local_rope_theta: _Theta


def read(values: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The fields of ModelConfig that a config spells otherwise, in today's spelling or an older one.

    Raises:
      UserError: it is damaged, or asks for mathematics that bertjax does not have.
    """
    said = decoding.convert(values, _Said, path, _CURE, foreign=True)
    rope = said.rope_parameters or _RopeParameters()
    _check_heads(said, path)
    every = _every(said, path)
    theta = _theta(rope.full_attention, said.global_rope_theta, said, path)
    for other in (said.rope_theta, rope.rope_theta):
        if other not in (None, theta):
            raise UserError(
                f"{path} has rope_theta={other!r}, which transformers does not read; say what is meant "
                "as global_rope_theta and local_rope_theta"
            )
    fields = {"global_rope_theta": theta, "global_attn_every_n_layers": every}
    if every == 1:
        return fields | {"local_attention": 0, "local_rope_theta": 0.0}
    theta = _theta(rope.sliding_attention, said.local_rope_theta, said, path)
    settings = {"local_attention": said.local_attention, "local_rope_theta": theta}
    return fields | vars(decoding.convert(settings, _Local, path, _CURE))


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


def _check_heads(said: _Said, path: Path) -> None:
    if said.classifier_activation != said.hidden_activation:
        raise UserError(
            f"{path} has classifier_activation={said.classifier_activation!r}; bertjax's heads have "
            f"the activation of the layers, hidden_activation={said.hidden_activation!r}"
        )
    if next(iter(said.architectures or ()), "") in _POOLING and said.classifier_pooling != "cls":
        raise UserError(
            f"{path} has classifier_pooling={said.classifier_pooling!r}; bertjax's heads read the first token: "
            "fine-tune the pre-trained model again, with classifier_pooling='cls' or with bertjax"
        )


def _layer_types(layers: int, every: int) -> list[str]:
    return ["sliding_attention" if number % every else "full_attention" for number in range(layers)]


def _every(said: _Said, path: Path) -> int:
    """Every how many layers one sees all; 1 where all do."""
    every, types = said.global_attn_every_n_layers, said.layer_types
    if types is None:
        return every
    found = None
    if len(types) == said.num_hidden_layers:
        full = [number for number, name in enumerate(types) if name == "full_attention"]
        # A model may be too shallow to tell: then what the old key says, or would say by default.
        candidates = (every, full[1] if len(full) > 1 else len(types))
        found = next((n for n in candidates if types == _layer_types(len(types), n)), None)
    if found is None:
        raise UserError(f"{path} has layer_types={types!r}; bertjax has full_attention in layers 0, n, 2n, … alone")
    return found


def _theta(rope: _Rope | None, old: Any, said: _Said, path: Path) -> Any:
    """The base of the rotary positions of a kind of layers; `old` is what the older spelling says."""
    rope = rope or _Rope()
    name = next((name for name in (rope.rope_type, rope.type) if name is not msgspec.UNSET), "default")
    if said.rope_scaling or name != "default":
        asked = f"rope_scaling={said.rope_scaling!r}" if said.rope_scaling else f"rope_type={name!r}"
        raise UserError(f"{path} has {asked}; bertjax's rotary positions have only 'default'")
    return old if rope.rope_theta is msgspec.UNSET else rope.rope_theta
