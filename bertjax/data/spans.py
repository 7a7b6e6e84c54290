"""The epoch plan: which span of the corpus is which example.

A document is walked from its beginning. An example takes as many tokens as its target length wants; a pair is
parted at a sentence border within them. Where the second half is a random one, only the first half is used up and the
next example begins at its end, as in BERT, so no text is lost. Two things differ from BERT's script, which joins whole
sentences and truncates them at random, and so loses text:

- Examples are filled to the token: one may end inside a sentence, and the next begins there.
- The last example of a document ends with the document and reaches back to fill its target. The rest of a
  document, of any length, otherwise made one short example after the other (half of them random pairs, which leave a
  yet shorter rest).

So an example's length is known before its label is drawn, and the label cannot be told from the length.

Full sentences (RoBERTa) are rows that end with a sentence and go on from one document into the next. Here stretches of
a hundred rows and more take the place of documents, and each begins with a row of a random length, so that every epoch
has other rows.

All draws of an example are hashes of (seed, epoch, beginning of its document, number in its document): documents
are walked side by side, one NumPy step for the k-th example of all of them.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from bertjax.config.data import Sequencing
from bertjax.corpus.format import Corpus
from bertjax.data import rng

# Raise it whenever the same arguments give other examples, so that cached plans are not taken for the new ones.
ALGORITHM = 2
# start: first token, numbered through the split. first: tokens of segment A (or of the only one), with full_sentences
# those of [SEP] between documents too. second: tokens wanted of segment B, 0 without pairs. negative: with
# next_sentence whether B is from another document, with sentence_order whether B is to stand before A.
EXAMPLE = np.dtype([("start", "<i8"), ("first", "<u2"), ("second", "<u2"), ("negative", "?")], align=True)
# A document longer than this many lengths is walked in pieces; else one giant document would be one long loop.
_PIECE_LENGTHS = 128
# Documents walked side by side: enough to make NumPy's calls cheap, few enough to stay in the cache.
_BLOCK = 2**15
_SHORTEST = 2


def examples(
    corpus: Corpus,
    length: int,
    seed: int,
    epoch: int,
    sequencing: Sequencing,
) -> np.ndarray:
    """All examples of an epoch, in a fixed order (not shuffled).

    Args:
      corpus: an open split.
      length: tokens of a sequence, special ones included.
      seed: of the draws.
      epoch: each cuts the corpus in another way.
      sequencing: pairs, single segments or full sentences, and the share of examples whose target length is drawn
        uniformly from 2 to the longest.

    Returns:
      EXAMPLE [examples]. Every token of the corpus is in segment A, or in a B that follows its A, of at least one.
    """
    key = rng.key(seed, "examples", epoch)
    longest = length - sequencing.special_tokens

    def walk(block: tuple[int, int, int]) -> np.ndarray:
        shard, begin, end = block
        base = corpus.token_bases[shard]
        if sequencing.full_sentences:
            parts = _walk_sentences(corpus, block, key, longest, sequencing)
        else:
            starts, ends = _pieces(corpus, shard, begin, end, _PIECE_LENGTHS * length)
            offsets = corpus.shards[shard].sentence_offsets
            parts = _walk(starts, ends, offsets, rng.bits(key, starts + base), longest, sequencing)
        parts["start"] += base
        return parts

    blocks = [
        (number, begin, min(begin + _BLOCK, len(shard.document_offsets) - 1))
        for number, shard in enumerate(corpus.shards)
        for begin in range(0, len(shard.document_offsets) - 1, _BLOCK)
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.concatenate(list(pool.map(walk, blocks)))


def example_sizes(examples: np.ndarray, sequencing: Sequencing) -> np.ndarray:
    """int64: the tokens of each EXAMPLE, special ones included; 0 where there is none (`first` is 0)."""
    texts = examples["first"].astype(np.int64) + examples["second"]
    return (texts + sequencing.special_tokens) * (examples["first"] > 0)


def cut(corpus: Corpus, starts: np.ndarray, sizes: np.ndarray, draws: np.ndarray, sequencing: Sequencing) -> np.ndarray:
    """Examples of `sizes` tokens from the tokens `starts` on, each within a document: EXAMPLE [starts]."""
    result = np.zeros(len(starts), EXAMPLE)
    result["start"], result["first"] = starts, sizes
    if sequencing.pairs:
        shard = np.searchsorted(corpus.token_bases, starts, side="right") - 1
        for number in np.unique(shard):
            here, base = np.flatnonzero(shard == number), corpus.token_bases[number]
            local, offsets = starts[here] - base, corpus.shards[number].sentence_offsets
            result[here], _ = _pairs(local, sizes[here], local, offsets, draws[here], sequencing.pairs)
            result["start"][here] += base
    return result


def _pieces(corpus: Corpus, shard: int, begin: int, end: int, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last + 1 token, local to the shard, of the documents [begin, end) in pieces of at most `longest`."""
    first = corpus.document_bases[shard]
    bounds = corpus.document_tokens[first + begin : first + end + 1] - corpus.token_bases[shard]
    starts, ends = bounds[:-1], bounds[1:]
    counts = -(-(ends - starts) // longest)
    if counts.max() == 1:
        return starts, ends
    starts, ends = np.repeat(starts, counts), np.repeat(ends, counts)
    number = np.arange(len(starts)) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = starts + number * longest
    return starts, np.minimum(starts + longest, ends)


def _walk(
    begins: np.ndarray,
    ends: np.ndarray,
    offsets: np.ndarray,
    keys: np.ndarray,
    longest: int,
    sequencing: Sequencing,
) -> np.ndarray:
    """The examples of documents [begins, ends), all within one shard with these sentence `offsets`."""
    parts = []
    covered = begins  # every token before it is in an example
    number = 0
    while len(begins):
        draws = rng.bits(keys, number)
        sizes = np.minimum(_targets(draws, longest, sequencing.short_seq_prob), ends - begins)
        starts = np.minimum(covered, ends - sizes)
        if sequencing.pairs:
            part, covered = _pairs(starts, sizes, covered, offsets, draws, sequencing.pairs)
        else:
            part = np.zeros(len(starts), EXAMPLE)
            part["start"], part["first"] = starts, sizes
            covered = starts + sizes
        parts.append(part)
        left = np.flatnonzero(covered < ends)
        if len(left) < len(begins):
            begins, ends, covered, keys = begins[left], ends[left], covered[left], keys[left]
        number += 1
    return np.concatenate(parts)


def _targets(draws: np.ndarray, longest: int, short_seq_prob: float) -> np.ndarray:
    """int64 [documents]: the tokens that each next example wants."""
    targets = np.full(len(draws), longest, np.int64)
    short = np.flatnonzero(rng.uniform(rng.bits(draws, 0)) < short_seq_prob)
    targets[short] = _SHORTEST + rng.integers(rng.bits(draws[short], 1), longest - _SHORTEST + 1)
    return targets


def _walk_sentences(
    corpus: Corpus, block: tuple[int, int, int], key: np.uint64, longest: int, sequencing: Sequencing
) -> np.ndarray:
    """The examples of full sentences of a block (shard, first document, last + 1), local to the shard."""
    shard, begin, end = block
    borders = corpus.shards[shard].document_offsets[begin : end + 1].astype(np.int64)
    # Of each sentence: [SEP] before it in the shard; begin and end, counted in tokens and the [SEP] between documents.
    separators = np.repeat(np.arange(begin, end), np.diff(borders))
    offsets = corpus.shards[shard].sentence_offsets[borders[0] : borders[-1] + 1].astype(np.int64)
    begins, ends = offsets[:-1] + separators, offsets[1:] + separators
    stretch = (begins - begins[0]) // (_PIECE_LENGTHS * longest)
    firsts = np.flatnonzero(np.diff(stretch, prepend=-1))
    covered, last = begins[firsts], ends[np.append(firsts[1:], len(begins)) - 1]
    keys = rng.bits(key, covered + corpus.token_bases[shard])
    behind = np.append(begins[1:], ends[-1])  # where the next sentence begins
    parts, short = [], 1.0
    while len(covered):
        targets = _targets(rng.bits(keys, len(parts)), longest, short)
        limits = np.minimum(covered + targets, last)
        sentence = np.searchsorted(ends, limits, side="right") - 1
        whole = (sentence >= 0) & (ends[sentence] > covered)  # else the sentence is longer than the row
        part = np.zeros(len(covered), EXAMPLE)
        part["start"] = covered - separators[np.searchsorted(begins, covered, side="right") - 1]
        part["first"] = np.where(whole, ends[sentence], limits) - covered
        parts.append(part)
        covered = np.where(whole, behind[sentence], limits)
        left = np.flatnonzero(covered < last)
        covered, last, keys = covered[left], last[left], keys[left]
        short = sequencing.short_seq_prob
    return np.concatenate(parts)


def _pairs(
    starts: np.ndarray, sizes: np.ndarray, covered: np.ndarray, offsets: np.ndarray, draws: np.ndarray, task: str
) -> tuple[np.ndarray, np.ndarray]:
    """Parts `sizes` tokens from `starts` into pairs; returns the examples and how far they cover their documents."""
    ends = starts + sizes
    # Sentence borders strictly within the span. The type must be the offsets' own, or NumPy converts all of them.
    low = np.searchsorted(offsets, starts.astype(offsets.dtype), side="right")
    high = np.searchsorted(offsets, ends.astype(offsets.dtype), side="left")
    draw = rng.uniform(rng.bits(draws, 2))
    borders = offsets[np.minimum(low + (draw * (high - low)).astype(np.int64), len(offsets) - 1)]
    inside = starts + 1 + (draw * (sizes - 1)).astype(np.int64)
    splits = np.where(high > low, borders, inside)
    # A document of one token has nothing that could follow it: B is what follows in the corpus.
    alone = sizes == 1
    part = np.zeros(len(starts), EXAMPLE)
    part["start"] = starts
    part["first"] = splits - starts
    part["second"] = np.where(alone, 1, ends - splits)
    part["negative"] = (rng.bits(draws, 3) >> np.uint64(63)).astype(bool)
    if task == "sentence_order":
        return part, ends
    part["negative"] |= alone
    return part, np.where(part["negative"], np.maximum(covered, splits), ends)
