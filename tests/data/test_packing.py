"""Packed rows: no sequence is lost or split, and there is almost no padding."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertjax.config.data import MaskingConfig, Sequencing
from bertjax.corpus.format import Corpus
from bertjax.data import rng
from bertjax.data.packing import pack_examples, packing_strategy
from bertjax.data.sequences import read_sequences
from bertjax.data.spans import cut_examples
from bertjax.data.stream import RowFormat, Stream
from tests.support import synthetic

VOCABULARY = synthetic.vocabulary()
SEQUENCINGS = {
    "next_sentence": Sequencing(packing=6),
    "sentence_order": Sequencing("sentence_order", packing=6),
    "segments": Sequencing("", packing=6),
    "full_sentences": Sequencing("", 0.0, full_sentences=True, packing=6),
}


@pytest.fixture(scope="module")
def corpus(prose):
    return Corpus.open(prose)


def make_stream(corpus, sequencing, length=128):
    return Stream(corpus, VOCABULARY, RowFormat(length, MaskingConfig(), sequencing), 0, "phase 0")


@settings(max_examples=200, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=60),
    length=st.integers(40, 50),
    max_sequences=st.integers(1, 5),
)
def test_a_strategy_places_every_size_once(sizes, length, max_sequences):
    placed = []
    for number, pack in packing_strategy(np.bincount(sizes, minlength=length + 1), length, max_sequences):
        assert number > 0 and sum(pack) <= length and len(pack) <= max_sequences
        placed += list(pack) * number
    assert sorted(placed) == sorted(sizes)


@pytest.mark.parametrize("name", SEQUENCINGS)
def test_an_epoch_holds_every_example_once_and_additional_ones_only_where_there_is_room(name, corpus):
    sequencing = SEQUENCINGS[name]
    examples = cut_examples(corpus, 128, 0, 0, sequencing)
    rows = pack_examples(corpus, examples, 128, rng.key(0, "packing", 0), sequencing)
    sizes = (rows["length_a"].astype(int) + rows["length_b"] + sequencing.special_tokens) * (rows["length_a"] > 0)
    assert rows.shape[1] == 6 and sizes.sum(axis=1).max() <= 128
    # Unused slots follow the used ones.
    assert np.all(np.diff((rows["length_a"] > 0).astype(int), axis=1) <= 0)
    packed, times = np.unique(rows[rows["length_a"] > 0], return_counts=True)
    unique, expected = np.unique(examples, return_counts=True)
    extra = times.copy()
    extra[np.searchsorted(packed, unique)] -= expected
    assert np.array_equal(packed[np.searchsorted(packed, unique)], unique) and extra.min() == 0
    # Rows of whole sentences leave more room to fill than other rows.
    share = np.sum(extra * (packed["length_a"].astype(int) + packed["length_b"])) / sizes.sum()
    assert share < (0.12 if sequencing.full_sentences else 0.05)


@pytest.mark.parametrize("name", SEQUENCINGS)
@pytest.mark.parametrize("length", [128, 512])
def test_there_is_almost_no_padding(name, length, corpus):
    stream = make_stream(corpus, SEQUENCINGS[name], length)
    rows = np.arange(min(3000, stream.epochs.count(0)))
    assert stream.padding_share(rows) < 0.02
    batch = stream.batch(rows[:500])
    assert np.mean(batch["attention_mask"] == 0) < 0.02


@pytest.mark.parametrize("name", SEQUENCINGS)
def test_rows_hold_whole_sequences(name, corpus):
    sequencing = SEQUENCINGS[name]
    stream = make_stream(corpus, sequencing)
    rows = np.arange(200)
    batch, examples = stream.batch(rows), stream.examples(rows)
    restored = batch["input_ids"].copy()
    row, slot = np.nonzero(batch["masked_lm_weights"])
    positions = batch["masked_lm_positions"][row, slot]
    assert len(set(zip(row.tolist(), positions.tolist(), strict=True))) == len(row)
    restored[row, positions] = batch["masked_lm_ids"][row, slot]
    assert np.all(batch["attention_mask"][row, positions] > 0)
    keys = rng.bits(rng.key(0, "phase 0", "pairs"), rows)
    for row in rows:
        begin = 0
        for slot, example in enumerate(examples[row][examples[row]["length_a"] > 0]):
            key = rng.bits(keys[row : row + 1], slot)
            single = dataclasses.replace(sequencing, packing=0)
            sequence = read_sequences(corpus, example[None], key, 128, VOCABULARY, single)
            size = int(sequence.sizes[0])
            columns = slice(begin, begin + size)
            assert np.array_equal(restored[row, columns], sequence.input_ids[0, :size])
            assert np.array_equal(batch["token_type_ids"][row, columns], sequence.token_types()[0, :size])
            assert np.all(batch["attention_mask"][row, columns] == slot + 1)
            assert np.array_equal(batch["position_ids"][row, columns], np.arange(size))
            if sequencing.pairs:
                assert batch["cls_positions"][row, slot] == begin
                assert batch["sequence_weights"][row, slot] == 1
                assert batch[f"{sequencing.pairs}_labels"][row, slot] == sequence.negative[0]
            begin += size
        assert not batch["attention_mask"][row, begin:].any()
        if sequencing.pairs:
            assert not batch["sequence_weights"][row, slot + 1 :].any()


def test_rows_are_masked_at_the_rate(corpus):
    batch = make_stream(corpus, SEQUENCINGS["next_sentence"]).batch(np.arange(2000))
    share = batch["masked_lm_weights"].sum() / (batch["attention_mask"] > 0).sum()
    assert share == pytest.approx(0.15, abs=0.004)


@pytest.mark.parametrize(
    "masking", [MaskingConfig(), MaskingConfig(max_predictions=5), MaskingConfig(rate=0.05), MaskingConfig(rate=0.3)]
)
def test_every_masked_token_is_predicted(masking, tmp_path):
    """Also in rows of many tiny sequences, each with at least one prediction."""
    documents = [[[7 + i % 900] * (1 + i % 6)] for i in range(400)]
    synthetic.write(tmp_path, {"train": [documents]})
    sequencing = Sequencing("", 0.0, packing=16)
    stream = Stream(Corpus.open(tmp_path), VOCABULARY, RowFormat(64, masking, sequencing), 0, "phase 0")
    batch = stream.batch(np.arange(stream.epochs.count(0)))
    row, slot = np.nonzero(batch["masked_lm_weights"])
    masked = np.zeros(batch["input_ids"].shape, bool)
    masked[row, batch["masked_lm_positions"][row, slot]] = True
    assert (batch["input_ids"] == synthetic.MASK).any() and masked[batch["input_ids"] == synthetic.MASK].all()
    # At least one in each sequence.
    for row, ids in enumerate(batch["attention_mask"]):
        assert set(ids[masked[row]]) == set(ids[ids > 0])


def test_documents_too_short_for_the_room_leave_padding(tmp_path):
    """No example is cut across documents to fill a row."""
    synthetic.write(tmp_path, {"train": [[[[7] * 9]] * 50]})
    stream = make_stream(Corpus.open(tmp_path), Sequencing("", 0.0, packing=2), 64)
    batch = stream.batch(np.arange(25))
    assert np.array_equal(np.count_nonzero(batch["attention_mask"], axis=1), np.full(25, 22))
