"""How fast a run is: what its clock says."""

import time
from collections.abc import Iterable
from typing import Any

from bertjax.config.pretraining import Config
from bertjax.model import flops


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


class Speed:
    """Tokens and model FLOPs a second between log lines."""

    def __init__(self, config: Config, clock: Clock, start: int, peak: float | None) -> None:
        """Begins at step `start`; `peak` is the devices' FLOP/s, where known."""
        self._config, self._clock, self._step, self._peak = config, clock, start, peak

    def since_last(self, step: int) -> dict[str, float]:
        """The `perf/…` values of the steps since the last call."""
        tokens, work = 0, 0.0
        for done in range(self._step, step):
            phase = self._config.phases[self._config.locate(done)[0]]
            tokens += phase.batch * phase.length
            predictions = self._config.masking.predictions(phase.length, self._config.packing)
            sequence = flops.training_flops(self._config.model, phase.length, predictions, bool(self._config.pairs))
            work += phase.batch * sequence
        self._step = step
        seconds, waited = self._clock.read()
        values = {
            "perf/seconds": seconds,
            "perf/tokens_per_second": tokens / seconds,
            "perf/model_flops_per_second": work / seconds,
            "perf/input_wait": waited / seconds,
        }
        if self._peak:
            values["perf/mfu"] = work / seconds / self._peak
        return values
