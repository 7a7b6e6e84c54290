"""Selects the documents of a corpus, before any tokenization.

One pass over the sources finds duplicates, chooses the held-out documents, the number of copies of weighted documents
and the sample on which a vocabulary is trained. It keeps a 16-byte digest and one byte per document, and the sample, in
memory. The result depends only on the documents, their order and the seed.
"""

import dataclasses
import hashlib
import heapq
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from bertjax.errors import UserError
from bertjax.text.sources import Source

DIGEST_BYTES = 16
# Marks held-out documents in `Selection.copies`.
HELDOUT = 255
# A smaller held-out split would not be meaningful.
MIN_HELDOUT = 8
# Upper bound of the held-out share of a small corpus,
MAX_HELDOUT_SHARE = 0.25
# except that next-sentence pairs need two documents in each split.
MIN_DOCUMENTS_FOR_PAIRS = 2
# Longer documents are truncated in the sample for the vocabulary.
SAMPLE_DOCUMENT_CHARACTERS = 100_000


@dataclasses.dataclass(frozen=True)
class Selection:
    """The selected documents, in source order.

    Attributes:
      copies: uint8 [documents] for each source: number of copies in the train split (0: dropped), or `HELDOUT`.
      duplicates: number of documents dropped because they equal an earlier one.
      thinned: number of documents dropped by a weight below 1.
    """

    copies: tuple[np.ndarray, ...]
    duplicates: int
    thinned: int

    def passes(self, source: int) -> int:
        """Returns how many times a source must be read."""
        copies = self.copies[source]
        return max(int(copies[copies != HELDOUT].max(initial=0)), int((copies == HELDOUT).any()))

    @property
    def documents(self) -> int:
        """Number of documents in the corpus, including copies."""
        counts = (np.where(copies == HELDOUT, 1, copies).sum(dtype=np.int64) for copies in self.copies)
        return int(sum(counts))


