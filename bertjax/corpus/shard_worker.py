"""The work of one core: raw documents to a shard; and the pool that spreads it over all cores."""

import array
import concurrent.futures
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

from bertjax.corpus import format
from bertjax.corpus.manifest import ShardInfo
from bertjax.errors import UserError
from bertjax.storage.files import write_text
from bertjax.text import sentences
from bertjax.text.sources import Source
from bertjax.text.tokenizer import Tokenizer, load_tokenizer

# What is split and tokenised at once: enough to ask the tokenizer for many new words in one call.
_BATCH_CHARACTERS = 500_000
_BATCH_SENTENCES = 5_000


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

    documents: int = 0
    sentences: int = 0
    words: int = 0
    tokens: int = 0
    unknown: int = 0
    bytes: int = 0
    empty: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))


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


@dataclasses.dataclass(frozen=True)
class Done:
    """A finished task: its documents (the empty ones too) and the UTF-8 bytes of their text."""

    documents: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Settings:
    """What every task needs to know.

    Attributes:
      directory: the corpus; its `tokenizer/` is there.
      records: folder for the record of each finished shard.
      sources: for cleaning.
      language: for splitting sentences.
    """

    directory: Path
    records: Path
    sources: tuple[Source, ...]
    language: str


def run(tasks: Iterable[Task], settings: Settings, processes: int) -> Iterator[Done]:
    """Does the tasks, and says so of each one.

    With one process the work is done in this one. Otherwise at most a task a process and one more are in memory.

    Raises:
      UserError: a file cannot be written, or a worker was killed.
    """
    if processes == 1:
        for task in tasks:
            yield _do(task, settings)
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
            waiting.add(pool.submit(_do, task, settings))
        for future in concurrent.futures.as_completed(waiting):
            yield future.result()
    except concurrent.futures.process.BrokenProcessPool as error:
        raise UserError(
            "a worker process was killed, perhaps for memory; run the same command again to go on, "
            "with fewer --processes if it happens again"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def read_record(records: Path, name: str) -> tuple[ShardInfo | None, Counts] | None:
    """What was written about a finished shard (no ShardInfo where all its documents were empty), or None."""
    path = records / f"{name}.json"
    if not path.is_file():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    info = ShardInfo(**content["shard"]) if content["shard"] else None
    return info, Counts(**content["counts"])


def _start_worker() -> None:
    """A worker ends with its parent, even one that was killed, and not before it; it works alone, without threads."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _do(task: Task, settings: Settings) -> Done:
    """Makes a shard and its record, in this order."""
    try:
        shard, counts = _write_shard(task, settings)
        content = {"shard": shard and dataclasses.asdict(shard), "counts": dataclasses.asdict(counts)}
        write_text(settings.records / f"{task.name}.json", json.dumps(content) + "\n")
    except OSError as error:
        raise UserError(
            f"{settings.directory / task.name}: cannot be written ({error.strerror}); "
            "make room or set it right, then run the same command again to go on"
        ) from error
    return Done(len(task), counts.bytes)


def _write_shard(task: Task, settings: Settings) -> tuple[ShardInfo | None, Counts]:
    tokenizer = _tokenizer(settings.directory / "tokenizer")
    document_ends, lengths, tokens, counts = [], [], [], Counts()
    for texts in _batches(task, settings):
        batch = _encode(texts, tokenizer)
        document_ends.append(batch.document_ends + sum(map(len, lengths)))
        lengths.append(batch.lengths)
        tokens.append(batch.tokens)
        counts += batch.counts
    if not counts.documents:
        return None, counts
    shard = format.write_shard(
        settings.directory / task.name,
        np.concatenate([[0], *document_ends]),
        np.concatenate([[0], np.cumsum(np.concatenate(lengths))]),
        np.concatenate(tokens),
    )
    return shard, counts


def _batches(task: Task, settings: Settings) -> Iterator[list[list[str]]]:
    """The sentences of each document, some documents at a time."""
    batch, characters = [], 0
    for source, raw in task.documents():
        text = settings.sources[source].clean(raw)
        batch.append(sentences.split(text, settings.language))
        characters += len(text)
        if characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


@dataclasses.dataclass(frozen=True)
class _Encoded:
    """Sentences and documents without a token are left out.

    document_ends: int64 [documents], counted in sentences; lengths: int64 [sentences]; tokens: [sum of lengths].
    """

    document_ends: np.ndarray
    lengths: np.ndarray
    tokens: np.ndarray
    counts: Counts


def _encode(documents: Sequence[Sequence[str]], tokenizer: Tokenizer) -> _Encoded:
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
    ends = np.concatenate([[0], np.cumsum(lengths > 0)])[ends]
    filled = np.diff(ends, prepend=0) > 0
    lengths = lengths[lengths > 0]
    counts = Counts(
        documents=int(filled.sum()),
        sentences=len(lengths),
        words=words,
        tokens=len(tokens),
        unknown=int(np.count_nonzero(tokens == tokenizer.unk_id)),
        bytes=size,
        empty=int((~filled).sum()),
    )
    return _Encoded(ends[filled], lengths, tokens, counts)


@functools.lru_cache(maxsize=1)
def _tokenizer(directory: Path) -> Tokenizer:
    """The tokenizer with its word cache, which lasts as long as the worker."""
    return load_tokenizer(directory)
