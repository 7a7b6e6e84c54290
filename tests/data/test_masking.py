"""Masking: number, position and replacement of the predicted tokens."""

import dataclasses

import numpy as np
import pytest

from bertjax.config.data import MaskingConfig, Sequencing
from bertjax.corpus.format import Corpus
from bertjax.data import rng
from bertjax.data.masking import mask_tokens
from bertjax.data.sequences import read_sequences
from bertjax.data.spans import cut_examples
from tests.support import synthetic
from tests.support.statistics import assert_frequencies, assert_share

VOCABULARY = synthetic.vocabulary()
ORDINARY = len(VOCABULARY.ordinary_ids)


@pytest.fixture(scope="module")
def batch(prose):
    """More than 100,000 sequences, unmasked."""
    corpus = Corpus.open(prose)
    examples = np.concatenate([cut_examples(corpus, 128, 0, epoch, Sequencing()) for epoch in range(5)])
    keys = rng.bits(rng.key(0, "pairs"), np.arange(len(examples)))
    assert len(examples) > 100_000
    return read_sequences(corpus, examples, keys, 128, VOCABULARY, Sequencing())


def first_rows(batch, rows):
    """The first `rows` rows of a batch."""
    return dataclasses.replace(
        batch, **{name: getattr(batch, name)[:rows] for name in ("input_ids", "length_a", "length_b", "negative")}
    )


def masked(batch, masking, seed=0):
    keys = rng.bits(rng.key(seed, "masks"), np.arange(len(batch.input_ids)))
    input_ids, predictions = mask_tokens(batch, keys, VOCABULARY, masking)
    return input_ids, predictions, predictions.weights.astype(bool)


@pytest.fixture(scope="module")
def result(batch):
    return masked(batch, MaskingConfig())


@pytest.mark.parametrize(
    "masking",
    [
        MaskingConfig(),
        MaskingConfig(rate=0.4),
        MaskingConfig(max_predictions=7),
        MaskingConfig(rate=1.0, max_predictions=200),
    ],
)
def test_number_of_predictions(batch, masking):
    used = masked(batch, masking)[2]
    wanted = [min(masking.predictions(128), max(1, round(masking.rate * int(size)))) for size in batch.sizes]
    maskable = batch.length_a + batch.length_b
    assert np.array_equal(used.sum(axis=1), np.minimum(wanted, maskable))


def test_masking_rate_of_full_sequences(batch, result):
    full = batch.sizes == 128
    assert result[2][full].sum() / (128 * full.sum()) == pytest.approx(19 / 128)


@pytest.mark.parametrize("unit", ["token", "word", "span"])
def test_predictions_restore_the_original_and_nothing_else_changes(batch, unit):
    batch = first_rows(batch, 30_000)
    input_ids, predictions, used = masked(batch, MaskingConfig(unit=unit))
    special = batch.special()
    rows = np.nonzero(used)[0]
    assert not special[rows, predictions.positions[used]].any()
    restored = input_ids.copy()
    restored[rows, predictions.positions[used]] = predictions.ids[used]
    assert np.array_equal(restored, batch.input_ids)
    # Ascending positions, used slots first, zeros in the rest.
    ascending = np.diff(predictions.positions, axis=1) > 0
    assert ascending[used[:, 1:]].all() and not np.any(used[:, 1:] & ~used[:, :-1])
    assert not predictions.positions[~used].any() and not predictions.ids[~used].any()


def test_eight_in_ten_masked_one_random_one_unchanged(result):
    input_ids, predictions, used = result
    new = np.take_along_axis(input_ids, predictions.positions, axis=1)[used]
    old = predictions.ids[used]
    assert_share(int((new == synthetic.MASK).sum()), len(new), 0.8)
    # A random token can equal the original one.
    assert_share(int((new == old).sum()), len(new), 0.1 + 0.1 / ORDINARY)


def test_random_tokens_are_uniform_and_never_special(result):
    input_ids, predictions, used = result
    new = np.take_along_axis(input_ids, predictions.positions, axis=1)[used]
    random = new[(new != synthetic.MASK) & (new != predictions.ids[used])]
    assert len(random) > 100_000 and not np.isin(random, synthetic.SPECIAL).any()
    counts = np.bincount(random, minlength=VOCABULARY.size)[VOCABULARY.ordinary_ids]
    # Random tokens equal to the original are not counted; the originals are themselves nearly uniform.
    assert_frequencies(counts, np.full(ORDINARY, len(random) / ORDINARY))


