"""Several sequences a row: nothing is lost or torn, and hardly anything is padding."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertjax.config.data import MaskingConfig, Sequencing
from bertjax.corpus.format import Corpus
from bertjax.data import rng
from bertjax.data.packing import packed, strategy
from bertjax.data.sequences import sequences
from bertjax.data.spans import examples
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


def stream(corpus, sequencing, length=128):
    return Stream(corpus, VOCABULARY, RowFormat(length, MaskingConfig(), sequencing), 0, "phase 0")


@settings(max_examples=200, deadline=None)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=60), length=st.integers(40, 50), most=st.integers(1, 5))
def test_a_strategy_places_every_size_once(sizes, length, most):
    placed = []
    for number, pack in strategy(np.bincount(sizes, minlength=length + 1), length, most):
        assert number > 0 and sum(pack) <= length and len(pack) <= most
        placed += list(pack) * number
    assert sorted(placed) == sorted(sizes)


@pytest.mark.parametrize("name", SEQUENCINGS)
def test_an_epoch_holds_every_example_once_and_more_only_where_there_is_room(name, corpus):
    sequencing = SEQUENCINGS[name]
    plan = examples(corpus, 128, 0, 0, sequencing)
    rows = packed(corpus, plan, 128, rng.key(0, "packing", 0), sequencing)
    sizes = (rows["first"].astype(int) + rows["second"] + sequencing.special_tokens) * (rows["first"] > 0)
    assert rows.shape[1] == 6 and sizes.sum(axis=1).max() <= 128
    # What is there is first, what is not behind it.
    assert np.all(np.diff((rows["first"] > 0).astype(int), axis=1) <= 0)
    found, times = np.unique(rows[rows["first"] > 0], return_counts=True)
    known, expected = np.unique(plan, return_counts=True)
    extra = times.copy()
    extra[np.searchsorted(found, known)] -= expected
    assert np.array_equal(found[np.searchsorted(found, known)], known) and extra.min() == 0
    # What is left of a row behind its last whole sentence is more than what is left otherwise.
    share = np.sum(extra * (found["first"].astype(int) + found["second"])) / sizes.sum()
    assert share < (0.12 if sequencing.full_sentences else 0.05)


@pytest.mark.parametrize("name", SEQUENCINGS)
@pytest.mark.parametrize("length", [128, 512])
def test_hardly_anything_is_padding(name, length, corpus):
    made = stream(corpus, SEQUENCINGS[name], length)
    rows = np.arange(min(3000, made.plans.count(0)))
    assert made.padding_share(rows) < 0.02
    batch = made.batch(rows[:500])
    assert np.mean(batch["attention_mask"] == 0) < 0.02


@pytest.mark.parametrize("name", SEQUENCINGS)
def test_rows_hold_their_sequences_untorn(name, corpus):
    sequencing = SEQUENCINGS[name]
    made = stream(corpus, sequencing)
    rows = np.arange(200)
    batch, chosen = made.batch(rows), made.examples(rows)
    restored = batch["input_ids"].copy()
    row, slot = np.nonzero(batch["masked_lm_weights"])
    positions = batch["masked_lm_positions"][row, slot]
    assert len(set(zip(row.tolist(), positions.tolist(), strict=True))) == len(row)
    restored[row, positions] = batch["masked_lm_ids"][row, slot]
    assert np.all(batch["attention_mask"][row, positions] > 0)
    keys = rng.bits(rng.key(0, "phase 0", "pairs"), rows)
    for line in rows:
        begin = 0
        for place, example in enumerate(chosen[line][chosen[line]["first"] > 0]):
            key = rng.bits(keys[line : line + 1], place)
            single = dataclasses.replace(sequencing, packing=0)
            one = sequences(corpus, example[None], key, 128, VOCABULARY, single)
            size = int(one.sizes[0])
            here = slice(begin, begin + size)
            assert np.array_equal(restored[line, here], one.input_ids[0, :size])
            assert np.array_equal(batch["token_type_ids"][line, here], one.token_types()[0, :size])
            assert np.all(batch["attention_mask"][line, here] == place + 1)
            assert np.array_equal(batch["position_ids"][line, here], np.arange(size))
            if sequencing.pairs:
                assert batch["cls_positions"][line, place] == begin
                assert batch["sequence_weights"][line, place] == 1
                assert batch[f"{sequencing.pairs}_labels"][line, place] == one.negative[0]
            begin += size
        assert not batch["attention_mask"][line, begin:].any()
        if sequencing.pairs:
            assert not batch["sequence_weights"][line, place + 1 :].any()


def test_rows_are_masked_at_the_rate(corpus):
    batch = stream(corpus, SEQUENCINGS["next_sentence"]).batch(np.arange(2000))
    share = batch["masked_lm_weights"].sum() / (batch["attention_mask"] > 0).sum()
    assert share == pytest.approx(0.15, abs=0.004)


@pytest.mark.parametrize(
    "masking", [MaskingConfig(), MaskingConfig(max_predictions=5), MaskingConfig(rate=0.05), MaskingConfig(rate=0.3)]
)
def test_whatever_is_masked_is_predicted(masking, tmp_path):
    """Also where a row holds many tiny sequences, of which each is masked at least once."""
    documents = [[[7 + i % 900] * (1 + i % 6)] for i in range(400)]
    synthetic.write(tmp_path, {"train": [documents]})
    sequencing = Sequencing("", 0.0, packing=16)
    made = Stream(Corpus.open(tmp_path), VOCABULARY, RowFormat(64, masking, sequencing), 0, "phase 0")
    batch = made.batch(np.arange(made.plans.count(0)))
    row, slot = np.nonzero(batch["masked_lm_weights"])
    masked = np.zeros(batch["input_ids"].shape, bool)
    masked[row, batch["masked_lm_positions"][row, slot]] = True
    assert (batch["input_ids"] == synthetic.MASK).any() and masked[batch["input_ids"] == synthetic.MASK].all()
    # At least one in each sequence.
    for line, ids in enumerate(batch["attention_mask"]):
        assert set(ids[masked[line]]) == set(ids[ids > 0])


def test_documents_too_short_for_the_room_leave_padding(tmp_path):
    """Nothing is cut across documents to fill a row."""
    synthetic.write(tmp_path, {"train": [[[[7] * 9]] * 50]})
    made = stream(Corpus.open(tmp_path), Sequencing("", 0.0, packing=2), 64)
    batch = made.batch(np.arange(25))
    assert np.array_equal(np.count_nonzero(batch["attention_mask"], axis=1), np.full(25, 22))
