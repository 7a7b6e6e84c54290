"""Metrics: JSON lines across restarts, TensorBoard, and custom trackers."""

import os

import pytest

from bertjax import host_tensorflow
from bertjax.errors import UserError
from bertjax.parallel import processes
from bertjax.trainer import metrics


def _events(folder):
    """Returns the events of a TensorBoard folder in order."""
    tf = host_tensorflow.load()
    for record in tf.data.TFRecordDataset(sorted(map(str, folder.iterdir()))).as_numpy_iterator():
        yield tf.compat.v1.Event.FromString(record)


@pytest.mark.parametrize("resume", [0, 2])
def test_tensorboard_drops_steps_that_are_repeated(tmp_path, resume):
    """Also if a run was killed before its first checkpoint and starts over."""
    for start in (0, resume):
        writer = metrics.MetricsWriter(tmp_path, start)
        for step in range(start + 1, 5):
            writer.write(step, {"train/loss": 1.0})
        writer.close()
    events = list(_events(tmp_path / "tensorboard"))
    assert [event.step for event in events if event.HasField("session_log")] == [resume + 1]
    losses = [(event.step, value.tag, value.simple_value) for event in events for value in event.summary.value]
    assert losses[-1] == (4, "train/loss", 1.0) and len(losses) == 8 - resume


def test_metrics_that_cannot_be_flushed_are_a_user_error(tmp_path):
    """The file descriptor is replaced by one that does not support fsync."""
    writer = metrics.MetricsWriter(tmp_path, 0)
    with open(os.devnull, "w") as null:  # noqa: PTH123 - not a path
        os.dup2(null.fileno(), writer._trackers[0].file.fileno())
    with pytest.raises(UserError, match=f"^{tmp_path}: cannot write the metrics"):
        writer.sync()
    writer.close()


def test_metrics_go_to_every_tracker_and_to_one_of_the_files(tmp_path):
    writer = metrics.MetricsWriter(tmp_path, 0)
    writer.write(3, {"train/loss": 1.5, "perf/mfu": 0.5})
    writer.write(4, {"train/loss": 1.0})
    writer.close()
    assert metrics.read(tmp_path / "metrics.jsonl") == [{"step": 3, "train/loss": 1.5}, {"step": 4, "train/loss": 1.0}]
    assert metrics.read(tmp_path / "perf.jsonl") == [{"step": 3, "perf/mfu": 0.5}]
    values = [(event.step, value.tag) for event in _events(tmp_path / "tensorboard") for value in event.summary.value]
    assert values == [(3, "train/loss"), (3, "perf/mfu"), (4, "train/loss")]


def test_custom_trackers_receive_all_calls(tmp_path, monkeypatch):
    calls = []

    class Recorder:
        def write(self, step, values):
            calls.append((step, dict(values)))

        def sync(self):
            calls.append("sync")

        def close(self):
            calls.append("close")

    monkeypatch.setattr(metrics, "open_trackers", lambda workdir, resume_step: [Recorder()])
    writer = metrics.MetricsWriter(tmp_path, 0)
    writer.write(1, {"train/loss": 2.0})
    writer.sync()
    writer.close()
    assert calls == [(1, {"train/loss": 2.0}), "sync", "close"]


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "is_first", lambda: False)
    writer = metrics.MetricsWriter(tmp_path, 0)
    writer.write(1, {"train/loss": 2.0})
    writer.sync()
    writer.close()
    assert not list(tmp_path.iterdir())