def test_probabilities_are_as_configured(batch):
    input_ids, predictions, used = masked(batch, MaskingConfig(mask_prob=0.3, random_prob=0.0))
    new = np.take_along_axis(input_ids, predictions.positions, axis=1)[used]
    assert_share(int((new == synthetic.MASK).sum()), len(new), 0.3)
    assert np.all((new == synthetic.MASK) | (new == predictions.ids[used]))


def test_positions_are_uniform_and_independent_between_rows_and_seeds(batch, result):
    full = batch.sizes == 128
    chosen = np.zeros(batch.input_ids.shape, bool)
    _, predictions, used = result
    chosen[np.nonzero(used)[0], predictions.positions[used]] = True
    maskable = ~batch.special()[full]
    counts, trials = (chosen[full] & maskable).sum(axis=0), maskable.sum(axis=0)
    columns = trials > 0
    z = (counts - trials * 19 / 125)[columns] / np.sqrt(trials[columns] * 19 / 125 * (1 - 19 / 125))
    assert np.abs(z).max() < 5
    again = np.zeros_like(chosen)
    _, predictions, used = masked(batch, MaskingConfig(), seed=1)
    again[np.nonzero(used)[0], predictions.positions[used]] = True
    both = (chosen & again)[full]
    assert_share(int(both.sum()), int(maskable.sum()), (19 / 125) ** 2)


def words_of(batch):
    starts = VOCABULARY.word_starts[batch.input_ids] | batch.special()
    starts[:, 1:] |= batch.special()[:, :-1]
    return np.cumsum(starts, axis=1)


@pytest.mark.parametrize("unit", ["word", "span"])
def test_whole_words_only(batch, unit):
    batch = first_rows(batch, 30_000)
    _, predictions, used = masked(batch, MaskingConfig(unit=unit))
    chosen = np.zeros(batch.input_ids.shape, bool)
    chosen[np.nonzero(used)[0], predictions.positions[used]] = True
    words = words_of(batch)
    same = words[:, 1:] == words[:, :-1]
    assert np.array_equal(chosen[:, 1:][same], chosen[:, :-1][same])
    wanted = np.clip(np.rint(0.15 * batch.sizes), 1, 20)
    assert np.all(chosen.sum(axis=1) <= wanted)
    # All rows reach the wanted number, except a few in which no remaining word fits.
    assert chosen.sum() / wanted.sum() > 0.98


def test_all_pieces_of_a_word_are_replaced_alike(batch):
    input_ids, predictions, used = masked(batch, MaskingConfig(unit="word", random_prob=0.0))
    words = words_of(batch)
    changed = np.zeros(batch.input_ids.shape, bool)
    changed[np.nonzero(used)[0], predictions.positions[used]] = True
    chosen = changed.copy()
    changed &= input_ids == synthetic.MASK
    pieces = chosen[:, 1:] & (words[:, 1:] == words[:, :-1])
    assert pieces.sum() > 100_000
    assert np.array_equal(changed[:, 1:][pieces], changed[:, :-1][pieces])
    firsts = chosen.copy()
    firsts[:, 1:] &= words[:, 1:] != words[:, :-1]
    assert_share(int((changed & firsts).sum()), int(firsts.sum()), 0.8)


def test_spans_are_runs_of_up_to_three_words(batch):
    """At a low rate few spans collide: their lengths in words fall roughly as 1/n."""
    _, predictions, used = masked(first_rows(batch, 5000), MaskingConfig(rate=0.06, unit="span", max_span=3))
    words = words_of(first_rows(batch, 5000))
    lengths = []
    for row, positions in enumerate(predictions.positions):
        numbers = np.unique(words[row, positions[used[row]]])
        lengths += [len(run) for run in np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)]
    counts = np.bincount(lengths, minlength=4)[1:4] / len(lengths)
    assert counts[0] > counts[1] > counts[2] > 0.1
