"""Data of evaluation: the held-out examples with fixed masks, and the unigram baseline."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from bertjax.corpus.format import Corpus
from bertjax.data.batch import HostBatch
from bertjax.data.stream import RowFormat, Stream
from bertjax.data.token_info import Vocabulary

# Independent of the seed of the run: all runs are scored on the same masks.
_SEED = 0
# Tokens are counted in blocks, at most 64M tokens in all.
_BLOCK = 2**20
_MAX_BLOCKS = 64


def heldout_batches(
    corpus: Corpus,
    vocabulary: Vocabulary,
    row_format: RowFormat,
    batch: int,
    limit: int | None = None,
    rows: slice | np.ndarray | None = None,
) -> Iterator[HostBatch]:
    """Returns batches with every held-out example once, always in the same order with the same masks and pairs.

    Args:
      corpus: the held-out split.
      vocabulary: the vocabulary of the corpus's tokenizer.
      row_format: that of training; its packing is ignored.
      batch: sequences per batch.
      limit: maximum number of examples, sampled randomly.
      rows: the rows of each batch for this host; None selects all.

    Yields:
      Batches as in training, with `example_weights`, float32 [batch]: 1 for an example, 0 for the rows that pad the
      last batch, whose `masked_lm_weights` are 0 as well.

    Raises:
      UserError: next-sentence pairs from fewer than two documents.
    """
    padded = dataclasses.replace(row_format, sequencing=dataclasses.replace(row_format.sequencing, packing=0))
    stream = Stream(corpus, vocabulary, padded, _SEED, "heldout")
    count = min(stream.epochs.count(0), limit or np.inf)
    return _batches(stream, int(count), batch, slice(None) if rows is None else rows)


def _batches(stream: Stream, count: int, batch: int, rows: slice | np.ndarray) -> Iterator[HostBatch]:
    for begin in range(0, count, batch):
        numbers = np.arange(begin, begin + batch)[rows]
        weights = (numbers < count).astype(np.float32)
        result = stream.batch(np.where(numbers < count, numbers, 0))
        result["masked_lm_weights"] *= weights[:, None]
        yield {**result, "example_weights": weights}


def unigram_entropy(train: Corpus, heldout: Corpus) -> float:
    """Returns the cross-entropy of the held-out tokens under the unigram distribution of `train`, in nats per token.

    The distribution is smoothed by adding one to every count. A model with a higher masked-LM loss has learned less
    than a unigram model. Of a split with more than 64M tokens, an evenly spaced sample of that size is counted.
    """
    counts = _token_counts(train) + 1
    return float(-np.average(np.log(counts / counts.sum()), weights=_token_counts(heldout)))


def _token_counts(corpus: Corpus) -> np.ndarray:
    """Returns the number of occurrences of each id, int64 [vocab_size]."""
    blocks = [(shard.tokens, begin) for shard in corpus.shards for begin in range(0, len(shard.tokens), _BLOCK)]
    counts = np.zeros(corpus.vocab_size, np.int64)
    for tokens, begin in blocks[:: -(-len(blocks) // _MAX_BLOCKS)]:
        counts += np.bincount(tokens[begin : begin + _BLOCK], minlength=corpus.vocab_size)
    return counts
