"""The one conversion of an `ml_collections.ConfigDict` to the frozen dataclasses of this package.

Inside bertjax nothing sees a ConfigDict: commands call `from_config_dict` once, at the edge.
"""

import dataclasses
import difflib
import math
from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_origin

from bertjax.config.pretraining import Config
from bertjax.config.validation import validate
from bertjax.errors import UserError

_LARGEST = 2**1023  # integers below it are floats too

T = TypeVar("T")


def from_config_dict(config_dict: Any) -> Config:
    """The checked Config of a ConfigDict or plain dict.

    Raises:
      UserError: an unknown key (the nearest known one is named), a value of another type or out of range.
    """
    return checked(Config, config_dict)


def checked(cls: type[T], config_dict: Any) -> T:
    """The validated `cls` of a ConfigDict or plain dict.

    Raises:
      UserError: as `build` and `validate`.
    """
    values = config_dict.to_dict() if hasattr(config_dict, "to_dict") else config_dict
    config = build(cls, values, "config")
    validate(config)
    return config


def build(cls: type, values: Any, path: str) -> Any:
    """A dataclass `cls` from a nested dict; `path` is how messages name it.

    Raises:
      UserError: an unknown key (the nearest known one is named), a missing one, a value of another type.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{path} is {values!r}; it must be a dict with keys {', '.join(_names(cls))}")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for name in values:
        if name not in fields:
            nearest = difflib.get_close_matches(str(name), fields, n=1, cutoff=0)
            raise UserError(f"unknown key {path}.{name}; did you mean {path}.{nearest[0]}?")
    missing = [
        name
        for name, field in fields.items()
        if name not in values and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}; it needs {', '.join(_names(cls))}")
    return cls(**{name: _convert(fields[name].type, value, f"{path}.{name}") for name, value in values.items()})


def _convert(kind: Any, value: Any, path: str) -> Any:
    """`value` as a field of type `kind`."""
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        section, whole = dataclasses.is_dataclass(item), "whole " * (item is int)
        if not isinstance(value, (tuple, list)) or not (section or all(type(one) in (int, item) for one in value)):
            needed = f"dicts with {', '.join(_names(item))}" if section else f"{whole}numbers"
            raise UserError(f"{path} is {value!r}; it must be a tuple of {needed}")
        return tuple(_convert(item, one, f"{path}[{index}]") for index, one in enumerate(value))
    if dataclasses.is_dataclass(kind):
        return build(kind, value, path)
    if kind is float and type(value) is int:
        value = float(value) if abs(value) < _LARGEST else math.inf
    if kind is float and type(value) is float and not math.isfinite(value):
        raise UserError(f"{path} is not a finite number; give one")
    if type(value) is not kind:
        raise UserError(f"{path} is {value!r}; it must be of type {kind.__name__}")
    return value


def _names(cls: type) -> list[str]:
    return [field.name for field in dataclasses.fields(cls)]


def default_config(kind: type | None = None) -> Any:
    """Every key of a Config, or of `kind`, with its default: a locked ConfigDict for config files to start from."""
    from ml_collections import ConfigDict

    return ConfigDict(to_dict((kind or Config)())).lock()


def to_dict(config: Any) -> dict[str, Any]:
    """The plain nested dict of a config (tuples stay tuples), as `config.json` holds it."""
    return dataclasses.asdict(config)
