"""`corpus.json`: what a corpus holds, and the hashes of its shards. It is written last, and atomically."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from bertjax import decoding
from bertjax.errors import UserError
from bertjax.storage.files import write_text

FORMAT = "bertjax corpus"
VERSION = 1
MANIFEST = "corpus.json"


@dataclasses.dataclass(frozen=True)
class ShardInfo:
    """What the manifest says of one shard: file name, size in bytes, SHA-256 of the file (hex) and its counts."""

    name: str
    bytes: int
    sha256: str
    documents: int
    sentences: int
    tokens: int


class SplitShards(TypedDict, total=False):
    """The shards of each split, in order."""

    train: tuple[ShardInfo, ...]
    heldout: tuple[ShardInfo, ...]


@dataclasses.dataclass(frozen=True)
class CorpusManifest:
    """The content of `corpus.json`.

    Attributes:
      format, version: `FORMAT` and `VERSION`.
      vocab_size: number of ids of the tokenizer.
      tokenizer_hash: identity of the tokenizer that made the ids.
      shards: of each split.
      counts: documents, sentences and tokens of each split.
      fingerprint: identity of the corpus, of all fields above but the counts.
      statistics: what prepare counted; anything JSON.
    """

    format: str
    version: int
    vocab_size: int
    tokenizer_hash: str
    shards: SplitShards
    counts: Mapping[str, Mapping[str, int]]
    fingerprint: str
    statistics: Mapping[str, Any]


def write_manifest(
    directory: Path,
    *,
    shards: Mapping[str, Sequence[ShardInfo]],
    vocab_size: int,
    tokenizer_hash: str,
    statistics: Mapping[str, Any],
) -> None:
    """Writes `corpus.json`, the last act of preparing: from here on the directory is a corpus.

    Args:
      directory: the corpus; all shards lie in it already.
      shards: for each split ("train", "heldout") its shards in order.
      vocab_size: number of ids of the tokenizer.
      tokenizer_hash: identity of the tokenizer that made the ids.
      statistics: anything JSON; kept as it is, not part of the fingerprint.
    """
    counts = {
        split: {name: sum(getattr(info, name) for info in infos) for name in ("documents", "sentences", "tokens")}
        for split, infos in shards.items()
    }
    manifest = CorpusManifest(FORMAT, VERSION, int(vocab_size), tokenizer_hash, shards, counts, "", statistics)
    values = dataclasses.asdict(manifest)
    identity = {name: values[name] for name in ("format", "version", "vocab_size", "tokenizer_hash", "shards")}
    values["fingerprint"] = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    write_text(directory / MANIFEST, json.dumps(values, indent=1))


def read_manifest(directory: Path) -> CorpusManifest:
    """The manifest of the corpus in a folder.

    Raises:
      UserError: there is no corpus, or its manifest is damaged or of another version.
    """
    path = directory / MANIFEST
    if not directory.is_dir():
        raise UserError(f"{directory}: no such directory; make a corpus with python -m bertjax.prepare")
    if not path.is_file():
        raise UserError(
            f"{directory}: not a corpus, or one whose preparation has not ended ({MANIFEST} is missing); "
            f"run python -m bertjax.prepare --output={directory}"
        )
    return decode_manifest(path.read_bytes(), path)


def decode_manifest(data: bytes, where: str | Path) -> CorpusManifest:
    """The manifest in the content of a `corpus.json`; `where` names it in messages.

    Raises:
      UserError: it is damaged, of another version, or no manifest.
    """
    cure = "prepare the corpus again"
    values = decoding.parse(data, where, cure)
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise UserError(f"{where}: not the manifest of a corpus; make one with python -m bertjax.prepare")
    if values.get("version") != VERSION:
        raise UserError(
            f"{where}: format version {values.get('version')}, but this bertjax reads version {VERSION}; "
            "prepare the corpus again, or use the bertjax that made it"
        )
    return decoding.convert(values, CorpusManifest, where, cure)
