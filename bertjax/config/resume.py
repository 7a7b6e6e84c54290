"""Which settings a resumed run may change, by the resume rules of the fields.

pretraining/build.py and finetuning/run.py refuse a run for it.
"""

import dataclasses
from typing import Any

from bertjax.config.fields import Resume, setting_of


def resume_conflict(saved: Any, new: Any, step: int = 0, path: str = "") -> str | None:
    """Names the first setting that a run resumed at `step` changed but may not change; None if there is none.

    `saved` and `new` are configs of the same class, or sections of them at `path`.
    """
    for field in dataclasses.fields(saved):
        rule, name = setting_of(field).resume, path + field.name
        before, now = getattr(saved, field.name), getattr(new, field.name)
        conflict = None
        if dataclasses.is_dataclass(before) and rule is Resume.FIXED:
            conflict = resume_conflict(before, now, step, f"{name}.")
        elif rule is Resume.FIXED and before != now:
            conflict = f"{name} (was {before!r}, now {now!r})"
        elif rule is Resume.PAST and _past(before, step) != _past(now, step):
            conflict = f"{name} (of the {step} steps that are done)"
        if conflict:
            return conflict
    return None


def _past(phases: tuple[Any, ...], step: int) -> list[Any]:
    """The phases up to `step`."""
    past = []
    for phase in phases:
        if step > 0:
            past.append(dataclasses.replace(phase, steps=min(step, phase.steps)))
        step -= phase.steps
    return past
