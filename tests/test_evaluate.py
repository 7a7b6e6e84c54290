"""The evaluate command: the scores of a checkpoint are those of training, from the path alone."""

import json
import os

import pytest

from bertjax.trainer import metrics
from tests.support.commands import assert_refused, run


def test_scores_are_those_of_the_run(trained, tiny_config):
    phase = tiny_config.phases[0]
    # As on a laptop where the TPU's compiler is installed: it has nothing to say there.
    settings = ("JAX_PLATFORMS", "TPU_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(settings)}
    result = run("evaluate", f"--checkpoint={trained}", f"--batch={phase.batch}", env=environment)
    assert result.returncode == 0, result.stderr
    assert "TPU" not in result.stderr
    found = json.loads(result.stdout)
    expected = [record for record in metrics.read(trained / "metrics.jsonl") if "eval/mlm_loss" in record][-1]
    assert found["step"] == expected["step"] == 8
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-6), name


def test_what_cannot_be_evaluated_is_refused(trained, tmp_path):
    assert_refused(run("evaluate", f"--checkpoint={tmp_path}"), "there is no model in", tmp_path)
    assert_refused(run("evaluate", f"--checkpoint={trained}", f"--corpus={tmp_path}"), tmp_path)
    assert_refused(run("evaluate", f"--checkpoint={trained}", "--length=1000"), "at most 64 tokens")
