"""The work of one core: raw documents to a shard; and the pool that spreads it over all cores."""

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

# What is split and tokenised at once: enough to ask the tokenizer for many new words in one call.
_BATCH_CHARACTERS = 500_000
_BATCH_SENTENCES = 5_000
# The tokenizer with its word cache, which lasts as long as the worker.
_tokenizer = functools.lru_cache(maxsize=1)(load_tokenizer)


@dataclasses.dataclass(frozen=True)
class Counts:
    """What a shard, or a split, is made of.

    Attributes:
      documents, sentences, tokens: in the corpus.
      words: between white space.
      unknown: tokens that are [UNK].
      bytes: of the cleaned text, in UTF-8.
      empty: documents that had no text once they were cleaned; they are not in the corpus.
    """

    documents: Count = 0
    sentences: Count = 0
    words: Count = 0
    tokens: Count = 0
    unknown: Count = 0
    bytes: Count = 0
    empty: Count = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))


@dataclasses.dataclass(frozen=True)
class Record:
    """What is written of a finished shard; `shard` is None where all its documents were empty."""

    shard: ShardInfo | None
    counts: Counts


@dataclasses.dataclass(frozen=True)
class Options:
    """What decides the bytes of a corpus, beside the sources.

    Attributes:
      tokenizer: "new:KIND:SIZE", "extend:WORDS:PATH", or the path of a tokenizer.
      heldout: share of the documents to hold out.
      seed: decides which, and which documents of a source with a fractional weight.
      language: of the text, for splitting sentences.
      shard_characters: text in a shard. Small enough to keep memory low and every core busy to the end, large enough
        that files stay few: 4 GB of text make 1,000 shards of about 2 MB.
      lowercase: whether the tokenizer lower-cases, where no file of it says so; see `load_tokenizer`.
    """

    tokenizer: str
    heldout: float = 0.005
    seed: int = 0
    language: str = "en"
    shard_characters: int = 4_000_000
    lowercase: bool | None = None


@dataclasses.dataclass(frozen=True)
class Job:
    """A corpus to be built: where, and from what."""

    directory: Path
    sources: tuple[Source, ...]
    options: Options

    def sentences(self, source: int, raw: str) -> list[str]:
        """The sentences of a raw document of the source of this number."""
        return sentences.split(self.sources[source].clean(raw), self.options.language)


class Task:
    """One shard to be made, and its raw documents, packed: many strings of all sizes would leave holes in memory.

    Attributes:
      name: file name of the shard.
      characters: in its documents so far.
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
        """Appends a raw document of the source of this number."""
        self._text += raw.encode()
        self._ends.append(len(self._text))
        self._sources.append(source)
        self.characters += len(raw)

    def documents(self) -> Iterator[tuple[int, str]]:
        """(source, raw document) pairs, in order."""
        start = 0
        for source, end in zip(self._sources, self._ends, strict=True):
            yield source, self._text[start:end].decode()
            start = end


def run(tasks: Iterable[Task], job: Job, processes: int) -> Iterator[Counts]:
    """Does the tasks, for which the tokenizer is in its place, and yields the counts of each one that is done.

    With one process the work is done in this one. Otherwise at most a task a process and one more are in memory.

    Raises:
      UserError: a file cannot be written, or a worker was killed.
    """
    if processes == 1:
        for task in tasks:
            yield _do(task, job)
        return
    pool = concurrent.futures.ProcessPoolExecutor(
        processes, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker
    )
    waiting = set()
    try:
        for task in tasks:
            # The next task is read while all processes work, and waits here, not in the pool, which would copy it.
            if len(waiting) == processes:
                done, waiting = concurrent.futures.wait(waiting, return_when=concurrent.futures.FIRST_COMPLETED)
                yield from (future.result() for future in done)
            waiting.add(pool.submit(_do, task, job))
        for future in concurrent.futures.as_completed(waiting):
            yield future.result()
    except concurrent.futures.process.BrokenProcessPool as error:
        raise UserError(
            "a worker process was killed, perhaps for memory; run the same command again to go on, "
            "with fewer --processes if it happens again"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _record_path(directory: Path, name: str) -> Path:
    return directory / "build" / f"{name}.json"


def read_record(directory: Path, name: str) -> Record | None:
    """What was written about a finished shard of the corpus in a folder, or None.

    Raises:
      UserError: it is not as it was written, or contradicts itself.
    """
    path = _record_path(directory, name)
    if not path.is_file():
        return None
    cure = f"delete it, and the same bertjax.prepare makes {name} again"
    record = decoding.read_sealed(path, Record, cure)
    counts, shard = record.counts, record.shard
    written = (shard.name, shard.documents, shard.sentences, shard.tokens) if shard else (name, 0, 0, 0)
    if written != (name, counts.documents, counts.sentences, counts.tokens):
        raise DecodingError("shard: its name or counts are not those of the record", path, cure)
    return record


def _start_worker() -> None:
    """A worker ends with its parent, even one that was killed, and not before it; it works alone, without threads."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


