"""Conversion of an `ml_collections.ConfigDict` to the frozen dataclasses of this package.

Commands call `from_config_dict` once; the rest of bertjax never handles a ConfigDict.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Protocol, TypeVar, get_args, get_origin, runtime_checkable

from bertjax.config.equivalents import unknown_key
from bertjax.config.fields import Dataclass
from bertjax.config.pretraining import Config
from bertjax.config.validation import validate
from bertjax.errors import UserError

_LARGEST = 2**1023  # smaller integers can be converted to float

T = TypeVar("T", bound=Dataclass)


@runtime_checkable
class _HasToDict(Protocol):
    def to_dict(self) -> dict[str, object]: ...


def from_config_dict(config_dict: object) -> Config:
    """Returns the validated Config of a ConfigDict or plain dict.

    Raises:
      UserError: an unknown key (the message suggests the nearest key), a wrong type or a value out of range.
    """
    return checked(Config, config_dict)


def checked(cls: type[T], config_dict: object) -> T:
    """Returns the validated `cls` of a ConfigDict or plain dict.

    Raises:
      UserError: see `build` and `validate`.
    """
    values = config_dict.to_dict() if isinstance(config_dict, _HasToDict) else config_dict
    config = build(cls, values, "config")
    validate(config)
    return config


def build(cls: type[T], values: object, path: str) -> T:
    """Returns a dataclass `cls` built from a nested dict; messages call it `path`.

    Raises:
      UserError: an unknown key (the message suggests the nearest key), a missing key or a wrong type.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{path} is {values!r}; it must be a dict with keys {', '.join(_names(cls))}")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for name in values:
        if name not in fields:
            finetuning = cls.__module__ == "bertjax.config.finetuning"
            raise UserError(unknown_key(path, str(name), fields, finetuning))
    missing = [
        name
        for name, field in fields.items()
        if name not in values and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}; it needs {', '.join(_names(cls))}")
    return cls(**{name: _convert(fields[name].type, value, f"{path}.{name}") for name, value in values.items()})


def _convert(kind: Any, value: object, path: str) -> object:  # noqa: ANN401
    """Returns `value` as a field of type `kind`."""
    if get_origin(kind) is tuple:
        item_kind = get_args(kind)[0]
        section, whole = dataclasses.is_dataclass(item_kind), "whole " * (item_kind is int)
        if not isinstance(value, (tuple, list)) or not (section or all(type(x) in (int, item_kind) for x in value)):
            needed = f"dicts with {', '.join(_names(item_kind))}" if section else f"{whole}numbers"
            raise UserError(f"{path} is {value!r}; it must be a tuple of {needed}")
        return tuple(_convert(item_kind, item, f"{path}[{index}]") for index, item in enumerate(value))
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return build(kind, value, path)
    if kind is float and type(value) is int:
        value = float(value) if abs(value) < _LARGEST else math.inf
    if kind is float and type(value) is float and not math.isfinite(value):
        raise UserError(f"{path} is not a finite number; give a finite one")
    if type(value) is not kind:
        raise UserError(f"{path} is {value!r}; it must be of type {kind.__name__}")
    return value


def _names(cls: type[Dataclass]) -> list[str]:
    return [field.name for field in dataclasses.fields(cls)]


def default_config(kind: type[Dataclass] | None = None) -> Any:  # noqa: ANN401
    """Returns a locked ConfigDict with every key of `kind` (default: Config), from which config files start."""
    from ml_collections import ConfigDict

    return ConfigDict(to_dict((kind or Config)())).lock()


def to_dict(config: Dataclass) -> dict[str, object]:
    """Returns a config as a plain nested dict (tuples stay tuples), as `config.json` stores it."""
    return dataclasses.asdict(config)
