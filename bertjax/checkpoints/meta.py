"""What a checkpoint says about itself: all that is needed to read its arrays alone, as JSON under a seal.

The seal is the SHA-256 of the JSON's canonical form. It is the same in every format, so that the meta of another
format is told from a damaged one.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bertjax import decoding
from bertjax.config.pretraining import Config
from bertjax.config.validation import validate
from bertjax.decoding import DecodingError
from bertjax.errors import UserError
from bertjax.tasks.metadata import SentenceMetadata, TaskMetadata

FORMAT = 1
_CURE = "take another checkpoint"


@dataclasses.dataclass(frozen=True)
class StoredTokenizer:
    """A tokenizer that travels with a checkpoint."""

    hash: str
    files: Mapping[str, str]  # name → base64


@dataclasses.dataclass(frozen=True)
class CheckpointMeta:
    """The meta of one checkpoint; step and checksums are known only when it is saved."""

    config: Config  # of the run
    tokenizer: StoredTokenizer
    corpus: str = ""  # its fingerprint; "": the parameters come from elsewhere
    teacher: str = ""  # its fingerprint; "": there is none
    task: TaskMetadata | None = None  # None: it is not fine-tuned
    sentence: SentenceMetadata | None = None  # None: unknown
    step: int = 0
    checksums: Mapping[str, int] = dataclasses.field(default_factory=dict)  # array → checksum
    format: int = FORMAT


def encode_meta(meta: CheckpointMeta) -> dict[str, Any]:
    """The sealed values of a meta, of JSON types."""
    values = json.loads(json.dumps(dataclasses.asdict(meta)))
    return values | {"sha256": seal(values)}


def decode_meta(data: bytes, path: Path) -> CheckpointMeta:
    """The meta in the content of the file `path`.

    Raises:
      DecodingError: it is not as it was written.
      UserError: it is of another format, or its config is not one of this bertjax.
    """
    values = decoding.parse(data, path, _CURE)
    digest = values.pop("sha256", None) if isinstance(values, dict) else None
    if digest != seal(values):
        raise DecodingError("checksum mismatch", path, _CURE)
    if values.get("format") != FORMAT:
        raise UserError(
            f"{path}: checkpoint format {values.get('format')}, but this bertjax reads format {FORMAT}; "
            "use the bertjax that wrote it, or another checkpoint"
        )
    meta = decoding.convert(values, CheckpointMeta, path, _CURE)
    try:
        validate(meta.config)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return meta


def seal(values: Any) -> str:
    """The SHA-256 of the canonical form of JSON values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
