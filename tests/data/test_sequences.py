"""Sequences of examples: lengths, labels and random segments do not depend on one another; no token is lost."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertjax.config.data import PAIR_TASKS, MaskingConfig, Sequencing
from bertjax.corpus.format import Corpus
from bertjax.data import rng
from bertjax.data.masking import mask_tokens
from bertjax.data.sequences import read_sequences
from bertjax.data.spans import cut_examples
from tests.support import synthetic
from tests.support.statistics import assert_frequencies, assert_share, best_accuracy

VOCABULARY = synthetic.vocabulary()
PAIRS = Sequencing()
FIRST = len(synthetic.SPECIAL)  # the first id of ordinary tokens


def read(corpus: Corpus, examples: np.ndarray, length: int, sequencing: Sequencing = PAIRS, seed: int = 0):
    keys = rng.bits(rng.key(seed, "pairs"), np.arange(len(examples)))
    return read_sequences(corpus, examples, keys, length, VOCABULARY, sequencing)


@pytest.fixture(scope="module")
def train(prose):
    return Corpus.open(prose)


@pytest.fixture(scope="module")
def pairs(train):
    """More than 100,000 pairs."""
    pairs = [cut_examples(train, 128, 0, epoch, PAIRS) for epoch in range(5)]
    assert sum(map(len, pairs)) > 100_000
    return np.concatenate(pairs)


def test_half_of_the_pairs_are_next(train, pairs):
    assert_share(int(pairs["negative"].sum()), len(pairs), 0.5)
    # Also among full examples and among short ones.
    full = pairs["length_a"] + pairs["length_b"] == 125
    for part in (pairs[full], pairs[~full]):
        assert_share(int(part["negative"].sum()), len(part), 0.5)


def test_a_tenth_is_short_and_the_others_have_full_length(train, pairs):
    sizes = pairs["length_a"].astype(int) + pairs["length_b"]
    begin = np.searchsorted(train.document_tokens, pairs["start"], side="right") - 1
    long = np.diff(train.document_tokens)[begin] >= 125
    # Short lengths are drawn from 2 to 125, so 0.1 / 124 of them are full as well.
    assert_share(int((sizes[long] == 125).sum()), int(long.sum()), 0.9 + 0.1 / 124)
    short = sizes[long][sizes[long] < 125]
    assert_frequencies(np.bincount(short, minlength=125)[2:], np.full(123, len(short) / 123))


@pytest.mark.parametrize("documents", ["prose", "short"])
def test_lengths_do_not_reveal_the_label(train, pairs, documents, tmp_path):
    if documents == "prose":
        corpus, examples = train, pairs
    else:
        generator = np.random.default_rng(1)
        synthetic.write(tmp_path, {"train": [synthetic.text(generator, 3000, 4)]})
        corpus = Corpus.open(tmp_path)
        examples = np.concatenate([cut_examples(corpus, 128, 0, epoch, PAIRS) for epoch in range(20)])
    assert len(examples) > 100_000
    sequences = read(corpus, examples, 128)
    for feature in (sequences.sizes, sequences.length_a, sequences.length_b):
        assert best_accuracy(feature, sequences.negative) < 0.52


def test_positive_pairs_come_from_one_document_and_negative_ones_from_two(tmp_path):
    """Each document repeats one id that no other document has."""
    documents = [[[5 + number] * size for size in (9, 1, 30, 12)] for number in range(200)]
    synthetic.write(tmp_path, {"train": [documents[:50], documents[50:]]})
    corpus = Corpus.open(tmp_path)
    examples = cut_examples(corpus, 32, 0, 0, PAIRS)
    sequences = read(corpus, examples, 32)
    columns = np.arange(32)
    a = np.where((columns >= 1) & (columns <= sequences.length_a[:, None]), sequences.input_ids, 0).max(axis=1)
    b = np.where(sequences.token_types() & ~sequences.special(), sequences.input_ids, 0).max(axis=1)
    assert np.array_equal(a != b, sequences.negative)


def test_random_segments_begin_at_any_sentence_of_the_other_documents(tmp_path):
    """Each sentence repeats one id that no other sentence has."""
    documents = [[[5 + 20 * d + s] * 10 for s in range(20)] for d in range(40)]
    synthetic.write(tmp_path, {"train": [documents[:3], documents[3:]]}, vocab_size=1000)
    corpus = Corpus.open(tmp_path)
    examples = np.concatenate([cut_examples(corpus, 16, 0, epoch, PAIRS) for epoch in range(30)])
    examples = examples[examples["negative"]]
    assert len(examples) > 10_000
    sequences = read(corpus, examples, 16)
    first_b = sequences.input_ids[np.arange(len(examples)), sequences.length_a + 2] - 5
    document_a = examples["start"] // 200
    assert not np.any(first_b // 20 == document_a)
    # The last two sentences of a document may leave too few tokens.
    begin = first_b[first_b % 20 < 18]
    others = (np.bincount(document_a, minlength=40).sum() - np.bincount(document_a, minlength=40))[:, None]
    expected = np.broadcast_to(others, (40, 18)) / others.sum() / 18 * len(begin)
    counts = np.bincount(begin, minlength=800).reshape(40, 20)[:, :18]
    assert_frequencies(counts, expected)


def test_random_segments_have_the_wanted_length_even_if_few_sentences_leave_room(tmp_path):
    synthetic.write(tmp_path, {"train": [[[[5]] * 9 + [[6] * 20]] * 100]})
    corpus = Corpus.open(tmp_path)
    examples = np.concatenate([cut_examples(corpus, 64, 0, epoch, Sequencing(short_seq_prob=0)) for epoch in range(20)])
    assert np.array_equal(read(corpus, examples, 64).length_b, examples["length_b"])


def test_splits_are_at_sentence_borders(train, pairs):
    bounds = np.concatenate([shard.sentence_offsets[:-1] for shard in train.shards])
    bounds += np.repeat(train.token_bases[:-1], np.diff(train.sentence_bases)).astype(bounds.dtype)
    split = pairs["start"] + pairs["length_a"]
    inner = np.searchsorted(bounds, pairs["start"], side="right") < np.searchsorted(bounds, split + pairs["length_b"])
    assert inner.mean() > 0.95
    assert np.isin(split[inner], bounds).all()


def numbered(directory, shards) -> Corpus:
    """Documents of sentences of these sizes; tokens are numbered through the corpus, from the first ordinary id."""
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
    examples = cut_examples(corpus, length, seed, 0, sequencing)
    sequences = read(corpus, examples, length, sequencing)
    seen = np.zeros(corpus.tokens, bool)
    for row, size, first, second, negative in zip(
        sequences.input_ids, sequences.sizes, sequences.length_a, sequences.length_b, sequences.negative, strict=True
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
        documents = np.searchsorted(corpus.document_tokens, [a[0], b[0]], side="right")
        together = documents[0] == documents[1]
        if pairs == "next_sentence":
            assert negative != together
            if not negative:
                assert b[0] == a[-1] + 1
                seen[b] = True
        else:
            seen[b] = True
            # Only after a document of one token B comes from the next document.
            single = 1 in np.diff(corpus.document_tokens)[documents - 1]
            assert (single and len(a) == len(b) == 1) or (together and (b[0] - a[-1], a[0] - b[-1])[int(negative)] == 1)
    assert seen.all()


@settings(max_examples=200, deadline=None)
@given(shards=odd_corpora, length=st.integers(8, 40), short=st.sampled_from([0.0, 0.3]), seed=st.integers(0, 5))
def test_full_sentences_of_odd_corpora(tmp_path_factory, shards, length, short, seed):
    """Rows continue across documents with [SEP] between them, and end with the last sentence that fits."""
    corpus = numbered(tmp_path_factory.mktemp("odd"), shards)
    sequencing = Sequencing("", short, full_sentences=True)
    sequences = read(corpus, cut_examples(corpus, length, seed, 0, sequencing), length, sequencing)
    seen = np.zeros(corpus.tokens, int)
    sentence_ends = np.cumsum([size for shard in shards for document in shard for size in document]) - 1
    documents = corpus.document_tokens[1:-1]
    for row, size, special in zip(sequences.input_ids, sequences.sizes, sequences.special(), strict=True):
        assert row[0] == synthetic.CLS and row[size - 1] == synthetic.SEP and size <= length
        assert np.all(row[size:] == synthetic.PAD)
        assert np.array_equal(special, np.isin(row, (synthetic.CLS, synthetic.SEP, synthetic.PAD)))
        tokens = row[1 : size - 1]
        text = tokens[tokens != synthetic.SEP] - FIRST
        assert np.all(np.diff(text) == 1)
        # One [SEP] before each document that begins within the row.
        assert np.array_equal(tokens[1:][tokens[:-1] == synthetic.SEP] - FIRST, documents[np.isin(documents, text[1:])])
        # A row that does not end with a sentence lies within a single one.
        assert text[-1] in sentence_ends or np.ptp(np.searchsorted(sentence_ends, text)) == 0
        seen[text] += 1
    assert np.all(seen == 1)
    # [SEP] between documents is never predicted, even if every other token is.
    everything = MaskingConfig(rate=1.0, max_predictions=50)
    _, predictions = mask_tokens(
        sequences, rng.bits(0, np.arange(len(sequences.sizes))), synthetic.vocabulary(), everything
    )
    special = np.take_along_axis(sequences.special(), np.minimum(predictions.positions, length - 1), axis=1)
    assert not special[predictions.weights > 0].any()
    assert np.array_equal(predictions.weights.sum(axis=1), (~sequences.special()).sum(axis=1))
