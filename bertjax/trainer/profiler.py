"""Profiler traces of chosen training steps."""

import contextlib
import itertools
import logging
from collections.abc import Iterator
from pathlib import Path

import jax

from bertjax.arrays.types import Batch
from bertjax.errors import first_line
from bertjax.trainer.step import Metrics, TrainState, TrainStep

_LOG = logging.getLogger(__name__)


@contextlib.contextmanager
def trace_steps(train_step: TrainStep, steps: tuple[int, ...], start: int, folder: Path) -> Iterator[TrainStep]:
    """Yields `train_step`, tracing the calls numbered `steps` (first, last) into `folder`; () traces nothing.

    The first call is step `start` + 1. The device is idle when the trace begins and when it ends, so that it contains
    whole steps. With several processes only the first one writes a trace. A trace that cannot be written is logged, and
    training continues.
    """
    if not steps or jax.process_index() != 0:
        yield train_step
        return
    if max(steps) <= start:
        _LOG.info(f"config.profile_steps {steps}: already trained; no trace is written")
    numbers, traced = itertools.count(start + 1), []

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        number = next(numbers)
        if not min(steps) <= number <= max(steps):
            return train_step(state, batch)
        if not traced:
            jax.block_until_ready(state)
            try:
                jax.profiler.start_trace(folder)
            except RuntimeError as error:
                _LOG.info(f"step {number}: cannot start a trace ({first_line(error)})")
                return train_step(state, batch)
        traced.append(number)
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            result = train_step(state, batch)
        if number == max(steps):
            jax.block_until_ready(result)
            _finish(traced, folder)
            traced.clear()
        return result

    try:
        yield step
    finally:
        if traced:  # training stopped before the last step of the trace
            _finish(traced, folder)


def _finish(traced: list[int], folder: Path) -> None:
    try:
        jax.profiler.stop_trace()
    except RuntimeError as error:
        _LOG.warning(f"steps {traced[0]} to {traced[-1]}: cannot write the trace ({first_line(error)})")
        return
    _LOG.info(
        f"wrote a trace of steps {traced[0]} to {traced[-1]} to {folder}; open its .trace.json.gz in "
        f"https://ui.perfetto.dev, or run: pip install xprof; xprof --logdir={folder}"
    )
