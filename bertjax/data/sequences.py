"""Sequences of examples: random B segments, and [CLS] A [SEP] B [SEP]."""

import dataclasses
import itertools

import numpy as np

from bertjax.config.data import Sequencing
from bertjax.corpus.format import Corpus
from bertjax.data import rng
from bertjax.data.token_info import Vocabulary

# Attempts to draw a random B that is long enough. The text that follows A always is; a shorter random B would reveal
# its label by its length.
_DRAWS = 8


@dataclasses.dataclass(frozen=True)
class Sequences:
    """Sequences before masking.

    Attributes:
      input_ids: int32 [batch, length], padded.
      length_a: int32 [batch], tokens of segment A.
      length_b: int32 [batch], tokens of segment B; 0 without pairs.
      negative: bool [batch], whether B is from another document, or A and B are swapped.
      pairs: whether there are B segments.
      separators: bool [batch, length], the [SEP] between documents within a segment; None: there are none.
    """

    input_ids: np.ndarray
    length_a: np.ndarray
    length_b: np.ndarray
    negative: np.ndarray
    pairs: bool
    separators: np.ndarray | None = None

    @property
    def sizes(self) -> np.ndarray:
        """Number of tokens of each sequence, special tokens included: int32 [batch]."""
        return self.length_a + self.length_b + (3 if self.pairs else 2)

    def token_types(self) -> np.ndarray:
        """Returns the segment of each token: 1 on B and its [SEP], 0 elsewhere; int32 [batch, length]."""
        columns = np.arange(self.input_ids.shape[1], dtype=np.int32)
        return ((columns > self.length_a[:, None] + 1) & (columns < self.sizes[:, None])).astype(np.int32)

    def attention_mask(self) -> np.ndarray:
        """Returns 1 on tokens, 0 on padding: int32 [batch, length]."""
        columns = np.arange(self.input_ids.shape[1], dtype=np.int32)
        return (columns < self.sizes[:, None]).astype(np.int32)

    def special(self) -> np.ndarray:
        """Whether a position holds [CLS], [SEP] or padding, which are never predicted: bool [batch, length]."""
        columns = np.arange(self.input_ids.shape[1], dtype=np.int32)
        special = columns >= self.sizes[:, None] - 1
        special[:, 0] = True
        special |= columns == self.length_a[:, None] + 1
        return special if self.separators is None else special | self.separators


def read_sequences(
    corpus: Corpus,
    examples: np.ndarray,
    keys: np.ndarray,
    length: int,
    vocabulary: Vocabulary,
    sequencing: Sequencing,
) -> Sequences:
    """Reads the tokens of examples from the corpus.

    Args:
      corpus: the split that the examples were cut from.
      examples: EXAMPLE [batch].
      keys: uint64 [batch], the key of each row's draws.
      length: width of the result in tokens, special tokens included.
      vocabulary: the special ids.
      sequencing: how the examples were cut; [CLS] A [SEP] B [SEP] for pairs, otherwise [CLS] A [SEP].
    """
    start_a, negative = examples["start"], examples["negative"]
    length_a = examples["length_a"].astype(np.int32)
    length_b = examples["length_b"].astype(np.int32)
    start_b = np.minimum(start_a + length_a, corpus.tokens - 1)  # nothing follows a last document of one token
    if sequencing.pairs == "next_sentence":
        random = np.flatnonzero(negative)
        start_b[random], length_b[random] = _random_segments(corpus, start_a[random], length_b[random], keys[random])
    elif sequencing.pairs == "sentence_order":
        start_a, start_b = np.where(negative, start_b, start_a), np.where(negative, start_a, start_b)
        length_a, length_b = np.where(negative, length_b, length_a), np.where(negative, length_a, length_b)
    tokens, separators = _windows(corpus, start_a, 1, length), None
    if sequencing.pairs:
        columns = np.arange(length, dtype=np.int32)
        tokens = np.where(columns <= length_a[:, None], tokens, _windows(corpus, start_b, length_a + 2, length))
    elif sequencing.full_sentences:
        separators = _separators(corpus, start_a, length_a, length)
        tokens = np.take_along_axis(tokens, np.arange(length) - np.cumsum(separators, axis=1), axis=1)
        tokens[separators] = vocabulary.sep_id
    result = Sequences(tokens.astype(np.int32), length_a, length_b, negative, bool(sequencing.pairs), separators)
    # Overwrite the tokens of the windows that lie outside the segments.
    input_ids, rows = result.input_ids, np.arange(len(examples))
    np.copyto(input_ids, vocabulary.pad_id, where=result.attention_mask() == 0)
    input_ids[:, 0] = vocabulary.cls_id
    input_ids[rows, length_a + 1] = vocabulary.sep_id
    input_ids[rows, result.sizes - 1] = vocabulary.sep_id
    return result


