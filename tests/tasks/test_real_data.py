"""Reads the real files of some tasks from BERTJAX_DATA, by default ../shared/data beside the repository, if present."""

import os
from pathlib import Path

import pytest

from bertjax.tasks.kinds.classification import Classification
from bertjax.tasks.registry import open_task
from tests.support.commands import ROOT

DATA = Path(os.environ.get("BERTJAX_DATA", ROOT.parent / "shared/data"))


@pytest.mark.skipif(not DATA.is_dir(), reason="the real data is not available")
@pytest.mark.parametrize(
    ("name", "folder", "sizes"),
    [
        ("glue/cola", "glue", {"train": 8551, "dev": 1043}),
        ("glue/sst2", "glue", {"train": 6920, "dev": 872}),
        ("glue/rte", "glue", {"dev": 277}),
        ("glue/wnli", "glue", {"dev": 71}),
        ("sick/relatedness", "sick", {"train": 4500, "dev": 500, "test": 4927}),
        ("sick/entailment", "sick", {"train": 4500, "dev": 500, "test": 4927}),
        ("conllu/upos", "ud_ewt", {"dev": 2001, "test": 2077}),
    ],
)
def test_real_files_are_read_completely(name, folder, sizes):
    task = open_task(name, str(DATA / folder))
    for split, size in sizes.items():
        examples = task.read(split)
        assert len(examples) == size
        if task.kind == Classification():
            assert {example.label for example in examples} == set(range(len(task.labels)))
