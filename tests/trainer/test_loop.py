"""The training loop: order of metrics, guarded transfers, stop signals and throughput."""

import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.config.layout import MeshConfig
from bertjax.parallel.mesh import make_mesh
from bertjax.trainer.loop import StopSignal, non_finite_terms, training_steps
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


def test_metrics_arrive_two_steps_later_in_order_and_once(mesh):
    """The device has two steps queued while the host logs."""
    received = []
    for step, _, metrics in training_steps(add, jnp.float32(0), batches(5), mesh, start=10):
        earlier = list(metrics.earlier())
        assert [done for done, _ in earlier] == ([step - 2] if step >= 13 else [])
        assert not list(metrics.earlier())
        received += earlier
    received += metrics.all()
    assert received == [(10 + n, {"train/loss": n * (n + 1) / 2}) for n in range(1, 6)]
    assert step == 15


def test_all_metrics_are_available_before_an_evaluation(mesh):
    received = []
    for step, _, metrics in training_steps(add, jnp.float32(0), batches(6), mesh, start=0):
        received += [done for done, _ in metrics.earlier()]
        if step % 3 == 0:
            received += [done for done, _ in metrics.all()]
            assert received == list(range(1, step + 1))


def test_metrics_are_fetched_step_by_step(mesh):
    """Otherwise the time of the last step would be attributed to the one before."""
    *_, (_, _, metrics) = training_steps(add, jnp.float32(0), batches(2), mesh, start=0)
    left = metrics.all()
    assert next(left)[0] == 1 and len(metrics._on_device) == 1
    assert next(left)[0] == 2 and not metrics._on_device


def test_the_host_waits_for_metrics_that_are_not_consumed(mesh, monkeypatch):
    """At most two steps are in flight, which the agreement of processes on a last step relies on."""
    fetched = []
    monkeypatch.setattr(jax, "device_get", lambda metrics: fetched.append(metrics) or metrics)
    for step, _, _ in training_steps(add, jnp.float32(0), batches(5), mesh, start=0):
        assert len(fetched) == max(0, step - 2)


def test_implicit_transfers_fail_within_a_step_only(mesh):
    def transferring(state, batch):
        return add(state, {"x": np.ones((2, 3), np.float32)})

    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        next(training_steps(transferring, jnp.float32(0), batches(1), mesh, start=0))
    for _ in training_steps(add, jnp.float32(0), batches(1), mesh, start=0):
        assert jax.config.jax_transfer_guard is None
        jnp.add(np.ones(3), 1)


def test_a_step_may_donate_the_previous_state(mesh):
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
def test_non_finite_terms_are_named(values, expected):
    assert non_finite_terms(values) == expected


def test_the_first_signal_requests_a_stop_and_the_second_interrupts():
    previous = signal.getsignal(signal.SIGTERM)
    with StopSignal() as stop:
        assert not stop.due(1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.due(2)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            signal.sigtimedwait((), 1)  # until it is delivered
    assert signal.getsignal(signal.SIGTERM) is previous


def test_speed_excludes_pauses_and_counts_each_step_once(monkeypatch):
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
