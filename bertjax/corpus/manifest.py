"""`corpus.json`, the sealed manifest of a corpus: counts and hashes of its shards. It is written last, atomically."""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict, cast

from bertjax import decoding
from bertjax.decoding import Count, DecodingError, Digest, FileName, ShortText, Size
from bertjax.errors import UserError
from bertjax.storage.files import file_digests, write_text

FORMAT = "bertjax corpus"
VERSION = 1
MANIFEST = "corpus.json"

_REMEDY = (
    "copy it again, prepare the corpus again, or, if you edited it, run python -m bertjax.convert --reseal --from="
)
_COUNTED = ("documents", "sentences", "tokens")


@dataclasses.dataclass(frozen=True)
class ShardInfo:
    """The entry of a shard: file name, size in bytes, SHA-256 of the file (hex) and counts."""

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
      tokenizer_hash: identity of the tokenizer that produced the ids.
      shards: of each split.
      counts: documents, sentences and tokens of each split.
      fingerprint: identity of the corpus, computed from all fields above except the counts.
      tokenizer_files: name → SHA-256 of the tokenizer files.
      statistics: counts and options of prepare; any JSON values.
    """

    format: str
    version: int
    vocab_size: Size
    tokenizer_hash: ShortText
    shards: SplitShards
    counts: Mapping[str, Mapping[str, Count]]
    fingerprint: Digest
    tokenizer_files: Mapping[FileName, Digest]
    statistics: Mapping[str, object]

    @property
    def shards_by_split(self) -> Mapping[str, tuple[ShardInfo, ...]]:
        """Split → its shards, in order."""
        return cast(Mapping[str, tuple[ShardInfo, ...]], self.shards)


def write_manifest(
    directory: Path,
    *,
    shards: Mapping[str, Sequence[ShardInfo]],
    vocab_size: int,
    tokenizer_hash: str,
    statistics: Mapping[str, object],
) -> None:
    """Writes `corpus.json`, the last step of preparing a corpus: a directory with this file is complete.

    Args:
      directory: the corpus, with all shards and the tokenizer.
      shards: split ("train", "heldout") → its shards, in order.
      vocab_size: number of ids of the tokenizer.
      tokenizer_hash: identity of the tokenizer that produced the ids.
      statistics: any JSON values; stored unchanged and not part of the fingerprint.
    """
    files = file_digests(directory / "tokenizer")
    split_shards = SplitShards(**{split: tuple(infos) for split, infos in shards.items()})
    manifest = CorpusManifest(
        FORMAT, VERSION, int(vocab_size), tokenizer_hash, split_shards, _counts(shards), "", files, statistics
    )
    values = dataclasses.asdict(dataclasses.replace(manifest, fingerprint=_fingerprint(manifest)))
    write_text(directory / MANIFEST, json.dumps(decoding.sealed(values), indent=1))


def check_files(folder: Path, digests: Mapping[str, str], remedy: str) -> None:
    """Compares the files of a folder with their recorded digests.

    Raises:
      UserError: a file is missing, changed or unexpected; the message names it and ends with `remedy`.
    """
    actual = file_digests(folder)
    for name in sorted(actual.keys() | digests):
        if actual.get(name) != digests.get(name):
            problem = "missing" if name not in actual else "changed" if name in digests else "unexpected"
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
    """Reads the manifest of the corpus in a folder.

    Raises:
      UserError: the folder is not a corpus, or its manifest is damaged or of another version.
    """
    path = directory / MANIFEST
    if not directory.is_dir():
        raise UserError(f"{directory}: no such directory; create a corpus with python -m bertjax.prepare")
    if not path.is_file():
        raise UserError(
            f"{directory}: not a corpus, or its preparation is not complete ({MANIFEST} is missing); "
            f"run python -m bertjax.prepare --output={directory}"
        )
    return decode_manifest(decoding.read_bytes(path, f"{_REMEDY}{directory}"), path)


def decode_manifest(data: bytes, location: str | Path, *, resealing: bool = False) -> CorpusManifest:
    """Decodes the content of a `corpus.json`; `location` names it in messages.

    With `resealing` the seal, counts and fingerprint are not checked; counts and fingerprint are computed again from
    the rest.

    Raises:
      UserError: it is damaged, of another version, not a manifest, or inconsistent.
    """
    remedy = f"{_REMEDY}{Path(location).parent}"
    values = decoding.parse(data, location, remedy)
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise UserError(f"{location}: not the manifest of a corpus; create a corpus with python -m bertjax.prepare")
    if values.get("version") != VERSION:
        raise UserError(
            f"{location}: format version {values.get('version')}, but this bertjax reads version {VERSION}; "
            "prepare the corpus again, or use the bertjax version that wrote it"
        )
    values = decoding.without_seal(values) if resealing else decoding.unsealed(values, location, remedy)
    manifest = decoding.convert(values, CorpusManifest, location, remedy)
    if resealing:
        manifest = dataclasses.replace(manifest, counts=_counts(manifest.shards_by_split))
        manifest = dataclasses.replace(manifest, fingerprint=_fingerprint(manifest))
    if problem := _inconsistency(manifest):
        raise DecodingError(problem, location, remedy)
    return manifest


def _inconsistency(manifest: CorpusManifest) -> str:
    """Returns the first inconsistency between the fields of a manifest; "" if there is none."""
    split_of_content = {}
    for split, infos in manifest.shards_by_split.items():
        last = -1  # numbers may be missing: shards whose documents had no text are not written
        for index, info in enumerate(infos):
            place = f"shards.{split}[{index}]"
            number = re.fullmatch(rf"{split}-(\d{{5,9}})\.arrow", info.name)
            if not number or int(number[1]) <= last:
                return f"{place}.name: {info.name} is not a {split} shard, or not in order"
            last = int(number[1])
            if not 0 < info.documents <= info.sentences <= info.tokens:
                return f"{place}: fewer sentences than documents, or fewer tokens than sentences"
            if split_of_content.setdefault(info.sha256, split) != split:
                return f"{place}: also a shard of {split_of_content[info.sha256]}"
    if manifest.counts != _counts(manifest.shards_by_split):
        return "counts: not the sums of the shards"
    return "" if manifest.fingerprint == _fingerprint(manifest) else "fingerprint: does not match the other fields"
