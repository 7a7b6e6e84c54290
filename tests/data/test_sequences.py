import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertjax.config.data import PAIR_TASKS, MaskingConfig, Sequencing
from bertjax.corpus.format import Corpus
from bertjax.data import rng
from bertjax.data.masking import mask
from bertjax.data.sequences import sequences
from bertjax.data.spans import examples
from tests.support import synthetic
from tests.support.statistics import assert_frequencies, assert_share, best_accuracy

VOCABULARY = synthetic.vocabulary()
PAIRS = Sequencing()
FIRST = len(synthetic.SPECIAL)  # the first id that stands for text


def read(corpus: Corpus, plan: np.ndarray, length: int, sequencing: Sequencing = PAIRS, seed: int = 0):
    keys = rng.bits(rng.key(seed, "pairs"), np.arange(len(plan)))
    return sequences(corpus, plan, keys, length, VOCABULARY, sequencing)


@pytest.fixture(scope="module")
def train(prose):
    return Corpus.open(prose)


@pytest.fixture(scope="module")
def plans(train):
    """More than 100,000 pairs."""
    plans = [examples(train, 128, 0, epoch, PAIRS) for epoch in range(5)]
    assert sum(map(len, plans)) > 100_000
    return np.concatenate(plans)


def test_half_of_the_pairs_are_next(train, plans):
    assert_share(int(plans["negative"].sum()), len(plans), 0.5)
    # Also within those of one length, of short examples and of full ones.
    full = plans["first"] + plans["second"] == 125
    for part in (plans[full], plans[~full]):
        assert_share(int(part["negative"].sum()), len(part), 0.5)


def test_a_tenth_is_short_and_the_rest_fills_the_length(train, plans):
    sizes = plans["first"].astype(int) + plans["second"]
    begin = np.searchsorted(train.document_tokens, plans["start"], side="right") - 1
    long = np.diff(train.document_tokens)[begin] >= 125
    # The longest is also one of the short lengths that are drawn from 2 to 125.
    assert_share(int((sizes[long] == 125).sum()), int(long.sum()), 0.9 + 0.1 / 124)
    short = sizes[long][sizes[long] < 125]
    assert_frequencies(np.bincount(short, minlength=125)[2:], np.full(123, len(short) / 123))


@pytest.mark.parametrize("documents", ["prose", "short"])
def test_lengths_do_not_tell_the_label(train, plans, documents, tmp_path):
    if documents == "prose":
        corpus, plan = train, plans
    else:
        generator = np.random.default_rng(1)
        synthetic.write(tmp_path, {"train": [synthetic.text(generator, 3000, 4)]})
        corpus = Corpus.open(tmp_path)
        plan = np.concatenate([examples(corpus, 128, 0, epoch, PAIRS) for epoch in range(20)])
    assert len(plan) > 100_000
    found = read(corpus, plan, 128)
    for feature in (found.sizes, found.first, found.second):
        assert best_accuracy(feature, found.negative) < 0.52


def test_next_follows_and_random_does_not(tmp_path):
    """Every document has an id of its own as its only token."""
    documents = [[[5 + number] * size for size in (9, 1, 30, 12)] for number in range(200)]
    synthetic.write(tmp_path, {"train": [documents[:50], documents[50:]]})
    corpus = Corpus.open(tmp_path)
    plan = examples(corpus, 32, 0, 0, PAIRS)
    found = read(corpus, plan, 32)
    columns = np.arange(32)
    a = np.where((columns >= 1) & (columns <= found.first[:, None]), found.input_ids, 0).max(axis=1)
    b = np.where(found.token_types() & ~found.special(), found.input_ids, 0).max(axis=1)
    assert np.array_equal(a != b, found.negative)


