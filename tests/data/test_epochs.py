import shutil
from pathlib import Path

import numpy as np
import pytest

from bertjax.config.data import Sequencing
from bertjax.corpus.format import Corpus
from bertjax.data.epochs import Plans
from bertjax.data.spans import examples
from tests.support import synthetic

PAIRS = Sequencing()


@pytest.fixture
def directory(tmp_path):
    return synthetic.write(tmp_path / "corpus", {"train": [synthetic.text(np.random.default_rng(0), 60, 10)]})


def files(directory: Path) -> set[str]:
    return {path.name for path in directory.glob("cache/plan-*/*")}


def test_plans_are_kept_beside_the_corpus_and_found_again(directory):
    corpus = Corpus.open(directory)
    expected = examples(corpus, 64, 3, 0, PAIRS)
    assert np.array_equal(Plans(corpus, 64, 3, PAIRS).plan(0), expected)
    assert files(directory) == {"epoch-00000.npy", "plans.json"}
    found = Plans(Corpus.open(directory), 64, 3, PAIRS)
    assert isinstance(found.plan(0), np.memmap) and np.array_equal(found.plan(0), expected)
    assert found.count(0) == len(expected)


def test_only_the_newest_epochs_stay_but_all_counts(directory):
    corpus = Corpus.open(directory)
    plans = Plans(corpus, 64, 3, PAIRS)
    counts = [plans.count(epoch) for epoch in range(6)]
    assert len(set(counts)) > 1
    assert files(directory) == {"epoch-00004.npy", "epoch-00005.npy", "plans.json"}
    assert [Plans(corpus, 64, 3, PAIRS).count(epoch) for epoch in range(6)] == counts


@pytest.mark.parametrize(
    "other",
    [
        {"length": 65},
        {"seed": 4},
        {"sequencing": Sequencing(pairs="")},
        {"sequencing": Sequencing(pairs="sentence_order")},
        {"sequencing": Sequencing(pairs="", full_sentences=True)},
        {"sequencing": Sequencing(short_seq_prob=0.5)},
    ],
)
def test_other_arguments_have_other_plans(directory, other):
    corpus = Corpus.open(directory)
    arguments = {"length": 64, "seed": 3, "sequencing": PAIRS}
    Plans(corpus, **arguments).plan(0)
    found = Plans(corpus, **{**arguments, **other}).plan(0)
    assert np.array_equal(found, examples(corpus, epoch=0, **{**arguments, **other}))


@pytest.mark.parametrize("damage", ["cut", "flip", "index"])
def test_damaged_plans_are_derived_again(directory, damage):
    corpus = Corpus.open(directory)
    expected = Plans(corpus, 64, 3, PAIRS).plan(0).copy()
    (path,) = (directory / "cache").rglob("epoch-00000.npy" if damage != "index" else "plans.json")
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes({"cut": content[:-10], "flip": content, "index": b"{"}[damage])
    assert np.array_equal(Plans(corpus, 64, 3, PAIRS).plan(0), expected)


def test_corpus_that_cannot_be_written_to(directory):
    # A file where the cache would be: true for root as well, whom no permission stops.
    (directory / "cache").write_text("")
    corpus = Corpus.open(directory)
    plans = Plans(corpus, 64, 3, PAIRS)
    assert np.array_equal(plans.plan(0), examples(corpus, 64, 3, 0, PAIRS)) and plans.count(0) == len(plans.plan(0))
    shutil.rmtree(directory)
