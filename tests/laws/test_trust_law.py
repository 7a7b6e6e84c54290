"""Law 8: what is read back is as it was written, or refused in one line; what others wrote is read or refused."""

import tempfile
from pathlib import Path

import pytest

from bertjax.errors import one_line
from tests.support.trust import MEMORY, Trial
from tests.support.trusted_files import kinds

INPUTS = 300  # per kind; benchmarks/fuzz_files.py tries many more
# Importing TensorFlow and PyTorch takes longer than all others together; tests/interop/ damages their files, too.
KINDS = {kind.name: kind for kind in kinds() if kind.name not in ("TensorFlow checkpoint", "pickled weights")}


@pytest.mark.parametrize("name", KINDS)
def test_damaged_files_are_refused_or_read_as_they_were(name):
    kind = KINDS[name]
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        report = Trial(kind, Path(folder), seed=0).run(range(max(5, INPUTS // kind.share)))
    assert not report.failures
    assert report.outcomes["refused"] or name.startswith("plan cache")


def test_a_message_is_one_line_whatever_a_file_says():
    line = one_line("a.json: no\nkey \x1b[2J" + "x" * 10_000 + "; write it again")
    assert line.startswith("a.json: no key \ufffd[2Jx") and line.endswith("x; write it again") and len(line) < 1100
