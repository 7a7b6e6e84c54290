"""Validation of configs: every setting against its range, and every config against its own `check`."""

import dataclasses
from typing import Any

from bertjax.config.fields import Setting, setting_of
from bertjax.errors import UserError


def require(ok: bool, path: str, value: Any, rule: str) -> None:
    """Raises UserError with the path of the setting, its value and the rule unless `ok`."""
    if not ok:
        raise UserError(f"config.{path} is {value!r}; it must be {rule}")


def validate(config: Any, path: str = "") -> None:
    """Raises UserError for settings that are out of range or contradict one another.

    A config dataclass may have a method `check` for rules that relate several settings; it runs after the ranges of
    that dataclass and all its sections have been checked. `path` precedes the names of settings in messages: "model.".
    """
    for field in dataclasses.fields(config):
        _validate_value(getattr(config, field.name), setting_of(field), path + field.name)
    if hasattr(config, "check"):
        config.check()


def _validate_value(value: Any, described: Setting, path: str) -> None:
    if dataclasses.is_dataclass(value):
        validate(value, f"{path}.")
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            _validate_value(item, described, f"{path}[{index}]")
    elif described.allowed is not None:
        require(value in described.allowed, path, value, described.rule)
