"""Held-out batches and the unigram baseline."""

import dataclasses

import numpy as np
import pytest

from bertjax.config.data import Sequencing
from bertjax.config.pretraining import Config, Phase
from bertjax.corpus import format
from bertjax.corpus.format import Corpus
from bertjax.corpus.manifest import write_manifest
from bertjax.data.heldout import heldout_batches, unigram_entropy
from bertjax.data.pipeline import row_format
from bertjax.data.spans import cut_examples
from bertjax.errors import UserError
from tests.support import synthetic

VOCABULARY = synthetic.vocabulary()
CONFIG = Config()


def held_out(prose, config=CONFIG, **options):
    options = {"batch": 31, **options}
    rows = row_format(config, Phase(1, options.pop("length", 64), 1))
    return list(heldout_batches(Corpus.open(prose, "heldout"), VOCABULARY, rows, **options))


def test_every_example_once_and_padding_rows_have_no_weight(prose):
    expected = cut_examples(Corpus.open(prose, "heldout"), 64, 0, 0, Sequencing())
    batches = held_out(prose)
    assert {batch["input_ids"].shape for batch in batches} == {(31, 64)}
    weights = np.concatenate([batch["example_weights"] for batch in batches])
    assert weights.sum() == len(expected) and 0 < len(weights) - len(expected) < 31 and weights.dtype == np.float32
    predictions = np.concatenate([batch["masked_lm_weights"] for batch in batches]).sum(axis=1)
    assert np.array_equal(predictions > 0, weights > 0)
    sizes = np.concatenate([batch["attention_mask"] for batch in batches]).sum(axis=1)[weights > 0]
    assert np.array_equal(np.sort(sizes), np.sort(expected["length_a"].astype(int) + expected["length_b"] + 3))


def test_the_same_for_every_run(prose):
    other = dataclasses.replace(CONFIG, seed=5)
    for a, b in zip(held_out(prose), held_out(prose, other), strict=True):
        for name in a:
            assert np.array_equal(a[name], b[name])


def test_limit_and_rows_of_a_host(prose):
    whole = held_out(prose)
    limited = held_out(prose, limit=40)
    assert sum(batch["example_weights"].sum() for batch in limited) == 40
    assert np.array_equal(limited[0]["input_ids"], whole[0]["input_ids"])
    half = held_out(prose, rows=slice(16, 31))
    for a, b in zip(half, whole, strict=True):
        for name in a:
            assert np.array_equal(a[name], b[name][16:])


def test_pairs_need_two_documents(tmp_path):
    synthetic.write(tmp_path, {"heldout": [[[[5, 6, 7]]]]})
    with pytest.raises(UserError, match="two heldout documents"):
        heldout_batches(Corpus.open(tmp_path, "heldout"), VOCABULARY, row_format(CONFIG, Phase(1, 16, 1)), batch=2)
    single = dataclasses.replace(CONFIG, next_sentence=False)
    split = Corpus.open(tmp_path, "heldout")
    assert len(list(heldout_batches(split, VOCABULARY, row_format(single, Phase(1, 16, 1)), batch=2))) == 1


def test_unigram_entropy(tmp_path):
    synthetic.write(tmp_path, {"train": [[[[5, 5, 5]]], [[[6]]]], "heldout": [[[[5, 6, 7]]]]}, vocab_size=8)
    # Counts plus one for each of the eight ids: 4 of 12, 2 of 12, 1 of 12.
    expected = -(np.log(4 / 12) + np.log(2 / 12) + np.log(1 / 12)) / 3
    entropy = unigram_entropy(Corpus.open(tmp_path), Corpus.open(tmp_path, "heldout"))
    assert entropy == pytest.approx(expected)


def test_unigram_entropy_of_a_large_corpus_is_that_of_a_sample(tmp_path):
    """With more tokens than are counted, the entropy is that of all tokens up to the sampling error."""
    ids = np.random.default_rng(0).choice(np.arange(5, 8), 70 * 2**20, p=[0.7, 0.2, 0.1]).astype(np.uint16)
    shard = format.write_shard(tmp_path / "train-00000.arrow", np.array([0, 1]), np.array([0, len(ids)]), ids)
    other = format.write_shard(tmp_path / "heldout-00000.arrow", np.array([0, 1]), np.array([0, len(ids)]), ids[::-1])
    write_manifest(
        tmp_path, shards={"train": [shard], "heldout": [other]}, vocab_size=8, tokenizer_hash="x", statistics={}
    )
    entropy = -(0.7 * np.log(0.7) + 0.2 * np.log(0.2) + 0.1 * np.log(0.1))
    assert unigram_entropy(Corpus.open(tmp_path), Corpus.open(tmp_path, "heldout")) == pytest.approx(entropy, abs=1e-3)
