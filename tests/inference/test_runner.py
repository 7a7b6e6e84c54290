"""Batched inference: every row once, few shapes, and the same results on any number of devices."""

import json
import os
import subprocess
import sys
import types

import jax
import numpy as np
import pytest

from bertjax.config.layout import MeshConfig
from bertjax.inference.runner import BatchShapes, Runner, batches_by_length
from bertjax.parallel.mesh import make_mesh
from bertjax.tasks.encoding import EncodedExample
from tests.support.commands import ROOT


def random_rows(count: int, seed: int = 0) -> list[EncodedExample]:
    lengths = np.random.default_rng(seed).integers(3, 60, count)
    return [EncodedExample(i, [i + 1] * int(n), int(n)) for i, n in enumerate(lengths)]


def test_results_are_in_order_with_few_shapes():
    rows, mesh = random_rows(500), make_mesh(MeshConfig())
    shapes = BatchShapes(tokens=8 * 64, longest=64, pad_id=0)
    batches = list(batches_by_length([len(row.input_ids) for row in rows], shapes, mesh))
    assert sorted(np.concatenate([numbers for numbers, _ in batches])) == list(range(500))
    assert len({shape for _, shape in batches}) <= 8
    assert all(len(numbers) <= shape[0] and np.prod(shape) <= 512 for numbers, shape in batches)
    tokens = sum(len(row.input_ids) for row in rows)
    assert tokens > 0.85 * sum(np.prod(shape) for _, shape in batches)

    def compute(params, batch):
        return {"first": batch["input_ids"][:, 0] + params, "mask": batch["attention_mask"]}

    for row, result in zip(rows, Runner(compute, mesh, shapes)(0, rows), strict=True):
        assert result["first"] == row.input_ids[0] and result["mask"].sum() == len(row.input_ids)


@pytest.mark.parametrize("devices", [1, 4])
def test_groups_stay_together_and_devices_get_equal_shares(devices):
    mesh = types.SimpleNamespace(shape={"data": devices, "fsdp": 1, "sequence": 4})
    lengths = np.random.default_rng(0).integers(3, 61, 3 * 70)
    batches = list(batches_by_length(lengths, BatchShapes(1024, 61, 0, group=3), mesh))
    assert sorted(np.concatenate([numbers for numbers, _ in batches])) == list(range(210))
    for numbers, (rows, length) in batches:
        groups = numbers.reshape(-1, 3)
        assert np.array_equal(groups, groups[:, :1] + np.arange(3)) and not (groups[:, 0] % 3).any()
        assert rows % (3 * devices) == 0 and rows >= len(numbers)
        assert length % 4 == 0 and length >= lengths[numbers].max()


def test_other_parameters_reuse_the_program():
    compiled = []

    def listen(event: str, duration: float, **about: str) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(about["fun_name"])

    run = Runner(
        lambda params, batch: batch["input_ids"][:, 0] * params, make_mesh(MeshConfig()), BatchShapes(64, 64, 0)
    )
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        first = run(jax.numpy.int32(1), random_rows(20))
        count = len(compiled)
        second = run(jax.numpy.int32(2), random_rows(20))
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert count and len(compiled) == count
    assert [2 * value for value in first] == second


def predict(checkpoint, output, devices: int) -> dict:
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    command = [sys.executable, "-m", "tests.support.predictions", str(checkpoint), str(output)]
    environment = os.environ | {"XLA_FLAGS": flags}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(output.read_text())


def assert_close(actual, expected, tolerance: float) -> None:
    """Compares records; numbers may differ by rounding."""
    if isinstance(actual, dict):
        assert actual.keys() == expected.keys()
        for name in actual:
            assert_close(actual[name], expected[name], tolerance)
    elif isinstance(actual, list):
        assert len(actual) == len(expected)
        for pair in zip(actual, expected, strict=True):
            assert_close(*pair, tolerance)
    elif isinstance(actual, float):
        assert actual == pytest.approx(expected, abs=tolerance)
    else:
        assert actual == expected


def test_eight_devices_predict_the_same_as_one(trained, tmp_path):
    """For `predict` and for task models, including a mesh that shards parameters."""
    one, eight = (predict(trained, tmp_path / f"{count}.json", count) for count in (1, 8))
    assert (one.pop("devices"), eight.pop("devices")) == (1, 8)
    for name, records in one.items():
        assert_close(records, eight[name], 1e-2 if "bfloat16" in name else 1e-5)
