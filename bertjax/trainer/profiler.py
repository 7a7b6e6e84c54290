"""A profiler's trace of chosen steps."""

import contextlib
import itertools
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from bertjax.errors import first_line

_LOG = logging.getLogger(__name__)

TrainStep = Callable[[Any, Any], Any]


@contextlib.contextmanager
def traced(train_step: TrainStep, steps: tuple[int, ...], start: int, folder: Path) -> Iterator[TrainStep]:
    """Gives `train_step`, whose calls number `steps` (first, last) are traced into `folder`; () traces nothing.

    `start` steps are done before the first call. The device finishes what is under way before the trace begins and
    before it ends, so that it holds whole steps. In a pod the first process alone writes one. Where a trace cannot be
    written, that is logged and the training continues.
    """
    if not steps or jax.process_index() != 0:
        yield train_step
        return
    if max(steps) <= start:
        _LOG.info(f"config.profile_steps {steps} are done already; nothing is traced")
    numbers, done = itertools.count(start + 1), []

    def step(state: Any, batch: Any) -> Any:
        number = next(numbers)
        if not min(steps) <= number <= max(steps):
            return train_step(state, batch)
        if not done:
            jax.block_until_ready(state)
            try:
                jax.profiler.start_trace(folder)
            except RuntimeError as error:
                _LOG.info(f"step {number} cannot be traced: {first_line(error)}")
                return train_step(state, batch)
        done.append(number)
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            result = train_step(state, batch)
        if number == max(steps):
            jax.block_until_ready(result)
            _finish(done, folder)
            done.clear()
        return result

    try:
        yield step
    finally:
        if done:  # stopped meanwhile
            _finish(done, folder)


def _finish(done: list[int], folder: Path) -> None:
    try:
        jax.profiler.stop_trace()
    except RuntimeError as error:
        _LOG.warning(f"the trace of steps {done[0]} to {done[-1]} cannot be written: {first_line(error)}")
        return
    _LOG.info(
        f"wrote a trace of steps {done[0]} to {done[-1]} to {folder}; open its .trace.json.gz in "
        f"https://ui.perfetto.dev, or: pip install xprof; xprof --logdir={folder}"
    )
