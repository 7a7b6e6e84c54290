"""What evaluation reads: the held-out examples with fixed masks, and how well word counts alone predict them."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from bertjax.corpus.format import Corpus
from bertjax.data.batch import Batch
from bertjax.data.stream import RowFormat, Stream
from bertjax.data.token_info import Vocabulary

# Not the run's seed: runs with different seeds are scored on the same masks.
_SEED = 0
# Tokens are counted in blocks, of which there are at most so many; 64M tokens in all.
_BLOCK = 2**20
_BLOCKS = 64


def heldout_batches(
    corpus: Corpus,
    vocabulary: Vocabulary,
    row_format: RowFormat,
    batch: int,
    limit: int | None = None,
    rows: slice | np.ndarray | None = None,
) -> Iterator[Batch]:
    """Every held-out example once, always in the same order with the same masks and pairs.

    Args:
      corpus: the held-out split.
      vocabulary: of the tokenizer that made the corpus.
      row_format: that of the training, whose packing is ignored.
      batch: sequences a batch.
      limit: stop after this many examples, a random sample of all.
      rows: a host's rows of each batch; None takes all.

    Yields:
      Batches as in training, and `example_weights`, float32 [batch]: 1 for an example, 0 for the rows that fill up
      the last batch, whose `masked_lm_weights` are 0 as well.

    Raises:
      UserError: pairs from fewer than two documents.
    """
    padded = dataclasses.replace(row_format, sequencing=dataclasses.replace(row_format.sequencing, packing=0))
    stream = Stream(corpus, vocabulary, padded, _SEED, "heldout")
    count = min(stream.plans.count(0), limit or np.inf)
    return _batches(stream, int(count), batch, slice(None) if rows is None else rows)


def _batches(stream: Stream, count: int, batch: int, rows: slice | np.ndarray) -> Iterator[Batch]:
    for begin in range(0, count, batch):
        numbers = np.arange(begin, begin + batch)[rows]
        weights = (numbers < count).astype(np.float32)
        result = stream.batch(np.where(numbers < count, numbers, 0))
        result["masked_lm_weights"] *= weights[:, None]
        yield {**result, "example_weights": weights}


def unigram_entropy(train: Corpus, heldout: Corpus) -> float:
    """Cross-entropy of the held-out tokens under the training split's unigram distribution, in nats a token.

    The distribution is smoothed by counting every id once more. A model whose masked-LM loss is above this has learned
    less than word counts. Of a split of more than 64M tokens an even sample of so many is counted.
    """
    counts = _counts(train) + 1
    return float(-np.average(np.log(counts / counts.sum()), weights=_counts(heldout)))


def _counts(corpus: Corpus) -> np.ndarray:
    """int64 [vocab_size]: how often each id occurs."""
    blocks = [(shard.tokens, begin) for shard in corpus.shards for begin in range(0, len(shard.tokens), _BLOCK)]
    counts = np.zeros(corpus.vocab_size, np.int64)
    for tokens, begin in blocks[:: -(-len(blocks) // _BLOCKS)]:
        counts += np.bincount(tokens[begin : begin + _BLOCK], minlength=corpus.vocab_size)
    return counts
