"""Which documents a corpus takes, decided before anything is tokenised.

One pass over the sources finds duplicates, held-out documents, how often a weighted document comes, and the sample
that a vocabulary is trained on. It holds a 16-byte digest and one byte a document, and the sample. Everything it
decides hangs on the documents, their order and the seed alone.
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
# In `Selection.copies`.
HELDOUT = 255
# Below this a held-out split says nothing, whatever its share.
MIN_HELDOUT = 8
# Of a small corpus at most this part is held out,
MAX_HELDOUT_SHARE = 0.25
# but two documents, which next-sentence pairs need, where that leaves two to train on.
MIN_PAIRED = 2
# Of a longer document only so much goes into the sample for the vocabulary.
SAMPLE_DOCUMENT_CHARACTERS = 100_000


@dataclasses.dataclass(frozen=True)
class Selection:
    """What becomes of each document, in source order.

    Attributes:
      copies: for each source uint8 [documents]: how often the document goes into the train split (0: dropped), or
        `HELDOUT`.
      duplicates: documents dropped because an equal one came before.
      thinned: documents dropped by a weight below 1.
    """

    copies: tuple[np.ndarray, ...]
    duplicates: int
    thinned: int

    def passes(self, source: int) -> int:
        """How often a source must be read."""
        copies = self.copies[source]
        return max(int(copies[copies != HELDOUT].max(initial=0)), int((copies == HELDOUT).any()))

    @property
    def documents(self) -> int:
        """Documents that go into the corpus, copies counted."""
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
    """Reads all sources once and decides.

    Args:
      sources: in order; among equal documents the first one stays.
      heldout: share of the distinct documents to hold out (at least `MIN_HELDOUT` documents, at most a quarter,
        but two of four to seven); 0 holds out none.
      seed: decides which.
      sample_characters: about how much text to sample, uniformly by document.
      progress: told the number of documents read so far.

    Returns:
      The selection, and the sample as (source, raw document) pairs in an order of its own.

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
            raise UserError(f"--source={source.spec}: no documents in it; check that it holds text")
        counts.append((len(digests) - before) // DIGEST_BYTES)
    return _decide(digests, counts, [source.weight for source in sources], heldout), sample.documents()


def _decide(digests: bytearray, counts: Sequence[int], weights: Sequence[float], heldout: float) -> Selection:
    """Selects from the digests of all documents, of which each source has so many of one weight.

    The digests are keyed with the seed, so they serve as the random numbers too: the first eight bytes order documents
    for the held-out split, the last eight decide about a fraction of a weight.
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
    kept = int(np.count_nonzero(copies))
    wanted = _heldout_documents(kept, heldout)
    if not kept:
        raise UserError("the weights leave no document; give larger ones")
    copies[_smallest(words[:, 0], copies > 0, wanted)] = HELDOUT
    return Selection(parts, duplicates, thinned)


def _heldout_documents(kept: int, share: float) -> int:
    """How many of `kept` documents to hold out."""
    if not share or kept < 2 * MIN_PAIRED:
        return 0
    return max(min(max(round(share * kept), MIN_HELDOUT), int(kept * MAX_HELDOUT_SHARE)), MIN_PAIRED)


def _first_occurrences(digests: np.ndarray) -> np.ndarray:
    """Marks the first of equal rows: bool [documents] for uint64 [documents, 2].

    Works through the digests by their lowest byte, so that only a 256th of them is ever sorted or copied.
    """
    first = np.zeros(len(digests), bool)
    buckets = (digests[:, 0] & np.uint64(255)).astype(np.uint8)
    for bucket in range(256):
        rows = np.flatnonzero(buckets == bucket)
        if len(rows):
            _, where = np.unique(digests[rows], axis=0, return_index=True)
            first[rows[where]] = True
    return first


def _smallest(keys: np.ndarray, allowed: np.ndarray, count: int, chunk: int = 1 << 20) -> np.ndarray:
    """Indices of the `count` smallest keys among the allowed ones, a chunk at a time to keep memory flat."""
    best = np.zeros(0, np.int64)
    for start in range(0, len(keys), chunk):
        candidates = np.concatenate([best, start + np.flatnonzero(allowed[start : start + chunk])])
        order = np.argsort(keys[candidates], kind="stable")
        best = candidates[order[:count]]
    return best


class _Sample:
    """The documents with the smallest digests, as many as fit: a uniform sample, whatever the order of the sources."""

    def __init__(self, characters: int):
        self._room = characters
        self._heap: list[tuple[int, int, str]] = []  # the largest digest on top
        self._seen: set[int] = set()

    def offer(self, digest: bytes, source: int, document: str) -> None:
        key = int.from_bytes(digest, "big")
        full = self._room <= 0 and (not self._heap or key > -self._heap[0][0])
        if full or key in self._seen:
            return
        document = document[:SAMPLE_DOCUMENT_CHARACTERS]
        heapq.heappush(self._heap, (-key, source, document))
        self._seen.add(key)
        self._room -= len(document)
        while self._room < 0 and len(self._heap) > 1:
            key, _, dropped = heapq.heappop(self._heap)
            self._seen.discard(-key)
            self._room += len(dropped)

    def documents(self) -> list[tuple[int, str]]:
        return [(source, document) for _, source, document in sorted(self._heap, reverse=True)]


def emitted(sources: Sequence[Source], selection: Selection) -> Iterator[tuple[int, str, str]]:
    """(source, split, raw document) of every copy of every document that the corpus takes, in its order.

    A repeated source is read again for each repetition, so that copies do not stand together.

    Raises:
      UserError: a source gives more documents, or fewer, than when they were selected.
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
                    f"--source={source.spec}: changed while it was being read; delete the output and start again"
                )
