"""The fields of the config dataclasses: beside its default each carries its meaning, its range and its resume rule.

`validation.py` checks the ranges and words the errors from them; `resume.py` reads the resume rules.
"""

import dataclasses
import enum
from typing import Any

REQUIRED = dataclasses.MISSING  # as the default of a setting that has none


class Resume(enum.Enum):
    """Whether a run that is resumed may change a setting. Of a section that is FREE all settings are."""

    FIXED = "It may not: the setting changes the mathematics."
    FREE = "It may."
    PAST = "Only in steps that are still to come; the setting is a tuple of phases with `steps`."


@dataclasses.dataclass(frozen=True)
class Range:
    """An interval of numbers; `special` is a single number that is allowed as well."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    special: float | None = None

    def __contains__(self, value: float) -> bool:
        inside = (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )
        return inside or value == self.special

    def __str__(self) -> str:
        bounds = {"at least": self.at_least, "above": self.above, "at most": self.at_most, "below": self.below}
        interval = " and ".join(f"{word} {bound}" for word, bound in bounds.items() if bound is not None)
        return interval if self.special is None else f"{self.special}, or {interval}"


class LocalPath:
    """A path on this machine, or nothing."""

    def __contains__(self, value: str) -> bool:
        return "://" not in value

    def __str__(self) -> str:
        return "a path on this machine, as other storage is not read yet: copy it here, or mount it"


LOCAL_PATH = LocalPath()
FRACTION = Range(at_least=0, at_most=1)
DROPOUT = Range(at_least=0, below=1)
POSITIVE = Range(above=0)
NON_NEGATIVE = Range(at_least=0)
AT_LEAST_ONE = Range(at_least=1)


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a field says about itself. `allowed` holds for each item where the field is a tuple."""

    meaning: str
    allowed: Range | LocalPath | tuple[str, ...] | None = None
    resume: Resume = Resume.FIXED

    @property
    def rule(self) -> str:
        """The allowed values in words, to follow "must be"."""
        if isinstance(self.allowed, tuple):
            return "one of " + ", ".join(name or "''" for name in self.allowed)
        return str(self.allowed)


def setting(default: Any, meaning: str, allowed: Any = None, resume: Resume = Resume.FIXED) -> Any:
    """A dataclass field with its meaning, the range or the names that it allows, and its resume rule.

    The default of a section is its class: each config gets a new instance.
    """
    return _field(default, Setting(meaning, allowed, resume))


def same_setting(default: Any, cls: type, name: str) -> Any:
    """A dataclass field that is described as the one of this name in another config; only the default is its own."""
    return _field(default, setting_of(cls.__dataclass_fields__[name]))


def setting_of(field: dataclasses.Field) -> Setting:
    """What a field made by `setting` says about itself."""
    return field.metadata["setting"]


def _field(default: Any, described: Setting) -> Any:
    metadata = {"setting": described}
    if isinstance(default, type):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)
