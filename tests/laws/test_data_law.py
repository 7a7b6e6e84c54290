"""The data law: batches are reproducible bit for bit; an epoch contains every example once and every token."""

import dataclasses
import functools
import shutil

import numpy as np
import pytest

from bertjax.config.data import MaskingConfig, Sequencing
from bertjax.config.pretraining import Config, Phase
from bertjax.corpus.format import Corpus
from bertjax.data.pipeline import BatchSource
from bertjax.data.stream import RowFormat, Stream
from tests.support import synthetic
from tests.support.statistics import assert_share, assert_uncorrelated

VOCABULARY = synthetic.vocabulary()
# The first phase spans several epochs: 64 rows per step, about 900 examples per epoch.
CONFIG = Config(
    seed=7, phases=(Phase(steps=45, length=64, batch=64), Phase(steps=9, length=128, batch=24)), eval_every=0
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    generator = np.random.default_rng(0)
    shards = [synthetic.text(generator, 40, 12), synthetic.text(generator, 30, 12)]
    return synthetic.write(tmp_path_factory.mktemp("law"), {"train": shards})


@pytest.fixture(scope="module")
def batches(directory):
    """All batches of the run, from one thread and one host, without tf.data."""
    source = source_of(directory)
    return [source.batch(*CONFIG.locate(step)) for step in range(CONFIG.total_steps)]


def source_of(directory, config=CONFIG):
    return BatchSource(Corpus.open(directory), VOCABULARY, config)


def assert_equal(actual, expected):
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name].dtype == b[name].dtype and np.array_equal(a[name], b[name]), name


@pytest.mark.parametrize("threads", [1, 4])
def test_threads_do_not_change_batches(directory, batches, threads):
    assert_equal(list(source_of(directory).iterate(0, CONFIG.total_steps, threads=threads)), batches)


@pytest.mark.parametrize("hosts", [1, 2, 4, 8])
def test_hosts_do_not_change_batches(directory, batches, hosts):
    parts = []
    for host in range(hosts):
        source = source_of(directory)
        parts.append(
            list(
                source.iterate(
                    0, CONFIG.total_steps, rows=lambda batch, host=host: np.arange(batch).reshape(hosts, -1)[host]
                )
            )
        )
    joined = [{name: np.concatenate([part[name] for part in step]) for name in step[0]} for step in zip(*parts)]  # noqa: B905
    assert_equal(joined, batches)


def test_restarts_at_any_step_continue_with_the_same_batches(directory, batches, tmp_path):
    generator = np.random.default_rng()
    for step in [0, *generator.integers(0, CONFIG.total_steps, 6).tolist()]:
        # A copy of the corpus without caches.
        shutil.copytree(directory, tmp_path / str(step), ignore=lambda *_: ["cache"], dirs_exist_ok=True)
        restarted = source_of(tmp_path / str(step)).iterate(step, CONFIG.total_steps, threads=2)
        assert_equal(list(restarted), batches[step:])


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"packing": 4}, id="packed"),
        pytest.param({"next_sentence": False, "sentence_order": True, "packing": 3}, id="sentence order, packed"),
        pytest.param({"next_sentence": False, "full_sentences": True}, id="full sentences"),
    ],
)
def test_other_row_formats_are_reproducible(directory, fields):
    """With four hosts of two threads each, restarted in the middle."""
    config = dataclasses.replace(CONFIG, phases=(Phase(steps=30, length=64, batch=32),), **fields)
    expected = [source_of(directory, config).batch(0, step) for step in range(30)]
    parts = []
    for host in range(4):
        rows = functools.partial(lambda host, batch: np.arange(batch).reshape(4, -1)[host], host)
        before = source_of(directory, config).iterate(0, 17, rows=rows)
        parts.append([*before, *source_of(directory, config).iterate(17, 30, rows=rows, threads=2)])
    joined = [{name: np.concatenate([part[name] for part in step]) for name in step[0]} for step in zip(*parts)]  # noqa: B905
    assert_equal(joined, expected)


@pytest.mark.parametrize(
    "fields",
    [
        {"masking": MaskingConfig(unit="word")},
        {"masking": MaskingConfig(unit="span")},
        {"masking": MaskingConfig(unit="span"), "packing": 4},
    ],
)
def test_rows_are_independent_of_other_rows_in_the_batch(directory, fields):
    source = source_of(directory, Config(phases=CONFIG.phases, **fields))
    whole = source.batch(0, 3)
    single = [source.batch(0, 3, slice(row, row + 1)) for row in range(64)]
    assert_equal([{name: np.concatenate([row[name] for row in single]) for name in whole}], [whole])


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    """A stream of rows from a corpus of prose; 100,000 rows are a little more than four epochs."""
    corpus = Corpus.open(synthetic.prose(tmp_path_factory.mktemp("prose")))
    return make_stream(corpus)


