"""The one runner of predictions: every row once, few shapes, and the same answers on any number of devices."""

import json
import os
import subprocess
import sys
import types

import jax
import numpy as np
import pytest

from bertjax.config.layout import MeshConfig
from bertjax.inference.runner import BatchShapes, Runner, batches
from bertjax.parallel.mesh import make_mesh
from bertjax.tasks.encoding import EncodedExample
from tests.support.commands import ROOT


def some_rows(count: int, seed: int = 0) -> list[EncodedExample]:
    lengths = np.random.default_rng(seed).integers(3, 60, count)
    return [EncodedExample(i, [i + 1] * int(n), int(n)) for i, n in enumerate(lengths)]


def test_predictions_come_back_in_place_with_few_lengths():
    rows, mesh = some_rows(500), make_mesh(MeshConfig())
    shapes = BatchShapes(tokens=8 * 64, longest=64, pad_id=0)
    found = list(batches([len(row.input_ids) for row in rows], shapes, mesh))
    assert sorted(np.concatenate([numbers for numbers, _ in found])) == list(range(500))
    assert len({shape for _, shape in found}) <= 8
    assert all(len(numbers) <= shape[0] and np.prod(shape) <= 512 for numbers, shape in found)
    tokens = sum(len(row.input_ids) for row in rows)
    assert tokens > 0.85 * sum(np.prod(shape) for _, shape in found)

    def seen(params, batch):
        return {"first": batch["input_ids"][:, 0] + params, "mask": batch["attention_mask"]}

    for row, result in zip(rows, Runner(seen, mesh, shapes)(0, rows), strict=True):
        assert result["first"] == row.input_ids[0] and result["mask"].sum() == len(row.input_ids)


@pytest.mark.parametrize("devices", [1, 4])
def test_groups_stay_together_and_devices_get_as_many(devices):
    mesh = types.SimpleNamespace(shape={"data": devices, "fsdp": 1, "sequence": 4})  # no more is asked of it
    lengths = np.random.default_rng(0).integers(3, 61, 3 * 70)
    found = list(batches(lengths, BatchShapes(1024, 61, 0, group=3), mesh))
    assert sorted(np.concatenate([numbers for numbers, _ in found])) == list(range(210))
    for numbers, (rows, length) in found:
        groups = numbers.reshape(-1, 3)
        assert np.array_equal(groups, groups[:, :1] + np.arange(3)) and not (groups[:, 0] % 3).any()
        assert rows % (3 * devices) == 0 and rows >= len(numbers)
        assert length % 4 == 0 and length >= lengths[numbers].max()


def test_other_parameters_need_no_other_program():
    compiled = []

    def listen(event: str, duration: float, **about: str) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(about["fun_name"])

    run = Runner(
        lambda params, batch: batch["input_ids"][:, 0] * params, make_mesh(MeshConfig()), BatchShapes(64, 64, 0)
    )
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        first = run(jax.numpy.int32(1), some_rows(20))
        count = len(compiled)
        second = run(jax.numpy.int32(2), some_rows(20))
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert count and len(compiled) == count
    assert [2 * value for value in first] == second


def answers(checkpoint, output, devices: int) -> dict:
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    command = [sys.executable, "-m", "tests.support.predictions", str(checkpoint), str(output)]
    environment = os.environ | {"XLA_FLAGS": flags}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(output.read_text())


def same(ours, theirs, tolerance: float) -> None:
    """Equal, but for the rounding of numbers."""
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for name in ours:
            same(ours[name], theirs[name], tolerance)
    elif isinstance(ours, list):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            same(one, other, tolerance)
    elif isinstance(ours, float):
        assert ours == pytest.approx(theirs, abs=tolerance)
    else:
        assert ours == theirs


def test_eight_devices_say_what_one_says(trained, tmp_path):
    """Of `predict` and of task models, also on a mesh that splits parameters."""
    one, eight = (answers(trained, tmp_path / f"{count}.json", count) for count in (1, 8))
    assert (one.pop("devices"), eight.pop("devices")) == (1, 8)
    for name, found in one.items():
        same(found, eight[name], 1e-2 if "bfloat16" in name else 1e-5)
