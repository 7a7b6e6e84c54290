"""Fine-tuning on several devices gives the same losses and predictions as on one."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tests.support import finetuned_on_meshes
from tests.support.commands import ROOT


@pytest.fixture(scope="module")
def results(trained, tmp_path_factory):
    """The output of tests/support/finetuned_on_meshes.py."""
    folder, rng = tmp_path_factory.mktemp("meshes"), np.random.default_rng(0)
    nouns = ["list", "string", "number", "class", "method", "module"]
    for name, count in (("train", 96), ("dev", 30)):
        lines = []
        for noun in rng.choice(nouns, count):
            words = " ".join(rng.choice(nouns, rng.integers(1, 9)))
            label = "even" if nouns.index(noun) % 2 else "odd"
            lines.append({"text": f"the {noun} of {words}", "partner": f"returns a {noun}", "class": label})
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    command = [sys.executable, "-m", "tests.support.finetuned_on_meshes", trained, folder, folder / "results.json"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("mesh", list(finetuned_on_meshes.MESHES)[1:])
@pytest.mark.parametrize("kind", finetuned_on_meshes.CASES)
def test_fine_tuning_is_the_same_on_several_devices(kind, mesh, results):
    """Includes dropout, packed rows, and the in-batch negatives of retrieval across devices."""
    single, sharded = results[kind]["one device"], results[kind][mesh]
    assert len(single["losses"]) == 6
    np.testing.assert_allclose(sharded["losses"], single["losses"], rtol=1e-5)
    assert sharded["predictions"] == single["predictions"]
