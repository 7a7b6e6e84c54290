"""Converts raw documents to shards, in a pool of worker processes."""

import array
import concurrent.futures
import contextlib
import dataclasses
import functools
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np

from bertjax import decoding
from bertjax.corpus import format
from bertjax.corpus.manifest import ShardInfo
from bertjax.decoding import Count, DecodingError
from bertjax.errors import UserError
from bertjax.storage.files import write_text
from bertjax.text import sentences
from bertjax.text.sources import Source
from bertjax.text.tokenizer import Tokenizer, load_tokenizer

# Batch sizes for splitting and tokenizing: large enough that one tokenizer call encodes many new words.
_BATCH_CHARACTERS = 500_000
_BATCH_SENTENCES = 5_000
# Keeps the tokenizer and its word cache for the lifetime of the worker.
_tokenizer = functools.lru_cache(maxsize=1)(load_tokenizer)


@dataclasses.dataclass(frozen=True)
class ShardCounts:
    """Counts of a shard or split.

    Attributes:
      documents, sentences, tokens: in the corpus.
      words: separated by white space.
      unknown: [UNK] tokens.
      bytes: size of the cleaned text in UTF-8.
      empty: documents without text after cleaning; they are not in the corpus.
    """

    documents: Count = 0
    sentences: Count = 0
    words: Count = 0
    tokens: Count = 0
    unknown: Count = 0
    bytes: Count = 0
    empty: Count = 0

    def __add__(self, other: "ShardCounts") -> "ShardCounts":
        return ShardCounts(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))


@dataclasses.dataclass(frozen=True)
class ShardRecord:
    """The record of a finished shard; `shard` is None if all its documents were empty."""

    shard: ShardInfo | None
    counts: ShardCounts


@dataclasses.dataclass(frozen=True)
class BuildOptions:
    """Options that, besides the sources, determine the contents of a corpus.

    Attributes:
      tokenizer: "new:KIND:SIZE", "extend:NUMBER:FOLDER", or the path of a tokenizer.
      heldout: share of the documents to hold out.
      seed: for the choice of held-out documents and of documents of a source with a fractional weight.
      language: ISO 639 code of the text, for splitting sentences.
      shard_characters: characters per shard. Small shards keep memory low and every core busy to the end, large ones
        the number of files small: 4 GB of text make 1,000 shards of about 2 MB.
      lowercase: whether the tokenizer lower-cases text, if its files do not specify it; see `load_tokenizer`.
    """

    tokenizer: str
    heldout: float = 0.005
    seed: int = 0
    language: str = "en"
    shard_characters: int = 4_000_000
    lowercase: bool | None = None


@dataclasses.dataclass(frozen=True)
class BuildJob:
    """Output directory, sources and options of a build."""

    directory: Path
    sources: tuple[Source, ...]
    options: BuildOptions

    def sentences(self, source: int, raw: str) -> list[str]:
        """Returns the sentences of a raw document; `source` is the index of its source."""
        return sentences.split(self.sources[source].clean(raw), self.options.language)


class ShardTask:
    """A shard to be built, with its raw documents in one buffer: separate strings would fragment memory.

    Attributes:
      name: file name of the shard.
      characters: total number in its documents so far.
    """

    def __init__(self, name: str):
        self.name = name
        self.characters = 0
        self._text = bytearray()
        self._ends = array.array("Q")
        self._sources = array.array("I")

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, source: int, raw: str) -> None:
        """Appends a raw document; `source` is the index of its source."""
        self._text += raw.encode()
        self._ends.append(len(self._text))
        self._sources.append(source)
        self.characters += len(raw)

    def documents(self) -> Iterator[tuple[int, str]]:
        """Yields (source index, raw document) pairs, in order."""
        start = 0
        for source, end in zip(self._sources, self._ends, strict=True):
            yield source, self._text[start:end].decode()
            start = end


def run(tasks: Iterable[ShardTask], job: BuildJob, processes: int) -> Iterator[ShardCounts]:
    """Builds the shards of the tasks and yields the counts of each finished one; requires the saved tokenizer.

    With one process the work is done in the calling process. Otherwise at most one task per process, and one more, are
    in memory.

    Raises:
      UserError: a file cannot be written, or a worker was killed.
    """
    if processes == 1:
        for task in tasks:
            yield _build_shard(task, job)
        return
    pool = concurrent.futures.ProcessPoolExecutor(
        processes, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker
    )
    pending = set()
    try:
        for task in tasks:
            # The next task is read while all workers are busy. It waits here because the pool would copy it.
            if len(pending) == processes:
                done, pending = concurrent.futures.wait(pending, return_when=concurrent.futures.FIRST_COMPLETED)
                yield from (future.result() for future in done)
            pending.add(pool.submit(_build_shard, task, job))
        for future in concurrent.futures.as_completed(pending):
            yield future.result()
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process was killed, perhaps for lack of memory; run the same command again to resume, "
            "with fewer --processes if this happens again"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _record_path(directory: Path, name: str) -> Path:
    return directory / "build" / f"{name}.json"