def test_random_segments_begin_at_any_sentence_of_the_other_documents(tmp_path):
    """Every sentence has an id of its own."""
    documents = [[[5 + 20 * d + s] * 10 for s in range(20)] for d in range(40)]
    synthetic.write(tmp_path, {"train": [documents[:3], documents[3:]]}, vocab_size=1000)
    corpus = Corpus.open(tmp_path)
    plan = np.concatenate([examples(corpus, 16, 0, epoch, PAIRS) for epoch in range(30)])
    plan = plan[plan["negative"]]
    assert len(plan) > 10_000
    found = read(corpus, plan, 16)
    first_b = found.input_ids[np.arange(len(plan)), found.first + 2] - 5
    own = plan["start"] // 200
    assert not np.any(first_b // 20 == own)
    # The last two sentences may be too short for the rest of the length.
    begin = first_b[first_b % 20 < 18]
    others = (np.bincount(own, minlength=40).sum() - np.bincount(own, minlength=40))[:, None]
    expected = np.broadcast_to(others, (40, 18)) / others.sum() / 18 * len(begin)
    counts = np.bincount(begin, minlength=800).reshape(40, 20)[:, :18]
    assert_frequencies(counts, expected)


def test_random_segments_fill_up_where_few_sentences_leave_room(tmp_path):
    synthetic.write(tmp_path, {"train": [[[[5]] * 9 + [[6] * 20]] * 100]})
    corpus = Corpus.open(tmp_path)
    plan = np.concatenate([examples(corpus, 64, 0, epoch, Sequencing(short_seq_prob=0)) for epoch in range(20)])
    assert np.array_equal(read(corpus, plan, 64).second, plan["second"])


def test_splits_are_at_sentence_borders(train, plans):
    bounds = np.concatenate([shard.sentence_offsets[:-1] for shard in train.shards])
    bounds += np.repeat(train.token_bases[:-1], np.diff(train.sentence_bases)).astype(bounds.dtype)
    split = plans["start"] + plans["first"]
    inner = np.searchsorted(bounds, plans["start"], side="right") < np.searchsorted(bounds, split + plans["second"])
    assert inner.mean() > 0.95
    assert np.isin(split[inner], bounds).all()


def numbered(directory, shards) -> Corpus:
    """Documents of sentences of these sizes; tokens are numbered through the corpus, from behind the special ids."""
    counter = itertools.count(FIRST)
    documents = [[[[next(counter) for _ in range(size)] for size in document] for document in s] for s in shards]
    return Corpus.open(synthetic.write(directory, {"train": documents}, vocab_size=2**17))


odd_corpora = st.lists(
    st.lists(st.lists(st.integers(1, 70), min_size=1, max_size=6), min_size=1, max_size=5), min_size=1, max_size=3
)


@settings(max_examples=200, deadline=None)
@given(shards=odd_corpora, length=st.integers(8, 40), pairs=st.sampled_from(["", *PAIR_TASKS]), seed=st.integers(0, 5))
def test_odd_corpora(tmp_path_factory, shards, length, pairs, seed):
    """One-token documents, giant sentences, documents far shorter and far longer than the length."""
    if sum(map(len, shards)) < 2:
        pairs = ""
    corpus, sequencing = numbered(tmp_path_factory.mktemp("odd"), shards), Sequencing(pairs)
    plan = examples(corpus, length, seed, 0, sequencing)
    found = read(corpus, plan, length, sequencing)
    seen = np.zeros(corpus.tokens, bool)
    for row, size, first, second, negative in zip(
        found.input_ids, found.sizes, found.first, found.second, found.negative, strict=True
    ):
        assert row[0] == synthetic.CLS and row[first + 1] == row[size - 1] == synthetic.SEP
        assert np.all(row[size:] == synthetic.PAD) and first > 0 and size <= length
        a, b = row[1 : first + 1] - FIRST, row[first + 2 : first + 2 + second] - FIRST
        # Tokens are numbered through the corpus: a segment is a run of numbers within a document.
        for segment in (a, b):
            assert np.all(np.diff(segment) == 1)
            assert len(set(np.searchsorted(corpus.document_tokens, segment, side="right"))) <= 1
        seen[a] = True
        if not pairs:
            continue
        assert second > 0
        documents_of = np.searchsorted(corpus.document_tokens, [a[0], b[0]], side="right")
        together = documents_of[0] == documents_of[1]
        if pairs == "next_sentence":
            assert negative != together
            if not negative:
                assert b[0] == a[-1] + 1
                seen[b] = True
        else:
            seen[b] = True
            # Only a document of one token has nothing that follows it.
            one = 1 in np.diff(corpus.document_tokens)[documents_of - 1]
            assert (one and len(a) == len(b) == 1) or (together and (b[0] - a[-1], a[0] - b[-1])[int(negative)] == 1)
    assert seen.all()


@settings(max_examples=200, deadline=None)
@given(shards=odd_corpora, length=st.integers(8, 40), short=st.sampled_from([0.0, 0.3]), seed=st.integers(0, 5))
def test_full_sentences_of_odd_corpora(tmp_path_factory, shards, length, short, seed):
    """Rows go on across documents with [SEP] between them, and end with a sentence that fits."""
    corpus = numbered(tmp_path_factory.mktemp("odd"), shards)
    sequencing = Sequencing("", short, full_sentences=True)
    found = read(corpus, examples(corpus, length, seed, 0, sequencing), length, sequencing)
    seen = np.zeros(corpus.tokens, int)
    sentence_ends = np.cumsum([size for shard in shards for document in shard for size in document]) - 1
    documents = corpus.document_tokens[1:-1]
    for row, size, special in zip(found.input_ids, found.sizes, found.special(), strict=True):
        assert row[0] == synthetic.CLS and row[size - 1] == synthetic.SEP and size <= length
        assert np.all(row[size:] == synthetic.PAD)
        assert np.array_equal(special, np.isin(row, (synthetic.CLS, synthetic.SEP, synthetic.PAD)))
        tokens = row[1 : size - 1]
        text = tokens[tokens != synthetic.SEP] - FIRST
        assert np.all(np.diff(text) == 1)
        # One [SEP] before each document that begins within.
        assert np.array_equal(tokens[1:][tokens[:-1] == synthetic.SEP] - FIRST, documents[np.isin(documents, text[1:])])
        # What does not end with a sentence is all of one.
        assert text[-1] in sentence_ends or np.ptp(np.searchsorted(sentence_ends, text)) == 0
        seen[text] += 1
    assert np.all(seen == 1)
    # What stands between documents is never predicted, not even where everything else is.
    everything = MaskingConfig(rate=1.0, max_predictions=50)
    _, predictions = mask(found, rng.bits(0, np.arange(len(found.sizes))), synthetic.vocabulary(), everything)
    special = np.take_along_axis(found.special(), np.minimum(predictions.positions, length - 1), axis=1)
    assert not special[predictions.weights > 0].any()
    assert np.array_equal(predictions.weights.sum(axis=1), (~found.special()).sum(axis=1))
