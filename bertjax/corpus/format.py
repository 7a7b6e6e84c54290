"""The corpus on disk: Arrow shards of documents → sentences → token ids, and the manifest that vouches for them.

A corpus is a directory with `tokenizer/`, `train-00000.arrow` …, `heldout-00000.arrow` … and `corpus.json`, which
is written last and atomically: a directory without it is not a corpus. A shard is an Arrow IPC file,
uncompressed, one record batch, one column `sentences: list<list<uint16>>` (uint32 where the vocabulary is larger
than 65,536), one row a document. Memory-mapped it gives read-only NumPy views without a copy. The ids hold no special
tokens.
"""

import dataclasses
import functools
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa

from bertjax import decoding
from bertjax.corpus.manifest import MANIFEST, ShardInfo, check_files, decode_manifest, read_manifest, write_manifest
from bertjax.errors import UserError, first_line
from bertjax.storage.files import file_sha256, write_text, written_whole
from bertjax.text.tokenizer import Tokenizer, load_tokenizer

SPLITS = ("train", "heldout")
# Arrow's list offsets are int32.
MAX_SHARD_TOKENS = 2**31 - 1
# What opening has found whole: shard name -> `_state` of the file and its SHA-256.
_VERIFIED = Path("cache", "verified.json")
_SHARD_TYPES = {pa.list_(pa.list_(pa.uint16())), pa.list_(pa.list_(pa.uint32()))}


@dataclasses.dataclass(frozen=True)
class Shard:
    """Read-only, memory-mapped views of one shard; all offsets are local to it.

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
        """Its documents, sentences and tokens."""
        return len(self.document_offsets) - 1, len(self.sentence_offsets) - 1, len(self.tokens)


def shard_name(split: str, index: int) -> str:
    """File name of a shard, `train-00000.arrow`."""
    return f"{split}-{index:05d}.arrow"


def shard_names(split: str) -> Iterator[str]:
    """The file names of a split's shards, without end."""
    return (shard_name(split, index) for index in itertools.count())


