"""The training loop: dispatches steps without waiting for the device, and stops on a signal."""

import math
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from types import FrameType

import jax
from jax.sharding import Mesh

from bertjax.data.batch import HostBatch
from bertjax.parallel import processes
from bertjax.parallel.mesh import put_batch
from bertjax.trainer.step import Metrics, TrainState, TrainStep

# Steps in flight before the loop waits for the metrics of the oldest: enough to keep the device's queue filled, few
# enough to bound how far the host runs ahead.
_IN_FLIGHT = 2


class PendingMetrics:
    """The metrics of a training run by step; those of the last `_IN_FLIGHT` steps may still be on the device."""

    def __init__(self) -> None:
        self._on_device: deque[tuple[int, Metrics]] = deque()
        self._on_host: deque[tuple[int, dict[str, float]]] = deque()

    def add(self, step: int, metrics: Metrics) -> None:
        """Adds the metrics of the step just dispatched; waits for those of the step `_IN_FLIGHT` steps earlier."""
        self._on_device.append((step, metrics))
        if len(self._on_device) > _IN_FLIGHT:
            self._fetch()

    def earlier(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Yields (step, metrics) of finished steps, in order and each once; never waits for the device."""
        while self._on_host:
            yield self._on_host.popleft()

    def all(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Yields (step, metrics) of all remaining steps, in order, each as soon as it has finished."""
        yield from self.earlier()
        while self._on_device:
            self._fetch()
            yield from self.earlier()

    def _fetch(self) -> None:
        step, metrics = self._on_device.popleft()
        self._on_host.append((step, {name: float(value) for name, value in jax.device_get(metrics).items()}))


def training_steps(
    train_step: TrainStep, state: TrainState, batches: Iterable[HostBatch], mesh: Mesh, start: int
) -> Iterator[tuple[int, TrainState, PendingMetrics]]:
    """Trains from step `start` on all `batches`; yields (steps done, state, metrics) after each dispatched step.

    The next step may donate the memory of the yielded state. Log `metrics.earlier()` after every step, and
    `metrics.all()` before evaluating or saving the state: a non-finite loss is then seen before its state is saved.
    """
    metrics = PendingMetrics()
    for step, batch in enumerate(batches, start + 1):
        with jax.transfer_guard("disallow"):
            state, values = train_step(state, put_batch(batch, mesh))
        metrics.add(step, values)
        yield step, state, metrics


def non_finite_terms(values: Mapping[str, float]) -> str:
    """Describes a non-finite loss or gradient norm, e.g. "train/loss is nan"; empty if both are finite."""
    for name in ("train/loss", "train/grad_norm"):
        if not math.isfinite(values[name]):
            return f"{name} is {values[name]}"
    return ""


class StopSignal:
    """Turns SIGTERM and Ctrl-C into a request to stop after the current step.

    The first signal to any process stops all processes after the same step, with a checkpoint. A second signal to the
    same process ends it at once, without a checkpoint; the other processes then end as after any lost process.
    """

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> "StopSignal":
        is_main = threading.current_thread() is threading.main_thread()  # the only one that can handle signals
        numbers = (signal.SIGTERM, signal.SIGINT) if is_main else ()
        self._previous = {number: signal.signal(number, self._request) for number in numbers}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def due(self, step: int) -> bool:
        """Whether to stop after `step`, equal on every process; call it once per step, after dispatching the step.

        A second call for the same step may answer differently, and would end the run without a checkpoint.
        """
        # The metrics of a step are sums over all processes, which bounds how far one can be ahead of another.
        return processes.should_stop(step, self.requested, ahead=_IN_FLIGHT + 1)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
