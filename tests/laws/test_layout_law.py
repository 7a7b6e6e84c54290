"""Law 3: meshes and memory options do not change results, beyond rounding."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from tests.support import layouts
from tests.support.commands import ROOT


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The results of tests/support/layouts.py, as {layout: {key: array}}."""
    path = tmp_path_factory.mktemp("layouts") / "results.npz"
    command = [sys.executable, "-m", "tests.support.layouts", path]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    arrays = {}
    for name, value in np.load(path).items():
        layout, key = name.split("/", 1)
        arrays.setdefault(layout, {})[key] = value
    return arrays


def norm(arrays) -> float:
    return float(np.sqrt(sum(np.sum(np.square(array, dtype=np.float64)) for array in arrays)))


@pytest.mark.parametrize("layout", [*layouts.MESHES, *layouts.LAYOUTS])
def test_layout_law(layout, results):
    """Ten steps with dropout."""
    assert_same(results[layouts.ONE], results[layout])


@pytest.mark.parametrize("kernel", list(layouts.KERNELS)[1:])
def test_attention_kernels_compute_the_same(kernel, results):
    """Ten steps without dropout, on a mesh that splits rows and heads."""
    assert_same(results[layouts.PLAIN], results[kernel])


@pytest.mark.parametrize("case", [*layouts.FAMILY, layouts.PACKED, layouts.DISTILLED])
def test_layout_law_of_other_models_packed_rows_and_distillation(case, results):
    """Ten steps with dropout, all axes and all layouts at once."""
    assert_same(results[case], results[layouts.EVERYTHING.format(case)])


@pytest.mark.parametrize("optimizer", layouts.OPTIMIZERS)
def test_layout_law_of_optimizers(optimizer, results):
    """Ten steps with dropout, parameters and optimizer state sharded over fsdp and tensor."""
    # A difference in the last bit of a gradient may round a moment of 8 bits differently, by 0.4 %.
    bound = 1e-4 if optimizer == "bfloat16 state" else 1e-5
    assert_same(results[optimizer], results[layouts.SHARDED.format(optimizer)], bound)


def assert_same(expected, actual, bound=1e-5):
    """Compares losses, gradients of the first step and final parameters."""
    assert expected.keys() == actual.keys() - {"sent"}
    np.testing.assert_allclose(actual["losses"], expected["losses"], rtol=1e-5)
    gradients = [key for key in expected if key.startswith("gradient/")]
    total = norm(expected[key] for key in gradients)
    for key in gradients:
        assert norm([actual[key] - expected[key]]) <= 1e-5 * norm([expected[key]]) + 1e-7 * total, key
    params = [key for key in expected if key.startswith("params/")]
    assert norm(actual[key] - expected[key] for key in params) <= bound * norm(expected[key] for key in params)


# Total bytes per device. On a CPU sharded gradients are reduced as a whole.
SENT = {
    "fsdp 8": [
        "all-gather over fsdp: 23 times, 212688 bytes",
        "all-reduce over fsdp: 5 times, 439670 bytes",
        "reduce-scatter over fsdp: 1 times, 21504 bytes",
    ],
    "data 2 x tensor 4": [
        "all-reduce over data: 5 times, 91428 bytes",
        "all-reduce over data and tensor: 1 times, 77 bytes",
        "all-reduce over tensor: 17 times, 592566 bytes",
    ],
    "data 2 x sequence 4": [
        "all-gather over data and sequence: 1 times, 5376 bytes",
        "all-gather over sequence: 9 times, 147552 bytes",
        "all-reduce over data: 4 times, 246588 bytes",
        "all-reduce over data and sequence: 1 times, 43008 bytes",
        "all-reduce over sequence: 11 times, 402624 bytes",
        "all-to-all over sequence: 3 times, 2688 bytes",
    ],
}


@pytest.mark.skipif(not jax.__version__.startswith("0.10."), reason="communication depends on the version of XLA")
@pytest.mark.parametrize("layout", layouts.PINNED)
def test_communication_of_a_step_is_unchanged(layout, results):
    """Detects additional communication; update the figures if it is intended."""
    assert results[layout]["sent"].tolist() == SENT[layout]
