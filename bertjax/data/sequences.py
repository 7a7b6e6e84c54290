"""From examples to sequences: where a random B comes from, and [CLS] A [SEP] B [SEP] in its place."""

import dataclasses
import itertools

import numpy as np

from bertjax.config.data import Sequencing
from bertjax.corpus.format import Corpus
from bertjax.data import rng
from bertjax.data.token_info import Vocabulary

# How often a random B is drawn until one is long enough. What follows A in its document is as long as it has to be;
# a random B that ends early would give its label away by its length.
_DRAWS = 8


@dataclasses.dataclass(frozen=True)
class Sequences:
    """Sequences before masking.

    Attributes:
      input_ids: int32 [batch, length], padded.
      first: int32 [batch], tokens of segment A.
      second: int32 [batch], tokens of segment B; 0 without pairs.
      negative: bool [batch], whether B is from another document, or the two are exchanged.
      pairs: whether there are B segments.
      separators: bool [batch, length], where [SEP] stands between documents within a segment; None: nowhere.
    """

    input_ids: np.ndarray
    first: np.ndarray
    second: np.ndarray
    negative: np.ndarray
    pairs: bool
    separators: np.ndarray | None = None

    @property
    def sizes(self) -> np.ndarray:
        """int32 [batch]: tokens, special ones included."""
        return self.first + self.second + (3 if self.pairs else 2)

    def token_types(self) -> np.ndarray:
        """int32 [batch, length]: 1 on B and its [SEP], 0 elsewhere."""
        columns = np.arange(self.input_ids.shape[1], dtype=np.int32)
        return ((columns > self.first[:, None] + 1) & (columns < self.sizes[:, None])).astype(np.int32)

    def attention_mask(self) -> np.ndarray:
        """int32 [batch, length]: 1 on tokens, 0 on padding."""
        columns = np.arange(self.input_ids.shape[1], dtype=np.int32)
        return (columns < self.sizes[:, None]).astype(np.int32)

    def special(self) -> np.ndarray:
        """Where [CLS], [SEP] and padding stand, which are never predicted: bool [batch, length]."""
        columns = np.arange(self.input_ids.shape[1], dtype=np.int32)
        special = columns >= self.sizes[:, None] - 1
        special[:, 0] = True
        special |= columns == self.first[:, None] + 1
        return special if self.separators is None else special | self.separators


