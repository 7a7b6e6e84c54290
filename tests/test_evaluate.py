"""The evaluate command: a checkpoint's path suffices to reproduce the scores of training."""

import json
import os

import pytest

from bertjax.trainer import metrics
from tests.support.commands import assert_refused, run


def test_scores_match_those_of_the_run(trained, tiny_config):
    phase = tiny_config.phases[0]
    # As on a laptop with libtpu, which must not print anything.
    settings = ("JAX_PLATFORMS", "TPU_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(settings)}
    result = run("evaluate", f"--checkpoint={trained}", f"--batch={phase.batch}", env=environment)
    assert result.returncode == 0, result.stderr
    assert "TPU" not in result.stderr
    scores = json.loads(result.stdout)
    expected = [record for record in metrics.read(trained / "metrics.jsonl") if "eval/mlm_loss" in record][-1]
    assert scores["step"] == expected["step"] == 8
    for name, value in expected.items():
        assert scores[name] == pytest.approx(value, rel=1e-6), name


def test_invalid_arguments_are_refused(trained, tmp_path):
    assert_refused(run("evaluate", f"--checkpoint={tmp_path}"), f"{tmp_path}: no model")
    assert_refused(run("evaluate", f"--checkpoint={trained}", f"--corpus={tmp_path}"), tmp_path)
    assert_refused(run("evaluate", f"--checkpoint={trained}", "--length=1000"), "at most 64 tokens")
