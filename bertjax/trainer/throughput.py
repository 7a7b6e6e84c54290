"""Training throughput, measured by the host's clock."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


class Clock:
    """Measures training time between readings, without evaluations and checkpoints, and the wait for input in it."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._paused = 0.0
        self._waited = 0.0

    def waiting(self, batches: Iterable[T]) -> Iterator[T]:
        """Yields the batches, measuring how long the loop waits for each."""
        before = time.perf_counter()
        for batch in batches:
            self._waited += time.perf_counter() - before
            yield batch
            before = time.perf_counter()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Excludes the time spent in the context."""
        before = time.perf_counter()
        try:
            yield
        finally:
            self._paused += time.perf_counter() - before

    def read(self) -> tuple[float, float]:
        """Returns (seconds of training, seconds of these spent waiting for input) since the last reading."""
        now = time.perf_counter()
        reading = now - self._start - self._paused, self._waited
        self._start, self._paused, self._waited = now, 0.0, 0.0
        return reading


class Speed:
    """Tokens and model FLOPs per second between log lines."""

    def __init__(self, clock: Clock, work: Callable[[int], tuple[int, float]], start: int, peak: float | None) -> None:
        """Starts measuring at step `start`.

        `work` maps a step, counted from 0, to its (tokens, model FLOPs); `peak` is the FLOP/s of all devices, or None
        if unknown.
        """
        self._clock, self._work, self._step, self._peak = clock, work, start, peak

    def since_last(self, step: int) -> dict[str, float]:
        """Returns the `perf/…` metrics of the steps since the last call."""
        tokens, flops = map(sum, zip(*map(self._work, range(self._step, step)), strict=True))
        self._step = step
        seconds, waited = self._clock.read()
        values = {
            "perf/seconds": seconds,
            "perf/tokens_per_second": tokens / seconds,
            "perf/model_flops_per_second": flops / seconds,
            "perf/input_wait": waited / seconds,
        }
        if self._peak:
            values["perf/mfu"] = flops / seconds / self._peak
        return values