def _separators(corpus: Corpus, start: np.ndarray, length_a: np.ndarray, length: int) -> np.ndarray:
    """Returns where [SEP] follows a document that ends within a segment: bool [batch, length]."""
    document = np.searchsorted(corpus.document_tokens, start, side="right") - 1
    max_ends = int((np.searchsorted(corpus.document_tokens, start + length_a, side="left") - document).max())
    ends = corpus.document_tokens[np.minimum(document[:, None] + np.arange(1, max_ends + 1), corpus.documents)]
    # Each [SEP] shifts the tokens after it by one.
    columns = 1 + ends - start[:, None] + np.arange(max_ends)
    row, number = np.nonzero(columns < 1 + length_a[:, None])
    separators = np.zeros((len(start), length), bool)
    separators[row, columns[row, number]] = True
    return separators


def _windows(corpus: Corpus, start: np.ndarray, column: int | np.ndarray, length: int) -> np.ndarray:
    """Returns windows of the corpus, [batch, length], with token `start` in `column`.

    Beyond the shard that holds the token, its first or last token is repeated.
    """
    shard = np.searchsorted(corpus.token_bases, start, side="right") - 1
    begin = start - corpus.token_bases[shard] - column
    order, groups = _groups(shard)
    indices = begin[order, None] + np.arange(length)
    by_shard = np.empty(indices.shape, corpus.shards[0].tokens.dtype)
    for number, rows in groups:
        # Only with mode="clip" NumPy writes into `out` without a buffer.
        corpus.shards[number].tokens.take(indices[rows], out=by_shard[rows], mode="clip")
    result = np.empty_like(by_shard)
    result[order] = by_shard
    return result


def _groups(shard: np.ndarray) -> tuple[np.ndarray, list[tuple[int, slice]]]:
    """Returns the rows in the order of their shards, int64 [batch], and (shard, slice of that order) for each shard."""
    order = np.argsort(shard, kind="stable")
    numbers, begins = np.unique(shard[order], return_index=True)
    bounds = [*begins.tolist(), len(order)]
    return order, [(n, slice(a, b)) for n, (a, b) in zip(numbers.tolist(), itertools.pairwise(bounds), strict=True)]


def _random_segments(
    corpus: Corpus, start: np.ndarray, wanted: np.ndarray, keys: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first token and the number of tokens of a random B for each A that begins at token `start`.

    B begins at a sentence drawn uniformly from all other documents. A draw with fewer than `wanted` tokens to the end
    of its document is repeated; the last draw instead moves back in its document as far as possible.
    """
    document_a = np.searchsorted(corpus.document_tokens, start, side="right") - 1
    first_sentence_a = corpus.document_sentences[document_a]
    sentences_a = corpus.document_sentences[document_a + 1] - first_sentence_a
    result = np.empty_like(start)
    document = np.empty_like(document_a)
    pending = np.arange(len(start))
    for draw in range(_DRAWS):
        others = corpus.sentences - sentences_a[pending]
        sentence = rng.integers(rng.bits(keys[pending], draw), others)
        sentence += np.where(sentence >= first_sentence_a[pending], sentences_a[pending], 0)
        document[pending] = np.searchsorted(corpus.document_sentences, sentence, side="right") - 1
        result[pending] = _sentence_tokens(corpus, sentence)
        room = corpus.document_tokens[document[pending] + 1] - result[pending]
        pending = pending[room < wanted[pending]]
        if not len(pending):
            break
    begin, end = corpus.document_tokens[document], corpus.document_tokens[document + 1]
    result = np.maximum(np.minimum(result, end - wanted), begin)
    return result, np.minimum(wanted, end - result)


def _sentence_tokens(corpus: Corpus, sentences: np.ndarray) -> np.ndarray:
    """Returns the first token of each sentence, both numbered through the split."""
    shard = np.searchsorted(corpus.sentence_bases, sentences, side="right") - 1
    local = sentences - corpus.sentence_bases[shard]
    order, groups = _groups(shard)
    result = corpus.token_bases[shard]
    for number, rows in groups:
        result[order[rows]] += corpus.shards[number].sentence_offsets[local[order[rows]]]
    return result