def read_record(directory: Path, name: str) -> ShardRecord | None:
    """Reads the record of a finished shard; None if there is no record.

    Raises:
      UserError: the record is damaged or inconsistent.
    """
    path = _record_path(directory, name)
    if not path.is_file():
        return None
    remedy = f"delete it and run the same bertjax.prepare again to rebuild {name}"
    record = decoding.read_sealed(path, ShardRecord, remedy)
    counts, shard = record.counts, record.shard
    shard_values = (shard.name, shard.documents, shard.sentences, shard.tokens) if shard else (name, 0, 0, 0)
    if shard_values != (name, counts.documents, counts.sentences, counts.tokens):
        raise DecodingError("shard: its name or counts do not match the record", path, remedy)
    return record


def _start_worker() -> None:
    """Ignores SIGINT, disables the tokenizer's threads, and exits as soon as the parent process ends or is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextlib.contextmanager
def write_errors_as_user_errors(path: Path) -> Iterator[None]:
    """Turns an OSError while writing a file of the corpus into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); "
            "free space or fix the permissions, then run the same command again to resume"
        ) from error


def _build_shard(task: ShardTask, job: BuildJob) -> ShardCounts:
    """Writes a shard and then its record."""
    with write_errors_as_user_errors(job.directory / task.name):
        record = _write_shard(task, job)
        content = decoding.sealed(dataclasses.asdict(record))
        write_text(_record_path(job.directory, task.name), json.dumps(content) + "\n")
    return record.counts


def _write_shard(task: ShardTask, job: BuildJob) -> ShardRecord:
    tokenizer = _tokenizer(job.directory / "tokenizer")
    parts, counts = [], ShardCounts()
    for texts in _batches(task, job):
        sizes, lengths, tokens, batch_counts = _encode_documents(texts, tokenizer)
        parts.append((sizes, lengths, tokens))
        counts += batch_counts
    if not counts.documents:
        return ShardRecord(None, counts)
    sizes, lengths, tokens = map(np.concatenate, zip(*parts, strict=True))
    return ShardRecord(
        format.write_shard(job.directory / task.name, _offsets(sizes), _offsets(lengths), tokens), counts
    )


def _offsets(sizes: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(sizes)])


def _batches(task: ShardTask, job: BuildJob) -> Iterator[list[list[str]]]:
    """Yields the sentences of each document, in batches of documents."""
    batch, characters = [], 0
    for source, raw in task.documents():
        batch.append(job.sentences(source, raw))
        characters += len(raw)
        if characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _encode_documents(
    documents: Sequence[Sequence[str]], tokenizer: Tokenizer
) -> tuple[np.ndarray, np.ndarray, np.ndarray, ShardCounts]:
    """Encodes the sentences of documents; sentences and documents without tokens are dropped.

    Returns:
      sizes: int64 [documents], the number of sentences of each document.
      lengths: int64 [sentences], the number of tokens of each sentence.
      tokens: `tokenizer.dtype` [tokens].
      counts: of the documents.
    """
    texts = [sentence for document in documents for sentence in sentences.spaced(document)]
    length_parts, token_parts = [np.zeros(0, np.int64)], [np.zeros(0, tokenizer.dtype)]
    words = size = 0
    for start in range(0, len(texts), _BATCH_SENTENCES):
        batch = texts[start : start + _BATCH_SENTENCES]
        batch_lengths, batch_tokens = tokenizer.encode_ragged(batch)
        length_parts.append(batch_lengths)
        token_parts.append(batch_tokens)
        joined = "".join(batch)
        words, size = words + joined.count(" "), size + len(joined.encode())
    # Counts the spaces between words and sentences, and one at the end of each document.
    words, size = words + sum(map(bool, documents)), size + sum(map(bool, documents))
    lengths, tokens = np.concatenate(length_parts), np.concatenate(token_parts)
    ends = np.cumsum([len(document) for document in documents])
    # Empty sentences are dropped: the end of a document is the number of non-empty sentences before it.
    sizes = np.diff(_offsets(lengths > 0)[ends], prepend=0)
    lengths = lengths[lengths > 0]
    counts = ShardCounts(
        documents=int(np.count_nonzero(sizes)),
        sentences=len(lengths),
        words=words,
        tokens=len(tokens),
        unknown=int(np.count_nonzero(tokens == tokenizer.unk_id)),
        bytes=size,
        empty=int(np.count_nonzero(sizes == 0)),
    )
    return sizes[sizes > 0], lengths, tokens, counts
