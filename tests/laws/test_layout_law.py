"""Law 3: how the work is laid out changes no result, but for rounding."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from bertjax import metrics
from bertjax.model.pretraining import PretrainingModel
from bertjax.objectives.pretraining import terms, total
from tests.conftest import ROOT
from tests.laws import layouts
from tests.model.batches import SMALL, random_batch

TRAIN = """
import json, pathlib, sys
import jax
from bertjax.config import from_config_dict
from bertjax.train import train
assert jax.device_count() == 4
train(from_config_dict(json.load(open(sys.argv[1]))), pathlib.Path(sys.argv[2]))
"""


def test_the_number_of_devices_changes_no_number(trained, tmp_path):
    """Dropout, losses and updates; rows have unequal numbers of predictions, so means of means would show."""
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    arguments = [sys.executable, "-c", TRAIN, trained / "config.json", tmp_path / "run"]
    result = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    one, four = (metrics.read(workdir / "metrics.jsonl") for workdir in (trained, tmp_path / "run"))
    assert len(one) == len(four) > 8
    for expected, found in zip(one, four, strict=True):
        assert found == pytest.approx(expected, rel=2e-5)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What tests/laws/layouts.py found, as {layout: {key: array}}."""
    path = tmp_path_factory.mktemp("layouts") / "results.npz"
    command = [sys.executable, "-m", "tests.laws.layouts", path]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    found = {}
    for name, value in np.load(path).items():
        layout, key = name.split("/", 1)
        found.setdefault(layout, {})[key] = value
    return found


def norm(arrays) -> float:
    return float(np.sqrt(sum(np.sum(np.square(array, dtype=np.float64)) for array in arrays)))


@pytest.mark.parametrize("layout", [*layouts.MESHES, *layouts.LAYOUTS])
def test_layout_law(layout, results):
    """Ten steps with dropout."""
    check_the_same(results[layouts.ONE], results[layout])


@pytest.mark.parametrize("kernel", list(layouts.KERNELS)[1:])
def test_kernels_of_attention_change_no_number(kernel, results):
    """Ten steps without dropout, on a mesh that splits rows and heads."""
    check_the_same(results[layouts.PLAIN], results[kernel])


def check_the_same(one, other):
    """Losses, the first gradients and the parameters at the end."""
    assert one.keys() == other.keys()
    np.testing.assert_allclose(other["losses"], one["losses"], rtol=1e-5)
    gradients = [key for key in one if key.startswith("gradient/")]
    whole = norm(one[key] for key in gradients)
    for key in gradients:
        assert norm([other[key] - one[key]]) <= 1e-5 * norm([one[key]]) + 1e-7 * whole, key
    params = [key for key in one if key.startswith("params/")]
    assert norm(other[key] - one[key] for key in params) <= 1e-5 * norm(one[key] for key in params)


def init(model: PretrainingModel, batch: dict) -> dict:
    return jax.jit(lambda: model.init(jax.random.key(1), batch)["params"])()


def test_unrolling_changes_no_number():
    batch = random_batch(SMALL, 6, 30, 5)
    params = init(PretrainingModel(SMALL), batch)
    keys = jax.random.split(jax.random.key(7), 6)

    def run(unroll):
        model = PretrainingModel(SMALL, unroll=unroll)

        def loss(p):
            return total(terms(model.apply({"params": p}, batch, keys), batch))

        return jax.jit(jax.value_and_grad(loss))(params)

    loss, gradients = run(1)
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(gradients)))
    for unroll in (2, 8):  # neither a divisor nor a multiple of the three layers
        other_loss, other_gradients = run(unroll)
        assert np.isclose(loss, other_loss, rtol=1e-5, atol=0)
        for g, other in zip(jax.tree.leaves(gradients), jax.tree.leaves(other_gradients), strict=True):
            assert np.linalg.norm(g - other) <= 1e-5 * np.linalg.norm(g) + 1e-7 * norm
    other = init(PretrainingModel(SMALL, unroll=3), batch)
    assert jax.tree.all(jax.tree.map(np.array_equal, params, other))