@contextlib.contextmanager
def write_errors_explained(path: Path) -> Iterator[None]:
    """Turns an OSError while a file of the corpus is written into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); "
            "make room or set it right, then run the same command again to go on"
        ) from error


def _do(task: Task, job: Job) -> Counts:
    """Makes a shard and its record, in this order."""
    with write_errors_explained(job.directory / task.name):
        record = _write_shard(task, job)
        content = decoding.sealed(dataclasses.asdict(record))
        write_text(_record_path(job.directory, task.name), json.dumps(content) + "\n")
    return record.counts


def _write_shard(task: Task, job: Job) -> Record:
    tokenizer = _tokenizer(job.directory / "tokenizer")
    parts, counts = [], Counts()
    for texts in _batches(task, job):
        *arrays, batch_counts = _encode(texts, tokenizer)
        parts.append(arrays)
        counts += batch_counts
    if not counts.documents:
        return Record(None, counts)
    sizes, lengths, tokens = map(np.concatenate, zip(*parts, strict=True))
    return Record(format.write_shard(job.directory / task.name, _offsets(sizes), _offsets(lengths), tokens), counts)


def _offsets(sizes: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(sizes)])


def _batches(task: Task, job: Job) -> Iterator[list[list[str]]]:
    """The sentences of each document, some documents at a time."""
    batch, characters = [], 0
    for source, raw in task.documents():
        batch.append(job.sentences(source, raw))
        characters += len(raw)
        if characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _encode(
    documents: Sequence[Sequence[str]], tokenizer: Tokenizer
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Counts]:
    """The sentences of each document int64, the tokens of each sentence int64, the tokens, and what they are.

    Sentences and documents without a token are left out.
    """
    texts = [sentence for document in documents for sentence in sentences.spaced(document)]
    lengths, tokens = [np.zeros(0, np.int64)], [np.zeros(0, tokenizer.dtype)]
    words = size = 0
    for start in range(0, len(texts), _BATCH_SENTENCES):
        batch = texts[start : start + _BATCH_SENTENCES]
        for whole, part in zip((lengths, tokens), tokenizer.encode_ragged(batch), strict=True):
            whole.append(part)
        joined = "".join(batch)
        words, size = words + joined.count(" "), size + len(joined.encode())
    # The spaces between words and sentences, and one that a document ends with.
    words, size = words + sum(map(bool, documents)), size + sum(map(bool, documents))
    lengths, tokens = np.concatenate(lengths), np.concatenate(tokens)
    ends = np.cumsum([len(document) for document in documents])
    # Empty sentences count for nothing, and a document ends after as many sentences as are left before its end.
    sizes = np.diff(_offsets(lengths > 0)[ends], prepend=0)
    lengths = lengths[lengths > 0]
    counts = Counts(
        documents=int(np.count_nonzero(sizes)),
        sentences=len(lengths),
        words=words,
        tokens=len(tokens),
        unknown=int(np.count_nonzero(tokens == tokenizer.unk_id)),
        bytes=size,
        empty=int(np.count_nonzero(sizes == 0)),
    )
    return sizes[sizes > 0], lengths, tokens, counts
