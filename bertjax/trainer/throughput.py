"""How fast a run is: what its clock says."""

import dataclasses
import time
from collections.abc import Callable, Iterable
from typing import Any


class Clock:
    """Seconds of training between two readings, without evaluations and checkpoints, and those spent on input."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._paused = 0.0
        self._waited = 0.0

    def waiting(self, batches: Iterable[Any]) -> Iterable[Any]:
        """The batches, timing how long each keeps the loop waiting."""
        iterator = iter(batches)
        while True:
            before = time.perf_counter()
            batch = next(iterator, None)
            self._waited += time.perf_counter() - before
            if batch is None:
                return
            yield batch

    def paused(self) -> "_Pause":
        """A context whose time does not count."""
        return _Pause(self)

    def read(self) -> tuple[float, float]:
        """(seconds of training, seconds of them spent waiting for input) since the last reading."""
        now = time.perf_counter()
        reading = now - self._start - self._paused, self._waited
        self._start, self._paused, self._waited = now, 0.0, 0.0
        return reading


class _Pause:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def __enter__(self) -> None:
        self._before = time.perf_counter()

    def __exit__(self, *error: Any) -> None:
        self._clock._paused += time.perf_counter() - self._before


@dataclasses.dataclass(frozen=True)
class Work:
    """What a step computes."""

    tokens: int
    flops: float  # of the model


class Speed:
    """Tokens and model FLOPs per second between log lines."""

    def __init__(self, clock: Clock, work: Callable[[int], Work], start: int, peak: float | None) -> None:
        """Begins at step `start`; `work` is that of the step after so many, `peak` the devices' FLOP/s, where known."""
        self._clock, self._work, self._step, self._peak = clock, work, start, peak

    def since_last(self, step: int) -> dict[str, float]:
        """The `perf/…` values of the steps since the last call."""
        work = [self._work(done) for done in range(self._step, step)]
        tokens, flops = sum(each.tokens for each in work), sum(each.flops for each in work)
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
