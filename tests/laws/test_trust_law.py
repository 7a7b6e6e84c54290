"""Law 8: damaged files of bertjax are refused or read as written; files of other programs are refused or read."""

import tempfile
from pathlib import Path

import pytest

from bertjax.errors import one_line
from tests.support.trust import MEMORY, Trial
from tests.support.trusted_files import kinds

INPUTS = 300  # per kind; benchmarks/fuzz_files.py tries many more
# Without TensorFlow and PyTorch, whose import takes longer than all other kinds; tests/interop/ tests their files.
KINDS = {kind.name: kind for kind in kinds() if kind.name not in ("TensorFlow checkpoint", "pickled weights")}


@pytest.mark.parametrize("name", KINDS)
def test_damaged_files_are_refused_or_read_as_written(name):
    kind = KINDS[name]
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        report = Trial(kind, Path(folder), seed=0).run(range(max(5, INPUTS // kind.share)))
    assert not report.failures
    assert report.outcomes["refused"] or name.startswith("plan cache")


def test_messages_are_one_line_for_any_content():
    line = one_line("a.json: no\nkey \x1b[2J" + "x" * 10_000 + "; write it again")
    assert line.startswith("a.json: no key \ufffd[2Jx") and line.endswith("x; write it again") and len(line) < 1100
