"""Metadata of config fields: each carries its description, its allowed values and its resume rule.

`validation.py` checks the allowed values; `resume.py` applies the resume rules.
"""

import dataclasses
import enum
from typing import Any, ClassVar, Protocol, TypeAlias, TypeGuard, TypeVar

T = TypeVar("T")

REQUIRED: Any = dataclasses.MISSING  # the default of a setting without a default


class Dataclass(Protocol):
    """An instance of any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[object]]]


class Resume(enum.Enum):
    """Whether a resumed run may change a setting. In a section that is FREE, this holds for every setting."""

    FIXED = "Must not change: it affects the result."
    FREE = "May change."
    PAST = "May change for future steps only; the setting is a tuple of phases with `steps`."


@dataclasses.dataclass(frozen=True)
class Range:
    """An interval of numbers; `special` is one more allowed number outside it."""

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
    """A path on this machine, or an empty string."""

    def __contains__(self, value: str) -> bool:
        return "://" not in value

    def __str__(self) -> str:
        return "a path on this machine; copy remote files here, or mount the storage"


Allowed: TypeAlias = Range | LocalPath | tuple[str, ...]

LOCAL_PATH = LocalPath()
FRACTION = Range(at_least=0, at_most=1)
DROPOUT = Range(at_least=0, below=1)
POSITIVE = Range(above=0)
NON_NEGATIVE = Range(at_least=0)
AT_LEAST_ONE = Range(at_least=1)


@dataclasses.dataclass(frozen=True)
class Setting:
    """Metadata of a config field. In a tuple, `allowed` applies to each item."""

    meaning: str
    allowed: Allowed | None = None
    resume: Resume = Resume.FIXED

    @property
    def rule(self) -> str:
        """The allowed values in words, to follow "must be"."""
        if isinstance(self.allowed, tuple):
            return "one of " + ", ".join(name or "''" for name in self.allowed)
        return str(self.allowed)


def setting(default: T | type[T], meaning: str, allowed: Allowed | None = None, resume: Resume = Resume.FIXED) -> T:
    """Returns a dataclass field with a description, its allowed values and its resume rule.

    The default of a section is its class: each config gets a new instance.
    """
    return _field(default, Setting(meaning, allowed, resume))


def same_setting(default: T | type[T], cls: type[Dataclass], name: str) -> T:
    """Returns a dataclass field with the metadata of field `name` of `cls`, and its own default."""
    return _field(default, setting_of(cls.__dataclass_fields__[name]))


def setting_of(field: dataclasses.Field) -> Setting:
    """Returns the metadata of a field created by `setting`."""
    return field.metadata["setting"]


def is_section(value: object) -> TypeGuard[Dataclass]:
    """Whether the value of a setting is a section of the config."""
    return dataclasses.is_dataclass(value)


def _field(default: T | type[T], metadata: Setting) -> T:
    if isinstance(default, type):
        return dataclasses.field(default_factory=default, metadata={"setting": metadata})
    return dataclasses.field(default=default, metadata={"setting": metadata})
