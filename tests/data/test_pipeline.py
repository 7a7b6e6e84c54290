"""The input pipeline: shapes, padding and refused corpora."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from bertjax.config.data import MaskingConfig
from bertjax.config.pretraining import Config, Phase
from bertjax.corpus.format import Corpus
from bertjax.data.pipeline import BatchSource
from bertjax.errors import UserError
from tests.support import synthetic

VOCABULARY = synthetic.vocabulary()
CONFIG = Config(phases=(Phase(steps=50, length=128, batch=64), Phase(steps=5, length=512, batch=16)))


def test_shapes_and_types(prose):
    source = BatchSource(Corpus.open(prose), VOCABULARY, CONFIG)
    for phase, (rows, length, slots) in enumerate([(64, 128, 20), (16, 512, 80)]):
        shapes = {
            "input_ids": ((rows, length), np.int32),
            "token_type_ids": ((rows, length), np.int32),
            "attention_mask": ((rows, length), np.int32),
            "masked_lm_positions": ((rows, slots), np.int32),
            "masked_lm_ids": ((rows, slots), np.int32),
            "masked_lm_weights": ((rows, slots), np.float32),
            "next_sentence_labels": ((rows,), np.int32),
        }
        for batch in (source.batch(phase, 0), next(source.iterate(phase * 50, 55))):
            assert {name: (array.shape, array.dtype) for name, array in batch.items()} == shapes


def test_single_segments(prose):
    config = dataclasses.replace(CONFIG, next_sentence=False)
    batch = BatchSource(Corpus.open(prose), VOCABULARY, config).batch(0, 0)
    assert "next_sentence_labels" not in batch and not batch["token_type_ids"].any()
    assert np.all((batch["input_ids"] == synthetic.SEP).sum(axis=1) == 1)


def test_types_and_attention_follow_the_separators(prose):
    batch = BatchSource(Corpus.open(prose), VOCABULARY, CONFIG).batch(0, 0)
    for ids, types, attention in zip(batch["input_ids"], batch["token_type_ids"], batch["attention_mask"], strict=True):
        first, last = np.flatnonzero(ids == synthetic.SEP)
        columns = np.arange(128)
        assert np.array_equal(types, (columns > first) & (columns <= last))
        assert np.array_equal(attention, columns <= last)


def test_padding_share_is_that_of_the_batches(prose):
    source = BatchSource(Corpus.open(prose), VOCABULARY, CONFIG)
    expected = np.mean([1 - source.batch(0, step)["attention_mask"].mean() for step in range(50)])
    assert source.padding_share(0) == pytest.approx(expected, abs=0.01)


def test_pairs_from_one_document_are_refused(tmp_path):
    synthetic.write(tmp_path, {"train": [[[[5, 6, 7]]]]})
    with pytest.raises(UserError, match=r"two train documents.*next_sentence"):
        BatchSource(Corpus.open(tmp_path), VOCABULARY, CONFIG)
    BatchSource(Corpus.open(tmp_path), VOCABULARY, dataclasses.replace(CONFIG, next_sentence=False)).batch(0, 0)


def test_another_vocabulary_is_refused(prose):
    with pytest.raises(UserError, match=r"1000 ids.*900"):
        BatchSource(Corpus.open(prose), synthetic.vocabulary(900), CONFIG)


def test_more_slots_than_tokens(prose):
    config = dataclasses.replace(
        CONFIG,
        phases=(Phase(steps=1, length=8, batch=4),),
        masking=MaskingConfig(rate=1.0, max_predictions=12),
    )
    batch = BatchSource(Corpus.open(prose), VOCABULARY, config).batch(0, 0)
    assert batch["masked_lm_positions"].shape == (4, 12)
    assert np.array_equal(batch["masked_lm_weights"].sum(axis=1), batch["attention_mask"].sum(axis=1) - 3)


def test_tensorflow_is_imported_only_to_iterate():
    code = "import sys, bertjax.data.pipeline, bertjax.data.heldout; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
