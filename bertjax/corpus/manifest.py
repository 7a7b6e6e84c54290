"""`corpus.json`: what a corpus holds, and the hashes of its shards. It is sealed, and written last, atomically."""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from bertjax import decoding
from bertjax.decoding import Count, DecodingError, Digest, FileName, ShortText, Size
from bertjax.errors import UserError
from bertjax.storage.files import file_digests, write_text

FORMAT = "bertjax corpus"
VERSION = 1
MANIFEST = "corpus.json"

_CURE = "copy it again, prepare the corpus again, or, if you edited it, run python -m bertjax.convert --reseal --from="
_COUNTED = ("documents", "sentences", "tokens")


@dataclasses.dataclass(frozen=True)
class ShardInfo:
    """What the manifest says of one shard: file name, size in bytes, SHA-256 of the file (hex) and its counts."""

    name: FileName
    bytes: Count
    sha256: Digest
    documents: Count
    sentences: Count
    tokens: Count


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
      tokenizer_files: name → SHA-256 of the tokenizer's files.
      statistics: what prepare counted; anything JSON.
    """

    format: str
    version: int
    vocab_size: Size
    tokenizer_hash: ShortText
    shards: SplitShards
    counts: Mapping[str, Mapping[str, Count]]
    fingerprint: Digest
    tokenizer_files: Mapping[FileName, Digest]
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
      directory: the corpus; all shards and the tokenizer lie in it already.
      shards: for each split ("train", "heldout") its shards in order.
      vocab_size: number of ids of the tokenizer.
      tokenizer_hash: identity of the tokenizer that made the ids.
      statistics: anything JSON; kept as it is, not part of the fingerprint.
    """
    files = file_digests(directory / "tokenizer")
    manifest = CorpusManifest(
        FORMAT, VERSION, int(vocab_size), tokenizer_hash, shards, _counts(shards), "", files, statistics
    )
    values = dataclasses.asdict(dataclasses.replace(manifest, fingerprint=_fingerprint(manifest)))
    write_text(directory / MANIFEST, json.dumps(decoding.sealed(values), indent=1))


def check_files(folder: Path, digests: Mapping[str, str], remedy: str) -> None:
    """Compares the files of a folder with what was written down of them.

    Raises:
      UserError: a file is missing, changed or unexpected; the message names it and ends with `remedy`.
    """
    found = file_digests(folder)
    for name in sorted(found.keys() | digests):
        if found.get(name) != digests.get(name):
            problem = "missing" if name not in found else "changed" if name in digests else "unexpected"
            raise UserError(f"{folder / name}: {problem}; {remedy}")


def _counts(shards: Mapping[str, Sequence[ShardInfo]]) -> dict[str, dict[str, int]]:
    return {
        split: {name: sum(getattr(info, name) for info in infos) for name in _COUNTED}
        for split, infos in shards.items()
    }


def _fingerprint(manifest: CorpusManifest) -> str:
    values = dataclasses.asdict(manifest)
    return decoding.digest(
        {name: values[name] for name in ("format", "version", "vocab_size", "tokenizer_hash", "shards")}
    )


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
    return decode_manifest(decoding.read_bytes(path, f"{_CURE}{directory}"), path)


def decode_manifest(data: bytes, where: str | Path, *, resealing: bool = False) -> CorpusManifest:
    """The manifest in the content of a `corpus.json`; `where` names it in messages.

    With `resealing` its seal, its sums and its fingerprint need not fit the rest, and are those of the rest.

    Raises:
      UserError: it is damaged, of another version, no manifest, or contradicts itself.
    """
    cure = f"{_CURE}{Path(where).parent}"
    values = decoding.parse(data, where, cure)
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise UserError(f"{where}: not the manifest of a corpus; make one with python -m bertjax.prepare")
    if values.get("version") != VERSION:
        raise UserError(
            f"{where}: format version {values.get('version')}, but this bertjax reads version {VERSION}; "
            "prepare the corpus again, or use the bertjax that made it"
        )
    values = decoding.without_seal(values) if resealing else decoding.unsealed(values, where, cure)
    manifest = decoding.convert(values, CorpusManifest, where, cure)
    if resealing:
        manifest = dataclasses.replace(manifest, counts=_counts(manifest.shards))
        manifest = dataclasses.replace(manifest, fingerprint=_fingerprint(manifest))
    if problem := _contradiction(manifest):
        raise DecodingError(problem, where, cure)
    return manifest


def _contradiction(manifest: CorpusManifest) -> str:
    """What of a manifest cannot be true beside the rest; "" where all can."""
    contents = {}
    for split, infos in manifest.shards.items():
        last = -1  # numbers may be left out: of shards whose documents had no text
        for index, info in enumerate(infos):
            number = re.fullmatch(rf"{split}-(\d{{5,9}})\.arrow", info.name)
            if not number or int(number[1]) <= last:
                return f"shards.{split}[{index}].name: {info.name} is no shard of {split}, or not behind the one before"
            last = int(number[1])
            if not 0 < info.documents <= info.sentences <= info.tokens:
                return f"shards.{split}[{index}]: fewer sentences than documents, or fewer tokens than sentences"
            if contents.setdefault(info.sha256, split) != split:
                return f"shards.{split}[{index}]: is a shard of {contents[info.sha256]} too"
    if manifest.counts != _counts(manifest.shards):
        return "counts: not the sums of the shards"
    return "" if manifest.fingerprint == _fingerprint(manifest) else "fingerprint: not that of the rest"
