"""Fine-tuning on several devices, among which a batch is shared: the same losses, the same predictions."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tests.support import finetuned_on_meshes
from tests.support.commands import ROOT


@pytest.fixture(scope="module")
def results(trained, tmp_path_factory):
    """What tests/support/finetuned_on_meshes.py found."""
    folder, rng = tmp_path_factory.mktemp("meshes"), np.random.default_rng(0)
    things = ["list", "string", "number", "class", "method", "module"]
    for name, count in (("train", 96), ("dev", 30)):
        lines = []
        for thing in rng.choice(things, count):
            words = " ".join(rng.choice(things, rng.integers(1, 9)))
            label = "even" if things.index(thing) % 2 else "odd"
            lines.append({"text": f"the {thing} of {words}", "partner": f"returns a {thing}", "class": label})
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    command = [sys.executable, "-m", "tests.support.finetuned_on_meshes", trained, folder, folder / "results.json"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("mesh", list(finetuned_on_meshes.MESHES)[1:])
@pytest.mark.parametrize("kind", finetuned_on_meshes.CASES)
def test_fine_tuning_is_the_same_on_several_devices(kind, mesh, results):
    """With dropout, in packed rows; of retrieval the negatives are those of the whole batch, wherever they lie."""
    one, other = results[kind]["one device"], results[kind][mesh]
    assert len(one["losses"]) == 6
    np.testing.assert_allclose(other["losses"], one["losses"], rtol=1e-5)
    assert other["predictions"] == one["predictions"]
