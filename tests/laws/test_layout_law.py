"""Law 3: how the work is laid out changes no result, but for rounding."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from tests.support import layouts
from tests.support.commands import ROOT


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What tests/support/layouts.py found, as {layout: {key: array}}."""
    path = tmp_path_factory.mktemp("layouts") / "results.npz"
    command = [sys.executable, "-m", "tests.support.layouts", path]
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


@pytest.mark.parametrize("case", [*layouts.FAMILY, layouts.PACKED, layouts.TAUGHT])
def test_layout_law_of_the_family_of_packed_rows_and_of_a_teacher(case, results):
    """Ten steps with dropout, all axes and all layouts at once."""
    check_the_same(results[case], results[layouts.EVERYTHING.format(case)])


@pytest.mark.parametrize("optimizer", layouts.OPTIMIZERS)
def test_layout_law_of_optimizers(optimizer, results):
    """Ten steps with dropout, parameters and optimizer state sharded over fsdp and tensor."""
    # A gradient that differs in its last bit may round a moment of 8 bits to its other neighbour, 0.4 % away.
    bound = 1e-4 if optimizer == "bfloat16 state" else 1e-5
    check_the_same(results[optimizer], results[layouts.SHARDED.format(optimizer)], bound)


def check_the_same(one, other, bound=1e-5):
    """Losses, the first gradients and the parameters at the end."""
    assert one.keys() == other.keys() - {"sent"}
    np.testing.assert_allclose(other["losses"], one["losses"], rtol=1e-5)
    gradients = [key for key in one if key.startswith("gradient/")]
    whole = norm(one[key] for key in gradients)
    for key in gradients:
        assert norm([other[key] - one[key]]) <= 1e-5 * norm([one[key]]) + 1e-7 * whole, key
    params = [key for key in one if key.startswith("params/")]
    assert norm(other[key] - one[key] for key in params) <= bound * norm(one[key] for key in params)


# In bytes of one device, all times together. On a CPU a gradient that is stored in parts is reduced whole.
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


@pytest.mark.skipif(not jax.__version__.startswith("0.10."), reason="another XLA may send in another way")
@pytest.mark.parametrize("layout", layouts.PINNED)
def test_a_step_sends_what_it_sent_before(layout, results):
    """A change that adds to what devices send is seen here; where it must be, write down the new figures."""
    assert results[layout]["sent"].tolist() == SENT[layout]