def sequences(
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
      keys: uint64 [batch], a key for each row's draws.
      length: tokens of a sequence, special ones included.
      vocabulary: the special ids.
      sequencing: as the examples were cut; [CLS] A [SEP] B [SEP] for pairs, else [CLS] A [SEP].
    """
    start, negative = examples["start"], examples["negative"]
    first = examples["first"].astype(np.int32)
    second = examples["second"].astype(np.int32)
    follows = np.minimum(start + first, corpus.tokens - 1)  # behind a last document of one token there is nothing
    if sequencing.pairs == "next_sentence":
        chosen = np.flatnonzero(negative)
        follows[chosen], second[chosen] = _random_segments(corpus, start[chosen], second[chosen], keys[chosen])
    elif sequencing.pairs == "sentence_order":
        start, follows = np.where(negative, follows, start), np.where(negative, start, follows)
        first, second = np.where(negative, second, first), np.where(negative, first, second)
    tokens, separators = _windows(corpus, start, 1, length), None
    if sequencing.pairs:
        columns = np.arange(length, dtype=np.int32)
        tokens = np.where(columns <= first[:, None], tokens, _windows(corpus, follows, first + 2, length))
    elif sequencing.full_sentences:
        separators = _separators(corpus, start, first, length)
        tokens = np.take_along_axis(tokens, np.arange(length) - np.cumsum(separators, axis=1), axis=1)
        tokens[separators] = vocabulary.sep_id
    result = Sequences(tokens.astype(np.int32), first, second, negative, bool(sequencing.pairs), separators)
    # What the windows hold beside the segments is overwritten here.
    input_ids, rows = result.input_ids, np.arange(len(examples))
    np.copyto(input_ids, vocabulary.pad_id, where=result.attention_mask() == 0)
    input_ids[:, 0] = vocabulary.cls_id
    input_ids[rows, first + 1] = vocabulary.sep_id
    input_ids[rows, result.sizes - 1] = vocabulary.sep_id
    return result


def _separators(corpus: Corpus, start: np.ndarray, first: np.ndarray, length: int) -> np.ndarray:
    """Where [SEP] stands behind documents that end within a segment: bool [batch, length]."""
    own = np.searchsorted(corpus.document_tokens, start, side="right") - 1
    most = int((np.searchsorted(corpus.document_tokens, start + first, side="left") - own).max())
    ends = corpus.document_tokens[np.minimum(own[:, None] + np.arange(1, most + 1), corpus.documents)]
    # Each [SEP] moves what comes behind it.
    columns = 1 + ends - start[:, None] + np.arange(most)
    row, place = np.nonzero(columns < 1 + first[:, None])
    separators = np.zeros((len(start), length), bool)
    separators[row, columns[row, place]] = True
    return separators


def _windows(corpus: Corpus, start: np.ndarray, column: int | np.ndarray, length: int) -> np.ndarray:
    """Tokens [batch, length] as they lie in the corpus, so that the token `start` is in `column`.

    Before and behind the shard that holds the token its first and last ones are repeated.
    """
    shard = np.searchsorted(corpus.token_bases, start, side="right") - 1
    begin = start - corpus.token_bases[shard] - column
    order, groups = _groups(shard)
    places = begin[order, None] + np.arange(length)
    found = np.empty(places.shape, corpus.shards[0].tokens.dtype)
    for number, rows in groups:
        # Clipping is what lets NumPy write into `out` directly.
        corpus.shards[number].tokens.take(places[rows], out=found[rows], mode="clip")
    result = np.empty_like(found)
    result[order] = found
    return result


def _groups(shard: np.ndarray) -> tuple[np.ndarray, list[tuple[int, slice]]]:
    """Rows in the order of their shards, int64 [batch], and for each shard the slice of that order that is its."""
    order = np.argsort(shard, kind="stable")
    numbers, begins = np.unique(shard[order], return_index=True)
    bounds = [*begins.tolist(), len(order)]
    return order, [(n, slice(a, b)) for n, (a, b) in zip(numbers.tolist(), itertools.pairwise(bounds), strict=True)]


def _random_segments(
    corpus: Corpus, start: np.ndarray, wanted: np.ndarray, keys: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """First token and number of tokens of a random B for each A that begins at token `start`.

    B begins at a sentence drawn uniformly from all other documents. A draw that leaves less than `wanted` tokens to
    the document's end is drawn again; the last one moves back in its document instead, as far as that goes.
    """
    own = np.searchsorted(corpus.document_tokens, start, side="right") - 1
    own_sentence = corpus.document_sentences[own]
    own_sentences = corpus.document_sentences[own + 1] - own_sentence
    result = np.empty_like(start)
    document = np.empty_like(own)
    pending = np.arange(len(start))
    for draw in range(_DRAWS):
        others = corpus.sentences - own_sentences[pending]
        sentence = rng.integers(rng.bits(keys[pending], draw), others)
        sentence += np.where(sentence >= own_sentence[pending], own_sentences[pending], 0)
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
    """The first token of each sentence, both numbered through the split."""
    shard = np.searchsorted(corpus.sentence_bases, sentences, side="right") - 1
    local = sentences - corpus.sentence_bases[shard]
    order, groups = _groups(shard)
    result = corpus.token_bases[shard]
    for number, rows in groups:
        result[order[rows]] += corpus.shards[number].sentence_offsets[local[order[rows]]]
    return result