SEQUENCINGS = {
    "next_sentence": Sequencing(),
    "sentence_order": Sequencing(pairs="sentence_order"),
    "segments": Sequencing(pairs=""),
    "full_sentences": Sequencing(pairs="", full_sentences=True),
}


def make_stream(corpus, seed=0, name="phase 0", sequencing=SEQUENCINGS["next_sentence"]):
    return Stream(corpus, VOCABULARY, RowFormat(128, MaskingConfig(), sequencing), seed, name)


@pytest.mark.parametrize("sequencing", SEQUENCINGS)
def test_epochs_contain_every_example_once_and_every_token(stream, sequencing):
    corpus = stream.corpus
    stream = make_stream(corpus, sequencing=SEQUENCINGS[sequencing])
    begin = 0
    for epoch in range(2):
        count = stream.epochs.count(epoch)
        rows = stream.examples(np.arange(begin, begin + count))
        plan = stream.epochs.examples(epoch)
        assert not np.array_equal(rows, plan)
        assert np.array_equal(np.sort(rows), np.sort(plan))
        sizes = rows["length_a"] + np.where(rows["negative"] & (sequencing == "next_sentence"), 0, rows["length_b"])
        ends = rows["start"] + sizes
        if sequencing == "full_sentences":  # sizes include one [SEP] per document that ends in the row
            order = np.argsort(rows["start"])
            ends[order] = np.minimum(ends[order], np.append(rows["start"][order][1:], corpus.tokens))
        uses = np.zeros(corpus.tokens + 1, int)
        np.add.at(uses, rows["start"], 1)
        np.add.at(uses, ends, -1)
        assert np.cumsum(uses)[:-1].min() >= 1
        begin += count


def test_batches_hold_the_tokens_of_their_examples(stream):
    corpus = stream.corpus
    tokens = synthetic.all_tokens(corpus)
    rows = np.arange(20_000, 30_000)  # across the end of an epoch
    batch = stream.batch(rows)
    ids = batch["input_ids"].copy()
    row, slot = np.nonzero(batch["masked_lm_weights"])
    ids[row, batch["masked_lm_positions"][row, slot]] = batch["masked_lm_ids"][row, slot]
    for row_ids, example, label in zip(ids, stream.examples(rows), batch["next_sentence_labels"], strict=True):
        assert label == example["negative"]
        middle = example["start"] + example["length_a"]
        assert np.array_equal(row_ids[1 : example["length_a"] + 1], tokens[example["start"] : middle])
        if not label:
            b = row_ids[example["length_a"] + 2 : example["length_a"] + 2 + example["length_b"]]
            assert np.array_equal(b, tokens[middle : middle + example["length_b"]])


def test_every_epoch_phase_and_seed_has_its_own_order(stream):
    count = min(stream.epochs.count(epoch) for epoch in range(2))
    first = stream.examples(np.arange(count))["start"]
    others = [
        stream.examples(np.arange(count) + stream.epochs.count(0)),
        make_stream(stream.corpus, name="phase 1").examples(np.arange(count)),
        make_stream(stream.corpus, seed=1).examples(np.arange(count)),
    ]
    assert_uncorrelated(first, np.arange(count))
    assert_uncorrelated(first[1:], first[:-1])
    for other in others:
        assert_uncorrelated(first, other["start"])


def test_every_epoch_draws_its_own_masks(stream):
    """Masks of the same example in two epochs are as independent as those of two examples."""
    rows = np.arange(24_000)
    a, b = stream.batch(rows), make_stream(stream.corpus, name="phase 1").batch(rows)
    is_full = (a["attention_mask"].sum(axis=1) == 128) & (b["attention_mask"].sum(axis=1) == 128)
    masks = []
    for batch in (a, b):
        mask = np.zeros((len(rows), 128), bool)
        row, slot = np.nonzero(batch["masked_lm_weights"])
        mask[row, batch["masked_lm_positions"][row, slot]] = True
        masks.append(mask[is_full, 1:127])
    assert_share(int((masks[0] & masks[1]).sum()), masks[0].size, masks[0].mean() * masks[1].mean())