def select(
    sources: Sequence[Source],
    *,
    heldout: float,
    seed: int,
    sample_characters: int = 0,
    progress: Callable[[int], None] = lambda documents: None,
) -> tuple[Selection, list[tuple[int, str]]]:
    """Reads all sources once and selects the documents.

    Args:
      sources: in order; the first of equal documents is kept.
      heldout: share of the distinct documents to hold out (at least `MIN_HELDOUT` documents, at most a quarter,
        but two of four to seven); 0 holds out none.
      seed: for the choice of the held-out documents and of those dropped by a fractional weight.
      sample_characters: approximate size of the sample, which is uniform over documents.
      progress: called with the number of documents read so far.

    Returns:
      The selection, and the sample as (source, raw document) pairs in a random order.

    Raises:
      UserError: there are no documents, or a source cannot be read.
    """
    key = hashlib.blake2b(str(seed).encode(), digest_size=32).digest()
    digests, counts = bytearray(), []
    sample = _Sample(sample_characters)
    for index, source in enumerate(sources):
        before = len(digests)
        for document in source.documents():
            digest = hashlib.blake2b(document.encode(), digest_size=DIGEST_BYTES, key=key).digest()
            digests += digest
            sample.offer(digest, index, document)
            progress(len(digests) // DIGEST_BYTES)
        if len(digests) == before:
            raise UserError(f"--source={source.spec}: no documents found; check that it contains text")
        counts.append((len(digests) - before) // DIGEST_BYTES)
    return _decide(digests, counts, [source.weight for source in sources], heldout), sample.documents()


def _decide(digests: bytearray, counts: Sequence[int], weights: Sequence[float], heldout: float) -> Selection:
    """Selects documents by their digests; `counts` and `weights` are those of the sources.

    The digests are keyed with the seed and also serve as random numbers: the first eight bytes order the documents
    for the held-out split, the last eight decide on the fractional part of a weight.
    """
    words = np.frombuffer(digests, np.uint64).reshape(-1, 2)
    first = _first_occurrences(words)
    duplicates = int(len(first) - first.sum())
    copies = np.zeros(len(words), np.uint8)
    bounds = np.cumsum(counts)[:-1]
    parts = tuple(np.split(copies, bounds))  # views
    for part, draws, weight in zip(parts, np.split(words[:, 1], bounds), weights, strict=True):
        # 2^64 times the fraction; a fraction is below 1, so it fits.
        part[:] = np.uint8(weight) + (draws < np.uint64(math.ldexp(weight % 1, 64)))
    thinned = int(np.count_nonzero(first & (copies == 0)))
    copies[~first] = 0
    remaining = int(np.count_nonzero(copies))
    if not remaining:
        raise UserError("the weights leave no documents; increase them")
    heldout_indices = _smallest(words[:, 0], copies > 0, _heldout_documents(remaining, heldout))
    copies[heldout_indices] = HELDOUT
    return Selection(parts, duplicates, thinned)


def _heldout_documents(documents: int, share: float) -> int:
    """Returns the number of documents to hold out."""
    if not share or documents < 2 * MIN_DOCUMENTS_FOR_PAIRS:
        return 0
    number = min(max(round(share * documents), MIN_HELDOUT), int(documents * MAX_HELDOUT_SHARE))
    return max(number, MIN_DOCUMENTS_FOR_PAIRS)


def _first_occurrences(digests: np.ndarray) -> np.ndarray:
    """Whether each digest is the first of its value: bool [documents] for uint64 [documents, 2].

    Processes the digests by their lowest byte, so that only a 256th of them is sorted or copied at a time.
    """
    first = np.zeros(len(digests), bool)
    buckets = (digests[:, 0] & np.uint64(255)).astype(np.uint8)
    for bucket in range(256):
        indices = np.flatnonzero(buckets == bucket)
        if len(indices):
            _, first_indices = np.unique(digests[indices], axis=0, return_index=True)
            first[indices[first_indices]] = True
    return first


def _smallest(keys: np.ndarray, allowed: np.ndarray, count: int, chunk: int = 1 << 20) -> np.ndarray:
    """Returns the indices of the `count` smallest allowed keys, chunk by chunk to keep memory constant."""
    best = np.zeros(0, np.int64)
    for start in range(0, len(keys), chunk):
        candidates = np.concatenate([best, start + np.flatnonzero(allowed[start : start + chunk])])
        order = np.argsort(keys[candidates], kind="stable")
        best = candidates[order[:count]]
    return best


class _Sample:
    """A bounded sample: the documents with the smallest digests, uniform for any order of the sources."""

    def __init__(self, characters: int):
        self._free_characters = characters
        self._heap: list[tuple[int, int, str]] = []  # the largest digest first
        self._digests: set[int] = set()

    def offer(self, digest: bytes, source: int, document: str) -> None:
        key = int.from_bytes(digest, "big")
        full = self._free_characters <= 0 and (not self._heap or key > -self._heap[0][0])
        if full or key in self._digests:
            return
        document = document[:SAMPLE_DOCUMENT_CHARACTERS]
        heapq.heappush(self._heap, (-key, source, document))
        self._digests.add(key)
        self._free_characters -= len(document)
        while self._free_characters < 0 and len(self._heap) > 1:
            key, _, dropped = heapq.heappop(self._heap)
            self._digests.discard(-key)
            self._free_characters += len(dropped)

    def documents(self) -> list[tuple[int, str]]:
        return [(source, document) for _, source, document in sorted(self._heap, reverse=True)]


def iter_selected(sources: Sequence[Source], selection: Selection) -> Iterator[tuple[int, str, str]]:
    """Yields (source, split, raw document) for every copy of every selected document, in corpus order.

    A source with a weight above 1 is read once per repetition, so that copies are not adjacent.

    Raises:
      UserError: the number of documents of a source has changed since the selection.
    """
    for index, source in enumerate(sources):
        copies = selection.copies[index]
        for repetition in range(selection.passes(index)):
            number = -1
            for number, document in enumerate(source.documents()):
                if number >= len(copies):
                    break
                count = copies[number]
                if count == HELDOUT:
                    if repetition == 0:
                        yield index, "heldout", document
                elif repetition < count:
                    yield index, "train", document
            if number + 1 != len(copies):
                raise UserError(
                    f"--source={source.spec}: changed while it was being read; delete the output and run prepare again"
                )
