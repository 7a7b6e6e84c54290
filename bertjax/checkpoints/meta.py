"""The meta of a checkpoint: everything needed to use its arrays without other files, as sealed JSON.

The seal is the SHA-256 of the JSON's canonical form. It is the same in all checkpoint formats, which distinguishes the
meta of another format from a damaged one.
"""

import base64
import dataclasses
from collections.abc import Mapping
from pathlib import Path

from bertjax import decoding
from bertjax.config.pretraining import Config
from bertjax.config.validation import validate
from bertjax.decoding import Count, DecodingError, FileName, FilePrefix, ShortText
from bertjax.errors import UserError
from bertjax.tasks.metadata import SentenceMetadata, TaskMetadata

FORMAT = 1
REMEDY = "use another checkpoint"


@dataclasses.dataclass(frozen=True)
class StoredTokenizer:
    """A tokenizer stored in a checkpoint."""

    hash: ShortText
    files: Mapping[FileName, str]  # name → base64


@dataclasses.dataclass(frozen=True)
class CheckpointMeta:
    """The meta of one checkpoint; step and checksums are set when it is saved."""

    config: Config  # of the run
    tokenizer: StoredTokenizer
    corpus: str = ""  # fingerprint; "": the parameters were not trained by bertjax
    teacher: str = ""  # fingerprint; "": no teacher
    task: TaskMetadata | None = None  # None: not fine-tuned
    sentence: SentenceMetadata | None = None  # None: unknown
    extensions: Mapping[ShortText, str] = dataclasses.field(default_factory=dict)  # what was registered → its module
    untrained_heads: tuple[ShortText, ...] = ()  # heads of pre-training that an import lacks: random parameters
    step: Count = 0
    metrics: FilePrefix | None = None  # of metrics.jsonl when the checkpoint was saved; None: not a training run's
    checksums: Mapping[str, Count] = dataclasses.field(default_factory=dict)  # array → checksum
    format: int = FORMAT


def encode_meta(meta: CheckpointMeta) -> dict[str, object]:
    """Returns the sealed JSON values of a meta."""
    return decoding.sealed(dataclasses.asdict(meta))


def decode_meta(data: bytes, path: Path, *, resealing: bool = False) -> CheckpointMeta:
    """Returns the meta in `data`, the content of the file `path`; `resealing` ignores the seal.

    Raises:
      DecodingError: the content is damaged.
      UserError: the format is another one, or this version of bertjax does not support the config.
    """
    values = decoding.parse(data, path, REMEDY)
    values = decoding.convert(values, dict[str, object], path, REMEDY)
    values = decoding.without_seal(values) if resealing else decoding.unsealed(values, path, REMEDY)
    if values.get("format") != FORMAT:
        raise UserError(
            f"{path}: checkpoint format {values.get('format')}, but this version of bertjax reads format {FORMAT}; "
            "use the version that wrote it, or another checkpoint"
        )
    meta = decoding.convert(values, CheckpointMeta, path, REMEDY)
    for name, content in meta.tokenizer.files.items():
        try:
            base64.b64decode(content, validate=True)
        except ValueError as error:
            raise DecodingError(f"tokenizer.files.{name}: not base64", path, REMEDY) from error
    try:
        validate(meta.config)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return meta
