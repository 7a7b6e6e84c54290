"""Validation of configs: every setting against its allowed values, and every config with its own `check`."""

import dataclasses
from typing import Any

from bertjax.config.fields import Dataclass, Setting, is_section, setting_of
from bertjax.errors import UserError


def require(ok: bool, path: str, value: object, rule: str) -> None:
    """Raises UserError with the path of the setting, its value and the rule unless `ok`."""
    if not ok:
        raise UserError(f"config.{path} is {value!r}; it must be {rule}")


def validate(config: Dataclass, path: str = "") -> None:
    """Raises UserError if a setting is out of range or contradicts another.

    A config dataclass may define a method `check` for rules that relate several settings; it runs after the allowed
    values of that dataclass and all its sections. Messages prefix the names of settings with `path`, such as "model.".
    """
    for field in dataclasses.fields(config):
        _validate_value(getattr(config, field.name), setting_of(field), path + field.name)
    check = getattr(config, "check", None)
    if check is not None:
        check()


def _validate_value(value: Any, metadata: Setting, path: str) -> None:  # noqa: ANN401
    if is_section(value):
        validate(value, f"{path}.")
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            _validate_value(item, metadata, f"{path}[{index}]")
    elif metadata.allowed is not None:
        require(value in metadata.allowed, path, value, metadata.rule)
