"""The loop: which metrics are handed over when, what a step may transfer, and how a signal stops it."""

import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.config.layout import MeshConfig
from bertjax.parallel.mesh import make_mesh
from bertjax.trainer.loop import StopSignal, not_finite, training_steps
from bertjax.trainer.throughput import Clock, Speed


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig(), jax.devices()[:1])


def batches(count):
    return ({"x": np.full((2, 3), number, np.float32)} for number in range(1, count + 1))


@jax.jit
def add(state, batch):
    state = state + batch["x"][0, 0]
    return state, {"train/loss": state}


def test_metrics_come_two_steps_later_in_order_and_once(mesh):
    """Each is that of its own step, so that the device has two steps queued while the host logs."""
    taken = []
    for step, _, metrics in training_steps(add, jnp.float32(0), batches(5), mesh, start=10):
        earlier = list(metrics.earlier())
        assert [done for done, _ in earlier] == ([step - 2] if step >= 13 else [])
        assert not list(metrics.earlier())
        taken += earlier
    taken += metrics.all()
    assert taken == [(10 + n, {"train/loss": n * (n + 1) / 2}) for n in range(1, 6)]
    assert step == 15


def test_all_metrics_of_a_step_are_there_before_it_is_evaluated(mesh):
    seen = []
    for step, _, metrics in training_steps(add, jnp.float32(0), batches(6), mesh, start=0):
        seen += [done for done, _ in metrics.earlier()]
        if step % 3 == 0:
            seen += [done for done, _ in metrics.all()]
            assert seen == list(range(1, step + 1))


def test_metrics_are_fetched_one_by_one(mesh):
    """Else the time of the last step would count as that of the one before."""
    *_, (_, _, metrics) = training_steps(add, jnp.float32(0), batches(2), mesh, start=0)
    left = metrics.all()
    assert next(left)[0] == 1 and len(metrics._on_device) == 1
    assert next(left)[0] == 2 and not metrics._on_device


def test_the_host_waits_for_metrics_that_nobody_takes(mesh, monkeypatch):
    """It never has more than two steps under way, which the agreement of processes to stop relies on."""
    fetched = []
    monkeypatch.setattr(jax, "device_get", lambda metrics: fetched.append(metrics) or metrics)
    for step, _, _ in training_steps(add, jnp.float32(0), batches(5), mesh, start=0):
        assert len(fetched) == max(0, step - 2)


def test_a_step_transfers_nothing_unasked_and_the_code_around_it_may(mesh):
    def careless(state, batch):
        return add(state, {"x": np.ones((2, 3), np.float32)})

    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        next(training_steps(careless, jnp.float32(0), batches(1), mesh, start=0))
    for _ in training_steps(add, jnp.float32(0), batches(1), mesh, start=0):
        assert jax.config.jax_transfer_guard is None
        jnp.add(np.ones(3), 1)


def test_a_step_may_take_the_memory_of_the_state_before(mesh):
    donating = jax.jit(lambda state, batch: (state + batch["x"][0, 0], {"train/loss": state}), donate_argnums=0)
    states = []
    for _, state, _ in training_steps(donating, jnp.float32(0), batches(3), mesh, start=0):
        assert not state.is_deleted()
        states.append(state)
    assert [state.is_deleted() for state in states] == [True, True, False] and float(state) == 6


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"train/loss": 1.0, "train/grad_norm": 2.0}, ""),
        ({"train/loss": float("nan"), "train/grad_norm": float("inf")}, "train/loss is nan"),
        ({"train/loss": 1.0, "train/grad_norm": float("inf")}, "train/grad_norm is inf"),
    ],
)
def test_what_is_not_finite_is_named(values, expected):
    assert not_finite(values) == expected


def test_the_first_signal_is_a_request_and_the_second_interrupts():
    before = signal.getsignal(signal.SIGTERM)
    with StopSignal() as stop:
        assert not stop.due(1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.due(2)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            signal.sigtimedwait((), 1)  # until it is there
    assert signal.getsignal(signal.SIGTERM) is before


def test_speed_counts_neither_pauses_nor_steps_twice(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def slow(items):
        for item in items:
            now[0] += 1  # the loop waits for it
            yield item

    clock = Clock()
    speed = Speed(clock, lambda step: (100 + step, 10.0), start=2, peak=40.0)
    for _ in clock.waiting(slow(range(2))):
        now[0] += 3
    with clock.paused():
        now[0] += 1000
    assert speed.since_last(4) == {
        "perf/seconds": 8.0,
        "perf/tokens_per_second": (102 + 103) / 8,
        "perf/model_flops_per_second": 20 / 8,
        "perf/input_wait": 2 / 8,
        "perf/mfu": 20 / 8 / 40,
    }
    now[0] += 2
    assert speed.since_last(5)["perf/tokens_per_second"] == 104 / 2
