"""Cutting of a corpus into the examples of an epoch.

Documents are cut from beginning to end. An example takes as many tokens as its target length; a pair is split at a
sentence border within them. If B is random, only A is used up and the next example begins at its end, as in BERT, which
loses no text. There are two differences from BERT's script, which joins whole sentences, truncates them at random and
thereby loses text:

- Examples have exactly the target length: one may end inside a sentence, and the next begins there.
- The last example of a document ends with the document and reaches back to fill its target. Otherwise the rest of a
  document, of any length, would give a series of ever shorter examples (half of them random pairs, each of which leaves
  a shorter rest).

The length of an example is therefore known before its label is drawn, and does not reveal it.

Full sentences (RoBERTa) are rows that end with a sentence and continue from one document into the next. They are cut
from stretches of at least a hundred rows instead of documents; each stretch begins with a row of random length, which
gives every epoch different rows.

All draws of an example are hashes of (seed, epoch, beginning of its document, number in its document): documents
are cut side by side, with one NumPy step for the k-th example of all of them.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from bertjax.config.data import Sequencing
from bertjax.corpus.format import Corpus
from bertjax.data import rng

# Version of the cached examples. Increase it whenever the same arguments give other examples, or EXAMPLE changes.
ALGORITHM = 3
# start: first token of A, numbered through the split. length_a: tokens of segment A (or of the only segment); with
# full_sentences including [SEP] between documents. length_b: wanted tokens of segment B, 0 without pairs. negative:
# with next_sentence whether B is from another document, with sentence_order whether B precedes A.
EXAMPLE = np.dtype([("start", "<i8"), ("length_a", "<u2"), ("length_b", "<u2"), ("negative", "?")], align=True)
# A document longer than this multiple of the length is cut in pieces; otherwise a giant document means a long loop.
_PIECE_LENGTHS = 128
# Documents cut side by side: enough to amortize the overhead of NumPy calls, few enough to stay in the CPU cache.
_BLOCK = 2**15
_MIN_TARGET = 2


def cut_examples(
    corpus: Corpus,
    length: int,
    seed: int,
    epoch: int,
    sequencing: Sequencing,
) -> np.ndarray:
    """Returns all examples of an epoch, in a fixed order (not shuffled).

    Args:
      corpus: an open split.
      length: maximum tokens of a sequence, special tokens included.
      seed: the seed of all random draws.
      epoch: number of the epoch; each cuts the corpus differently.
      sequencing: pairs, single segments or full sentences, and the fraction of examples whose target length is drawn
        uniformly from 2 to the maximum.

    Returns:
      EXAMPLE [examples]. Every token of the corpus is in at least one A, or in a B that follows its A.
    """
    key = rng.key(seed, "examples", epoch)
    max_target = length - sequencing.special_tokens

    def cut_block(block: tuple[int, int, int]) -> np.ndarray:
        shard, begin, end = block
        base = corpus.token_bases[shard]
        if sequencing.full_sentences:
            parts = _cut_sentences(corpus, block, key, max_target, sequencing)
        else:
            starts, ends = _pieces(corpus, shard, begin, end, _PIECE_LENGTHS * length)
            offsets = corpus.shards[shard].sentence_offsets
            parts = _cut_documents(starts, ends, offsets, rng.bits(key, starts + base), max_target, sequencing)
        parts["start"] += base
        return parts

    blocks = [
        (number, begin, min(begin + _BLOCK, len(shard.document_offsets) - 1))
        for number, shard in enumerate(corpus.shards)
        for begin in range(0, len(shard.document_offsets) - 1, _BLOCK)
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.concatenate(list(pool.map(cut_block, blocks)))


def example_sizes(examples: np.ndarray, sequencing: Sequencing) -> np.ndarray:
    """Returns the tokens of each EXAMPLE, special tokens included; 0 in unused slots (`length_a` 0): int64."""
    text_tokens = examples["length_a"].astype(np.int64) + examples["length_b"]
    return (text_tokens + sequencing.special_tokens) * (examples["length_a"] > 0)


def cut_at(
    corpus: Corpus, starts: np.ndarray, sizes: np.ndarray, draws: np.ndarray, sequencing: Sequencing
) -> np.ndarray:
    """Returns examples of `sizes` tokens that begin at tokens `starts`, each within a document: EXAMPLE [starts]."""
    result = np.zeros(len(starts), EXAMPLE)
    result["start"], result["length_a"] = starts, sizes
    if sequencing.pairs:
        shard = np.searchsorted(corpus.token_bases, starts, side="right") - 1
        for number in np.unique(shard):
            index, base = np.flatnonzero(shard == number), corpus.token_bases[number]
            local, offsets = starts[index] - base, corpus.shards[number].sentence_offsets
            result[index], _ = _split_pairs(local, sizes[index], local, offsets, draws[index], sequencing.pairs)
            result["start"][index] += base
    return result


def _pieces(corpus: Corpus, shard: int, begin: int, end: int, max_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the bounds, local to the shard, of documents [begin, end) in pieces of at most `max_size` tokens."""
    first = corpus.document_bases[shard]
    bounds = corpus.document_tokens[first + begin : first + end + 1] - corpus.token_bases[shard]
    starts, ends = bounds[:-1], bounds[1:]
    counts = -(-(ends - starts) // max_size)
    if counts.max() == 1:
        return starts, ends
    starts, ends = np.repeat(starts, counts), np.repeat(ends, counts)
    number = np.arange(len(starts)) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = starts + number * max_size
    return starts, np.minimum(starts + max_size, ends)


def _cut_documents(
    begins: np.ndarray,
    ends: np.ndarray,
    offsets: np.ndarray,
    keys: np.ndarray,
    max_target: int,
    sequencing: Sequencing,
) -> np.ndarray:
    """Returns the examples of documents [begins, ends), all within one shard with these sentence `offsets`."""
    parts = []
    covered = begins  # all tokens of the document before it are in an example
    number = 0
    while len(begins):
        draws = rng.bits(keys, number)
        sizes = np.minimum(_draw_targets(draws, max_target, sequencing.short_seq_prob), ends - begins)
        starts = np.minimum(covered, ends - sizes)
        if sequencing.pairs:
            part, covered = _split_pairs(starts, sizes, covered, offsets, draws, sequencing.pairs)
        else:
            part = np.zeros(len(starts), EXAMPLE)
            part["start"], part["length_a"] = starts, sizes
            covered = starts + sizes
        parts.append(part)
        left = np.flatnonzero(covered < ends)
        if len(left) < len(begins):
            begins, ends, covered, keys = begins[left], ends[left], covered[left], keys[left]
        number += 1
    return np.concatenate(parts)


def _draw_targets(draws: np.ndarray, max_target: int, short_seq_prob: float) -> np.ndarray:
    """Returns the target length of each document's next example, int64 [documents]."""
    targets = np.full(len(draws), max_target, np.int64)
    short = np.flatnonzero(rng.uniform(rng.bits(draws, 0)) < short_seq_prob)
    targets[short] = _MIN_TARGET + rng.integers(rng.bits(draws[short], 1), max_target - _MIN_TARGET + 1)
    return targets


def _cut_sentences(
    corpus: Corpus, block: tuple[int, int, int], key: np.uint64, max_target: int, sequencing: Sequencing
) -> np.ndarray:
    """Returns the full-sentence examples of a block (shard, first document, last document + 1), local to the shard."""
    shard, begin, end = block
    borders = corpus.shards[shard].document_offsets[begin : end + 1].astype(np.int64)
    # For each sentence: the number of [SEP] before it in the shard, and its bounds in tokens including these [SEP].
    separators = np.repeat(np.arange(begin, end), np.diff(borders))
    offsets = corpus.shards[shard].sentence_offsets[borders[0] : borders[-1] + 1].astype(np.int64)
    begins, ends = offsets[:-1] + separators, offsets[1:] + separators
    stretch = (begins - begins[0]) // (_PIECE_LENGTHS * max_target)
    firsts = np.flatnonzero(np.diff(stretch, prepend=-1))
    covered, last = begins[firsts], ends[np.append(firsts[1:], len(begins)) - 1]
    keys = rng.bits(key, covered + corpus.token_bases[shard])
    next_begins = np.append(begins[1:], ends[-1])
    parts, short_prob = [], 1.0
    while len(covered):
        targets = _draw_targets(rng.bits(keys, len(parts)), max_target, short_prob)
        limits = np.minimum(covered + targets, last)
        sentence = np.searchsorted(ends, limits, side="right") - 1
        whole = (sentence >= 0) & (ends[sentence] > covered)  # otherwise the sentence is longer than the row
        part = np.zeros(len(covered), EXAMPLE)
        part["start"] = covered - separators[np.searchsorted(begins, covered, side="right") - 1]
        part["length_a"] = np.where(whole, ends[sentence], limits) - covered
        parts.append(part)
        covered = np.where(whole, next_begins[sentence], limits)
        left = np.flatnonzero(covered < last)
        covered, last, keys = covered[left], last[left], keys[left]
        short_prob = sequencing.short_seq_prob
    return np.concatenate(parts)


def _split_pairs(
    starts: np.ndarray, sizes: np.ndarray, covered: np.ndarray, offsets: np.ndarray, draws: np.ndarray, task: str
) -> tuple[np.ndarray, np.ndarray]:
    """Splits `sizes` tokens from `starts` into pairs; returns the examples and the end of the covered tokens."""
    ends = starts + sizes
    # Sentence borders strictly within the span. With a dtype other than that of `offsets`, NumPy would convert all of
    # these.
    low = np.searchsorted(offsets, starts.astype(offsets.dtype), side="right")
    high = np.searchsorted(offsets, ends.astype(offsets.dtype), side="left")
    draw = rng.uniform(rng.bits(draws, 2))
    borders = offsets[np.minimum(low + (draw * (high - low)).astype(np.int64), len(offsets) - 1)]
    inside = starts + 1 + (draw * (sizes - 1)).astype(np.int64)
    splits = np.where(high > low, borders, inside)
    # In a document of one token nothing can follow it: B is the next token of the corpus.
    single = sizes == 1
    part = np.zeros(len(starts), EXAMPLE)
    part["start"] = starts
    part["length_a"] = splits - starts
    part["length_b"] = np.where(single, 1, ends - splits)
    part["negative"] = (rng.bits(draws, 3) >> np.uint64(63)).astype(bool)
    if task == "sentence_order":
        return part, ends
    part["negative"] |= single
    return part, np.where(part["negative"], np.maximum(covered, splits), ends)
