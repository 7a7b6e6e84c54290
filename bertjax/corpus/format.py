"""The corpus on disk: Arrow shards of documents → sentences → token ids, and a manifest with their hashes.

A corpus is a directory with `tokenizer/`, `train-00000.arrow` …, `heldout-00000.arrow` … and `corpus.json`, which
is written last and atomically: a directory without it is not a corpus. A shard is an uncompressed Arrow IPC file with
one record batch and one column `sentences: list<list<uint16>>` (uint32 for vocabularies of more than 65,536 ids), one
table row per document. Memory-mapped, it provides read-only NumPy views without a copy. The ids contain no special
tokens.
"""

import dataclasses
import functools
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa

from bertjax import decoding
from bertjax.corpus.manifest import MANIFEST, ShardInfo, check_files, decode_manifest, read_manifest, write_manifest
from bertjax.errors import UserError, first_line
from bertjax.storage.files import atomic_write, file_sha256, write_text
from bertjax.text.tokenizer import Tokenizer, load_tokenizer

SPLITS = ("train", "heldout")
# Arrow's list offsets are int32.
MAX_SHARD_TOKENS = 2**31 - 1
# Shards verified before: shard name → `_file_state`, SHA-256 and vocabulary size.
_VERIFIED = Path("cache", "verified.json")
_SHARD_TYPES = {pa.list_(pa.list_(pa.uint16())), pa.list_(pa.list_(pa.uint32()))}


@dataclasses.dataclass(frozen=True)
class Shard:
    """Read-only, memory-mapped views of one shard; all offsets are relative to the shard.

    Attributes:
      document_offsets: int32 [documents + 1], the first sentence of each document.
      sentence_offsets: int32 [sentences + 1], the first token of each sentence.
      tokens: uint16 or uint32 [tokens].
    """

    document_offsets: np.ndarray
    sentence_offsets: np.ndarray
    tokens: np.ndarray

    @property
    def counts(self) -> tuple[int, int, int]:
        """Numbers of documents, sentences and tokens."""
        return len(self.document_offsets) - 1, len(self.sentence_offsets) - 1, len(self.tokens)


def shard_name(split: str, index: int) -> str:
    """Returns the file name of a shard, e.g. `train-00000.arrow`."""
    return f"{split}-{index:05d}.arrow"


def shard_names(split: str) -> Iterator[str]:
    """Yields the file names of a split's shards, endlessly."""
    return (shard_name(split, index) for index in itertools.count())


