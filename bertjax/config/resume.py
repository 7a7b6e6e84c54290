"""Resume rules: which settings a resumed run may change.

pretraining/build.py and finetuning/run.py refuse a run with a conflict.
"""

import dataclasses

from bertjax.config.fields import Dataclass, Resume, is_section, setting_of
from bertjax.config.pretraining import Phase


def resume_conflict(saved: Dataclass, new: Dataclass, step: int = 0, path: str = "") -> str | None:
    """Returns the first setting that a run resumed at `step` must not change but did, and its change; or None.

    `saved` and `new` are configs of the same class, or sections of them at `path`.
    """
    for field in dataclasses.fields(saved):
        rule, name = setting_of(field).resume, path + field.name
        before, now = getattr(saved, field.name), getattr(new, field.name)
        conflict = None
        if rule is Resume.PAST:
            if _past(before, step) != _past(now, step):
                conflict = f"{name} changed within the {step} completed steps"
        elif rule is Resume.FIXED and is_section(before):
            conflict = resume_conflict(before, now, step, f"{name}.")
        elif rule is Resume.FIXED and before != now:
            conflict = f"{name} was {before!r} at the start and is now {now!r}"
        if conflict:
            return conflict
    return None


def _past(phases: tuple[Phase, ...], step: int) -> list[Phase]:
    """Returns the phases up to `step`."""
    past = []
    for phase in phases:
        if step > 0:
            past.append(dataclasses.replace(phase, steps=min(step, phase.steps)))
        step -= phase.steps
    return past