def write_shard(
    path: Path, document_offsets: np.ndarray, sentence_offsets: np.ndarray, tokens: np.ndarray
) -> ShardInfo:
    """Writes a shard, whole or not at all.

    Args:
      path: the file to write; its name goes into the result.
      document_offsets: integers [documents + 1] into the sentences, from 0, strictly rising.
      sentence_offsets: integers [sentences + 1] into the tokens, from 0, strictly rising.
      tokens: uint16 or uint32 [tokens].

    Raises:
      ValueError: offsets that do not fit the data, an empty document or sentence, or more than 2^31 - 1 tokens.
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
    with written_whole(path) as temporary:
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

    The `*_bases` place a shard's local numbers in the split: token `i` of shard `s` is token `token_bases[s] + i`.

    Attributes:
      directory: where it lies.
      split: "train" or "heldout".
      fingerprint: identity of the corpus (format, tokenizer, contents of all shards).
      tokenizer_hash: identity of the tokenizer that made the ids.
      vocab_size: number of ids.
      tokenizer_files: name → SHA-256 of the tokenizer's files.
      shards: the shards in order.
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
        """Opens a split: reads the manifest, checks that every shard is there and as it was written, maps it.

        The first time that reads every file to compare its hash, as a flipped bit passes all other checks, and what it
        holds. What was found whole is remembered in the corpus's `cache/`, and read again only once its size or times
        have changed.

        Args:
          directory: the corpus.
          split: "train" or "heldout".

        Raises:
          UserError: not a corpus, another format version, a split without documents, a shard that is missing,
            truncated or changed.
        """
        directory = Path(directory)
        manifest = read_manifest(directory)
        infos = manifest.shards.get(split, ())
        if not infos or not sum(info.documents for info in infos):
            remedy = "with --heldout above 0, " if split == "heldout" else ""
            raise UserError(
                f"{directory}: the corpus has no {split} documents; prepare it again {remedy}from 4 documents or more"
            )
        for info in infos:
            _check_size(directory, info)
        _check_contents_once(directory, infos, manifest.vocab_size)
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
        """Number of tokens, special ones not counted (there are none)."""
        return int(self.token_bases[-1])

    @functools.cached_property
    def document_sentences(self) -> np.ndarray:
        """int64 [documents + 1]: the first sentence of each document, numbered through the split."""
        parts = [shard.document_offsets[:-1] + base for shard, base in self._shards_with(self.sentence_bases)]
        return np.concatenate([*parts, self.sentence_bases[-1:]])

    @functools.cached_property
    def document_tokens(self) -> np.ndarray:
        """int64 [documents + 1]: the first token of each document, numbered through the split."""
        parts = [
            shard.sentence_offsets[shard.document_offsets[:-1]] + base
            for shard, base in self._shards_with(self.token_bases)
        ]
        return np.concatenate([*parts, self.token_bases[-1:]])

    def load_tokenizer(self) -> Tokenizer:
        """The tokenizer that the corpus was made with.

        Raises:
          UserError: its files are not as they were written.
        """
        folder = self.directory / "tokenizer"
        remedy = "put the one back that the corpus was made with, or prepare the corpus again"
        check_files(folder, self.tokenizer_files, remedy)
        tokenizer = load_tokenizer(folder)
        if tokenizer.hash() != self.tokenizer_hash:
            raise UserError(f"{folder}: not the tokenizer that {self.directory} was made with; {remedy}")
        return tokenizer

    def _shards_with(self, bases: np.ndarray) -> Iterator[tuple[Shard, np.int64]]:
        return zip(self.shards, bases[:-1], strict=True)


def verify(directory: str | Path) -> None:
    """Reads every shard of every split and compares it with the manifest, whatever is remembered.

    Raises:
      UserError: names the first shard that is missing, truncated or changed, and what to do.
    """
    directory = Path(directory)
    manifest = read_manifest(directory)
    infos = [info for split in manifest.shards.values() for info in split]
    for info in infos:
        _check_size(directory, info)
    _check_contents(directory, infos, manifest.vocab_size)


def reseal(directory: str | Path) -> None:
    """Writes the manifest anew for shards that were changed on purpose.

    Raises:
      UserError: not a corpus, or a shard that is missing or is none of this vocabulary.
    """
    directory = Path(directory)
    path = directory / MANIFEST
    manifest = decode_manifest(decoding.read_bytes(path, "prepare the corpus"), path, resealing=True)
    shards = {}
    for split, infos in manifest.shards.items():
        shards[split] = [_described(directory / info.name) for info in infos]
        for info in shards[split]:
            _check_shard(directory, info, manifest.vocab_size)
    write_manifest(
        directory,
        shards=shards,
        vocab_size=manifest.vocab_size,
        tokenizer_hash=manifest.tokenizer_hash,
        statistics=manifest.statistics,
    )


def _described(path: Path) -> ShardInfo:
    """What a manifest has to say of the shard in a file."""
    sha256, shard = file_sha256(path), _mapped(path, "prepare the corpus again")
    return ShardInfo(path.name, path.stat().st_size, sha256, *shard.counts)


def _check_size(directory: Path, info: ShardInfo) -> None:
    path = directory / info.name
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise UserError(f"{path}: this shard of the corpus is missing; {_repair(directory, info)}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {_repair(directory, info)}") from error
    if size != info.bytes:
        raise UserError(
            f"{path}: truncated or changed, {size:,} bytes instead of {info.bytes:,}; {_repair(directory, info)}"
        )


def _check_contents_once(directory: Path, infos: Sequence[ShardInfo], vocab_size: int) -> None:
    """`_check_contents` of the shards that were not found whole before, or have changed since."""
    path = directory / _VERIFIED
    try:
        remembered = decoding.read_sealed(path, dict[str, tuple[int, int, int, str, int]], "")
    except UserError:
        remembered = {}  # none, or damaged
    # Taken before reading, so that a change meanwhile shows next time.
    states = {info.name: (*_state(directory / info.name), info.sha256, vocab_size) for info in infos}
    unknown = [info for info in infos if remembered.get(info.name) != states[info.name]]
    if not unknown:
        return
    _check_contents(directory, unknown, vocab_size)
    try:
        path.parent.mkdir(exist_ok=True)
        write_text(path, json.dumps(decoding.sealed(remembered | states)))
    except OSError:
        pass  # no permission or no room: the next one reads again


def _state(path: Path) -> tuple[int, int, int]:
    """What changes with a file: size, and its times in nanoseconds; a copy's `ctime` is its own even with `cp -p`."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _check_contents(directory: Path, infos: Sequence[ShardInfo], vocab_size: int) -> None:
    """Compares hashes, and what the shards hold with what the manifest says of it."""
    # hashlib releases the GIL, so threads read and hash on every core.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(lambda info: file_sha256(directory / info.name), infos))
    for info, sha256 in zip(infos, found, strict=True):
        if sha256 != info.sha256:
            raise UserError(
                f"{directory / info.name}: damaged, its SHA-256 is {sha256[:12]}… instead of {info.sha256[:12]}…; "
                f"{_repair(directory, info)}"
            )
        _check_shard(directory, info, vocab_size)


