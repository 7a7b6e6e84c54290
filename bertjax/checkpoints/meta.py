"""What a checkpoint says about itself: all that is needed to read its arrays alone, as JSON under a seal.

The seal is the SHA-256 of the JSON's canonical form. It is the same in every format, so that the meta of another
format is told from a damaged one.
"""

import base64
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bertjax import decoding
from bertjax.config.pretraining import Config
from bertjax.config.validation import validate
from bertjax.decoding import Count, DecodingError, FileName, ShortText, Written
from bertjax.errors import UserError
from bertjax.tasks.metadata import SentenceMetadata, TaskMetadata

FORMAT = 1
CURE = "take another checkpoint"


@dataclasses.dataclass(frozen=True)
class StoredTokenizer:
    """A tokenizer that travels with a checkpoint."""

    hash: ShortText
    files: Mapping[FileName, str]  # name → base64


@dataclasses.dataclass(frozen=True)
class CheckpointMeta:
    """The meta of one checkpoint; step and checksums are known only when it is saved."""

    config: Config  # of the run
    tokenizer: StoredTokenizer
    corpus: str = ""  # its fingerprint; "": the parameters come from elsewhere
    teacher: str = ""  # its fingerprint; "": there is none
    task: TaskMetadata | None = None  # None: it is not fine-tuned
    sentence: SentenceMetadata | None = None  # None: unknown
    step: Count = 0
    metrics: Written | None = None  # metrics.jsonl as it was then; None: not of a training
    checksums: Mapping[str, Count] = dataclasses.field(default_factory=dict)  # array → checksum
    format: int = FORMAT


def encode_meta(meta: CheckpointMeta) -> dict[str, Any]:
    """The sealed values of a meta, of JSON types."""
    return decoding.sealed(dataclasses.asdict(meta))


def decode_meta(data: bytes, path: Path, *, resealing: bool = False) -> CheckpointMeta:
    """The meta in the content of the file `path`; with `resealing` whatever its seal says.

    Raises:
      DecodingError: it is not as it was written.
      UserError: it is of another format, or its config is not one of this bertjax.
    """
    values = decoding.parse(data, path, CURE)
    values = decoding.convert(values, dict[str, Any], path, CURE)
    values = decoding.without_seal(values) if resealing else decoding.unsealed(values, path, CURE)
    if values.get("format") != FORMAT:
        raise UserError(
            f"{path}: checkpoint format {values.get('format')}, but this bertjax reads format {FORMAT}; "
            "use the bertjax that wrote it, or another checkpoint"
        )
    meta = decoding.convert(values, CheckpointMeta, path, CURE)
    for name, content in meta.tokenizer.files.items():
        try:
            base64.b64decode(content, validate=True)
        except ValueError as error:
            raise DecodingError(f"tokenizer.files.{name}: not base64", path, CURE) from error
    try:
        validate(meta.config)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return meta
