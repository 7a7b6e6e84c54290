"""The one conversion of an `ml_collections.ConfigDict` to the frozen dataclasses of config.py.

Inside bertjax nothing sees a ConfigDict: commands call `from_config_dict` once, at the edge.
"""

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from bertjax.config.pretraining import Config, Phase
from bertjax.config.validation import validate
from bertjax.errors import UserError

T = TypeVar("T")


def from_config_dict(config_dict: Any) -> Config:
    """The checked Config of a ConfigDict or plain dict.

    Raises:
      UserError: an unknown key (the nearest known one is named), a value of another type or out of range.
    """
    return checked(Config, config_dict, validate)


def checked(cls: type[T], config_dict: Any, check: Callable[[T], None]) -> T:
    """The `cls` of a ConfigDict or plain dict, after `check`, which raises UserError for values out of range.

    Raises:
      UserError: as `build`, or what `check` raises.
    """
    values = config_dict.to_dict() if hasattr(config_dict, "to_dict") else config_dict
    config = build(cls, values, "config")
    check(config)
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
    if kind == tuple[Phase, ...]:
        if not isinstance(value, (tuple, list)):
            raise UserError(f"{path} is {value!r}; it must be a tuple of dicts with {', '.join(_names(Phase))}")
        return tuple(build(Phase, phase, f"{path}[{i}]") for i, phase in enumerate(value))
    if kind in (tuple[int, ...], tuple[float, ...]):
        items = kind.__args__[0]
        if not isinstance(value, (tuple, list)) or any(type(item) not in (int, items) for item in value):
            raise UserError(f"{path} is {value!r}; it must be a tuple of {'whole ' * (items is int)}numbers")
        return tuple(map(items, value))
    if dataclasses.is_dataclass(kind):
        return build(kind, value, path)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
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