def _check_shard(directory: Path, info: ShardInfo, vocab_size: int) -> None:
    """That a shard whose hash is right holds documents of sentences of ids, and no others than the vocabulary's."""
    shard = _map_shard(directory, info)
    try:
        if not len(shard.tokens):
            raise ValueError("it is empty")
        _check_offsets("document_offsets", shard.document_offsets, len(shard.sentence_offsets) - 1)
        _check_offsets("sentence_offsets", shard.sentence_offsets, len(shard.tokens))
    except ValueError as error:
        raise UserError(f"{directory / info.name}: {error}; {_repair(directory, info)}") from error
    if (largest := int(shard.tokens.max())) >= vocab_size:
        raise UserError(
            f"{directory / info.name}: holds the id {largest}, but the vocabulary has {vocab_size}; "
            f"{_repair(directory, info)}"
        )


def _repair(directory: Path, info: ShardInfo) -> str:
    return f"copy it again, or delete {info.name} and {MANIFEST} there and run the same bertjax.prepare again"


def _map_shard(directory: Path, info: ShardInfo) -> Shard:
    path = directory / info.name
    shard = _mapped(path, _repair(directory, info))
    if shard.counts != (info.documents, info.sentences, info.tokens):
        raise UserError(f"{path}: its counts are not those of {MANIFEST}; {_repair(directory, info)}")
    return shard


def _mapped(path: Path, cure: str) -> Shard:
    """The arrays of a file of documents; what they hold is not looked at."""
    try:
        batch = pa.ipc.open_file(pa.memory_map(str(path), "r")).get_batch(0)
        batch.validate()
        documents = batch.column(0)
        kind = str(documents.type)
    # ValueError: no batch, names that are no text
    except (pa.ArrowException, OSError, IndexError, ValueError) as error:
        raise UserError(f"{path}: no Arrow file of documents ({first_line(error)}); {cure}") from error
    if documents.type not in _SHARD_TYPES:
        raise UserError(f"{path}: holds {kind}, not sentences of ids; {cure}")
    sentences = documents.values
    if documents.null_count or sentences.null_count or sentences.values.null_count or documents.offset:
        raise UserError(f"{path}: has gaps, which no shard has; {cure}")
    return Shard(_view(documents.offsets), _view(sentences.offsets), _view(sentences.values))


def _view(array: pa.Array) -> np.ndarray:
    return array.to_numpy(zero_copy_only=True)


def _bases(counts: Iterator[int]) -> np.ndarray:
    return np.cumsum([0, *counts], dtype=np.int64)


def _int32(offsets: np.ndarray) -> pa.Array:
    return pa.array(np.ascontiguousarray(offsets, dtype=np.int32))


def _check_offsets(name: str, offsets: np.ndarray, end: int) -> None:
    offsets = np.asarray(offsets)
    if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != end:
        raise ValueError(f"{name} must run from 0 to {end}")
    if not np.all(offsets[1:] > offsets[:-1]):
        raise ValueError(f"{name} must rise strictly: documents and sentences are never empty")
