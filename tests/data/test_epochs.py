"""The index of the examples of each epoch, and its cache."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from bertjax.config.data import Sequencing
from bertjax.corpus.format import Corpus
from bertjax.data.epochs import EpochIndex
from bertjax.data.spans import cut_examples
from tests.support import synthetic

PAIRS = Sequencing()


@pytest.fixture
def directory(tmp_path):
    return synthetic.write(tmp_path / "corpus", {"train": [synthetic.text(np.random.default_rng(0), 60, 10)]})


def files(directory: Path) -> set[str]:
    return {path.name for path in directory.glob("cache/plan-*/*")}


def test_examples_are_cached_beside_the_corpus_and_reused(directory):
    corpus = Corpus.open(directory)
    expected = cut_examples(corpus, 64, 3, 0, PAIRS)
    assert np.array_equal(EpochIndex(corpus, 64, 3, PAIRS).examples(0), expected)
    assert files(directory) == {"epoch-00000.npy", "plans.json"}
    reopened = EpochIndex(Corpus.open(directory), 64, 3, PAIRS)
    assert isinstance(reopened.examples(0), np.memmap) and np.array_equal(reopened.examples(0), expected)
    assert reopened.count(0) == len(expected)


def test_only_the_newest_epochs_are_cached_but_all_counts(directory):
    corpus = Corpus.open(directory)
    index = EpochIndex(corpus, 64, 3, PAIRS)
    counts = [index.count(epoch) for epoch in range(6)]
    assert len(set(counts)) > 1
    assert files(directory) == {"epoch-00004.npy", "epoch-00005.npy", "plans.json"}
    assert [EpochIndex(corpus, 64, 3, PAIRS).count(epoch) for epoch in range(6)] == counts


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
def test_other_arguments_give_other_examples(directory, other):
    corpus = Corpus.open(directory)
    arguments = {"length": 64, "seed": 3, "sequencing": PAIRS}
    EpochIndex(corpus, **arguments).examples(0)
    examples = EpochIndex(corpus, **{**arguments, **other}).examples(0)
    assert np.array_equal(examples, cut_examples(corpus, epoch=0, **{**arguments, **other}))


@pytest.mark.parametrize("damage", ["cut", "flip", "index"])
def test_damaged_cache_is_computed_again(directory, damage):
    corpus = Corpus.open(directory)
    expected = EpochIndex(corpus, 64, 3, PAIRS).examples(0).copy()
    (path,) = (directory / "cache").rglob("epoch-00000.npy" if damage != "index" else "plans.json")
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes({"cut": content[:-10], "flip": content, "index": b"{"}[damage])
    assert np.array_equal(EpochIndex(corpus, 64, 3, PAIRS).examples(0), expected)


def test_a_read_only_corpus(directory):
    # A file in place of the cache directory also stops root, unlike permissions.
    (directory / "cache").write_text("")
    corpus = Corpus.open(directory)
    index = EpochIndex(corpus, 64, 3, PAIRS)
    assert np.array_equal(index.examples(0), cut_examples(corpus, 64, 3, 0, PAIRS)) and index.count(0) == len(
        index.examples(0)
    )
    shutil.rmtree(directory)
