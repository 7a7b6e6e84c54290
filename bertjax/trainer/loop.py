"""The loop of a training: steps without waiting for the device, and the signal that ends them."""

import math
import signal
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from types import FrameType

import jax
from jax.sharding import Mesh

from bertjax.parallel import processes
from bertjax.parallel.mesh import put_batch
from bertjax.trainer.step import Batch, Metrics, TrainState, TrainStep

# Steps that may be under way before the loop waits for the oldest one's metrics: enough that the device always has its
# next step queued, few enough that the host does not run away from it.
_IN_FLIGHT = 2


class PendingMetrics:
    """Metrics of a training, step by step; those of the last `_IN_FLIGHT` steps may still be on the device."""

    def __init__(self) -> None:
        self._on_device: deque[tuple[int, Metrics]] = deque()
        self._on_host: deque[tuple[int, dict[str, float]]] = deque()

    def add(self, step: int, metrics: Metrics) -> None:
        """Adds those of the step just dispatched; waits for those of `_IN_FLIGHT` steps before."""
        self._on_device.append((step, metrics))
        if len(self._on_device) > _IN_FLIGHT:
            self._fetch()

    def earlier(self) -> Iterator[tuple[int, dict[str, float]]]:
        """(step, metrics) of finished steps, in order, each once; never waits for the device."""
        while self._on_host:
            yield self._on_host.popleft()

    def all(self) -> Iterator[tuple[int, dict[str, float]]]:
        """(step, metrics) of all steps that are left, in order, each as soon as it is finished."""
        yield from self.earlier()
        while self._on_device:
            self._fetch()
            yield from self.earlier()

    def _fetch(self) -> None:
        step, metrics = self._on_device.popleft()
        self._on_host.append((step, {name: float(value) for name, value in jax.device_get(metrics).items()}))


def training_steps(
    train_step: TrainStep, state: TrainState, batches: Iterable[Batch], mesh: Mesh, start: int
) -> Iterator[tuple[int, TrainState, PendingMetrics]]:
    """Trains from step `start` through all `batches`: (steps done, state, metrics) after each dispatched step.

    The step that comes next takes the memory of the state. Log `metrics.earlier()` after every step, and
    `metrics.all()` before its state is evaluated or saved, so that no bad step is saved before its loss was seen.
    """
    metrics = PendingMetrics()
    for step, batch in enumerate(batches, start + 1):
        with jax.transfer_guard("disallow"):
            state, values = train_step(state, put_batch(batch, mesh))
        metrics.add(step, values)
        yield step, state, metrics


def not_finite(values: Mapping[str, float]) -> str:
    """For example "train/loss is nan"; empty where the loss and the norm of its gradient are finite."""
    for name in ("train/loss", "train/grad_norm"):
        if not math.isfinite(values[name]):
            return f"{name} is {values[name]}"
    return ""


class StopSignal:
    """Turns SIGTERM and Ctrl-C into a request to stop after the current step.

    The first signal to any process stops all processes after the same step, with a checkpoint. A second one to the same
    process ends that process at once without one; the others then end as after any lost process.
    """

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> "StopSignal":
        self._before = {s: signal.signal(s, self._request) for s in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def due(self, step: int) -> bool:
        """Whether to stop after `step`, the same on every process; to be asked once per step, after it is dispatched.

        A signal between two answers would end the run without a checkpoint.
        """
        # A process can be so far ahead of another because the metrics of a step are sums over all processes.
        return processes.agreed_to_stop(step, self.requested, ahead=_IN_FLIGHT + 1)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