def write_shard(
    path: Path, document_offsets: np.ndarray, sentence_offsets: np.ndarray, tokens: np.ndarray
) -> ShardInfo:
    """Writes a shard atomically.

    Args:
      path: the file to write; its name becomes part of the result.
      document_offsets: integers [documents + 1] into the sentences, from 0, strictly increasing.
      sentence_offsets: integers [sentences + 1] into the tokens, from 0, strictly increasing.
      tokens: uint16 or uint32 [tokens].

    Raises:
      ValueError: the offsets do not match the data, a document or sentence is empty, or there are more than 2^31 - 1
        tokens.
    """
    tokens = np.asarray(tokens)
    _check_offsets("document_offsets", document_offsets, len(sentence_offsets) - 1)
    _check_offsets("sentence_offsets", sentence_offsets, len(tokens))
    if len(tokens) > MAX_SHARD_TOKENS:
        raise ValueError(f"{path.name}: {len(tokens)} tokens; a shard holds at most {MAX_SHARD_TOKENS}")
    sentences = pa.ListArray.from_arrays(_int32(sentence_offsets), pa.array(tokens))
    documents = pa.ListArray.from_arrays(_int32(document_offsets), sentences)
    if documents.type not in _SHARD_TYPES:
        raise ValueError(f"{path.name}: tokens must be uint16 or uint32, not {tokens.dtype}")
    with atomic_write(path) as temporary:
        batch = pa.record_batch([documents], names=["sentences"])
        with temporary.open("wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
            writer.write_batch(batch)
        return ShardInfo(
            name=path.name,
            bytes=temporary.stat().st_size,
            sha256=file_sha256(temporary),
            documents=len(documents),
            sentences=len(sentences),
            tokens=len(tokens),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """One split of a corpus, memory-mapped. Open it with `Corpus.open`.

    The `*_bases` convert indices within a shard to indices within the split: token `i` of shard `s` is token
    `token_bases[s] + i`.

    Attributes:
      directory: of the corpus.
      split: "train" or "heldout".
      fingerprint: identity of the corpus (format, tokenizer, contents of all shards).
      tokenizer_hash: identity of the tokenizer that produced the ids.
      vocab_size: number of ids.
      tokenizer_files: name → SHA-256 of the tokenizer files.
      shards: in order.
      document_bases, sentence_bases, token_bases: int64 [shards + 1].
    """

    directory: Path
    split: str
    fingerprint: str
    tokenizer_hash: str
    vocab_size: int
    tokenizer_files: Mapping[str, str]
    shards: tuple[Shard, ...]
    document_bases: np.ndarray
    sentence_bases: np.ndarray
    token_bases: np.ndarray

    @classmethod
    def open(cls, directory: str | Path, split: str = "train") -> "Corpus":
        """Opens a split: reads the manifest, verifies every shard and maps it into memory.

        The first call reads every file and compares its hash, because a flipped bit passes all other checks. Verified
        shards are recorded in the corpus's `cache/` and read again only if their size or times have changed.

        Args:
          directory: the corpus.
          split: "train" or "heldout".

        Raises:
          UserError: not a corpus, another format version, a split without documents, or a shard that is missing,
            truncated or changed.
        """
        directory = Path(directory)
        manifest = read_manifest(directory)
        infos = manifest.shards_by_split.get(split, ())
        if not infos or not sum(info.documents for info in infos):
            flag = "with --heldout above 0 and " if split == "heldout" else "with "
            raise UserError(
                f"{directory}: the corpus has no {split} documents; prepare it again {flag}at least 4 documents"
            )
        for info in infos:
            _check_size(directory, info)
        _check_unverified_contents(directory, infos, manifest.vocab_size)
        shards = tuple(_map_shard(directory, info) for info in infos)
        return cls(
            directory=directory,
            split=split,
            fingerprint=manifest.fingerprint,
            tokenizer_hash=manifest.tokenizer_hash,
            vocab_size=manifest.vocab_size,
            tokenizer_files=manifest.tokenizer_files,
            shards=shards,
            document_bases=_bases(info.documents for info in infos),
            sentence_bases=_bases(info.sentences for info in infos),
            token_bases=_bases(info.tokens for info in infos),
        )

    def __repr__(self) -> str:
        return f"<Corpus {self.directory}, {self.split}: {self.documents:,} documents, {self.tokens:,} tokens>"

    def text(self, document: int) -> str:
        """Returns the text of a document, as its tokens decode: an uncased vocabulary has lost the case.

        >>> corpus = bertjax.open_corpus("data/books")
        >>> len(corpus.text(0)) > 0
        True

        Raises:
          IndexError: there is no such document.
        """
        if not 0 <= document < self.documents:
            raise IndexError(f"document {document}; {self.directory} has {self.documents:,}, counted from 0")
        shard = int(np.searchsorted(self.document_bases, document, side="right")) - 1
        begin, end = self.document_tokens[document : document + 2] - self.token_bases[shard]
        return self._tokenizer.decode(self.shards[shard].tokens[begin:end].tolist())

    @property
    def documents(self) -> int:
        """Number of documents."""
        return int(self.document_bases[-1])

    @property
    def sentences(self) -> int:
        """Number of sentences."""
        return int(self.sentence_bases[-1])

    @property
    def tokens(self) -> int:
        """Number of tokens; none of them is special."""
        return int(self.token_bases[-1])

    @functools.cached_property
    def document_sentences(self) -> np.ndarray:
        """The index of each document's first sentence in the split: int64 [documents + 1]."""
        parts = [shard.document_offsets[:-1] + base for shard, base in self._shards_with(self.sentence_bases)]
        return np.concatenate([*parts, self.sentence_bases[-1:]])

    @functools.cached_property
    def document_tokens(self) -> np.ndarray:
        """The index of each document's first token in the split: int64 [documents + 1]."""
        parts = [
            shard.sentence_offsets[shard.document_offsets[:-1]] + base
            for shard, base in self._shards_with(self.token_bases)
        ]
        return np.concatenate([*parts, self.token_bases[-1:]])

    @functools.cached_property
    def _tokenizer(self) -> Tokenizer:
        return self.load_tokenizer()

    def load_tokenizer(self) -> Tokenizer:
        """Loads the tokenizer of the corpus.

        Raises:
          UserError: its files have changed.
        """
        folder = self.directory / "tokenizer"
        remedy = "restore the original tokenizer of the corpus, or prepare the corpus again"
        check_files(folder, self.tokenizer_files, remedy)
        tokenizer = load_tokenizer(folder)
        if tokenizer.hash() != self.tokenizer_hash:
            raise UserError(f"{folder}: not the tokenizer that {self.directory} was made with; {remedy}")
        return tokenizer

    def _shards_with(self, bases: np.ndarray) -> Iterator[tuple[Shard, np.int64]]:
        return zip(self.shards, bases[:-1], strict=True)


def verify(directory: str | Path) -> None:
    """Reads every shard of every split and compares it with the manifest, even if it was verified before.

    Raises:
      UserError: a shard is missing, truncated or changed; the message names the first one.
    """
    directory = Path(directory)
    manifest = read_manifest(directory)
    infos = [info for split in manifest.shards_by_split.values() for info in split]
    for info in infos:
        _check_size(directory, info)
    _check_contents(directory, infos, manifest.vocab_size)


def reseal(directory: str | Path) -> None:
    """Rewrites the manifest for shards that were changed intentionally.

    Raises:
      UserError: not a corpus, or a shard is missing or does not match the vocabulary.
    """
    directory = Path(directory)
    path = directory / MANIFEST
    manifest = decode_manifest(decoding.read_bytes(path, "prepare the corpus"), path, resealing=True)
    shards = {}
    for split, infos in manifest.shards_by_split.items():
        shards[split] = [_shard_info(directory / info.name) for info in infos]
        for info in shards[split]:
            _check_shard(directory, info, manifest.vocab_size)
    write_manifest(
        directory,
        shards=shards,
        vocab_size=manifest.vocab_size,
        tokenizer_hash=manifest.tokenizer_hash,
        statistics=manifest.statistics,
    )


def _shard_info(path: Path) -> ShardInfo:
    """Returns the manifest entry of a shard file."""
    sha256, shard = file_sha256(path), _map_file(path, "prepare the corpus again")
    return ShardInfo(path.name, path.stat().st_size, sha256, *shard.counts)


def _check_size(directory: Path, info: ShardInfo) -> None:
    path = directory / info.name
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise UserError(f"{path}: this shard of the corpus is missing; {_repair_remedy(info)}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {_repair_remedy(info)}") from error
    if size != info.bytes:
        raise UserError(
            f"{path}: truncated or changed, {size:,} bytes instead of {info.bytes:,}; {_repair_remedy(info)}"
        )


def _check_unverified_contents(directory: Path, infos: Sequence[ShardInfo], vocab_size: int) -> None:
    """Calls `_check_contents` for the shards that were not verified before or have changed since."""
    path = directory / _VERIFIED
    try:
        verified = decoding.read_sealed(path, dict[str, tuple[int, int, int, str, int]], "")
    except UserError:
        verified = {}  # missing or damaged
    # Read before the contents, so that the next call detects a change in between.
    states = {info.name: (*_file_state(directory / info.name), info.sha256, vocab_size) for info in infos}
    unverified = [info for info in infos if verified.get(info.name) != states[info.name]]
    if not unverified:
        return
    _check_contents(directory, unverified, vocab_size)
    try:
        path.parent.mkdir(exist_ok=True)
        write_text(path, json.dumps(decoding.sealed(verified | states)))
    except OSError:
        pass  # no permission or no space: the next call reads the shards again


def _file_state(path: Path) -> tuple[int, int, int]:
    """Returns size, `mtime` and `ctime` (ns) of a file; a copy has a new `ctime` even with `cp -p`."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _check_contents(directory: Path, infos: Sequence[ShardInfo], vocab_size: int) -> None:
    """Compares hashes and contents of shards with the manifest."""
    # hashlib releases the GIL, so threads read and hash on every core.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        hashes = list(pool.map(lambda info: file_sha256(directory / info.name), infos))
    for info, sha256 in zip(infos, hashes, strict=True):
        if sha256 != info.sha256:
            raise UserError(
                f"{directory / info.name}: damaged, its SHA-256 is {sha256[:12]}… instead of {info.sha256[:12]}…; "
                f"{_repair_remedy(info)}"
            )
        _check_shard(directory, info, vocab_size)


def _check_shard(directory: Path, info: ShardInfo, vocab_size: int) -> None:
    """Checks that a shard with the right hash has valid offsets and only ids of the vocabulary."""
    shard = _map_shard(directory, info)
    try:
        if not len(shard.tokens):
            raise ValueError("the shard is empty")
        _check_offsets("document_offsets", shard.document_offsets, len(shard.sentence_offsets) - 1)
        _check_offsets("sentence_offsets", shard.sentence_offsets, len(shard.tokens))
    except ValueError as error:
        raise UserError(f"{directory / info.name}: {error}; {_repair_remedy(info)}") from error
    if (largest := int(shard.tokens.max())) >= vocab_size:
        raise UserError(
            f"{directory / info.name}: contains id {largest}, but the vocabulary has {vocab_size} ids; "
            f"{_repair_remedy(info)}"
        )


def _repair_remedy(info: ShardInfo) -> str:
    return f"copy it again, or delete {info.name} and {MANIFEST} there and run the same bertjax.prepare again"


def _map_shard(directory: Path, info: ShardInfo) -> Shard:
    path = directory / info.name
    shard = _map_file(path, _repair_remedy(info))
    if shard.counts != (info.documents, info.sentences, info.tokens):
        raise UserError(f"{path}: its counts do not match {MANIFEST}; {_repair_remedy(info)}")
    return shard


def _map_file(path: Path, remedy: str) -> Shard:
    """Maps the arrays of a shard file into memory, without checking their contents."""
    try:
        batch = pa.ipc.open_file(pa.memory_map(str(path), "r")).get_batch(0)
        batch.validate()
        documents = batch.column(0)
        dtype = str(documents.type)
    # ValueError: no batch, or column names that are not valid UTF-8.
    except (pa.ArrowException, OSError, IndexError, ValueError) as error:
        raise UserError(f"{path}: not an Arrow file of documents ({first_line(error)}); {remedy}") from error
    if documents.type not in _SHARD_TYPES:
        raise UserError(f"{path}: holds {dtype}, not sentences of ids; {remedy}")
    sentences = documents.values
    if documents.null_count or sentences.null_count or sentences.values.null_count or documents.offset:
        raise UserError(f"{path}: contains null values or an array offset, which a shard must not; {remedy}")
    return Shard(_view(documents.offsets), _view(sentences.offsets), _view(sentences.values))


def _view(array: pa.Array) -> np.ndarray:
    return array.to_numpy(zero_copy_only=True)


def _bases(counts: Iterable[int]) -> np.ndarray:
    return np.cumsum([0, *counts], dtype=np.int64)


def _int32(offsets: np.ndarray) -> pa.Array:
    return pa.array(np.ascontiguousarray(offsets, dtype=np.int32))


def _check_offsets(name: str, offsets: np.ndarray, end: int) -> None:
    offsets = np.asarray(offsets)
    if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != end:
        raise ValueError(f"{name} must run from 0 to {end}")
    if not np.all(offsets[1:] > offsets[:-1]):
        raise ValueError(f"{name} must be strictly increasing, as documents and sentences are never empty")
