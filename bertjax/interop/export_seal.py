"""The seal of an export: a file with the size and SHA-256 of all other files, named in `config.json`.

A folder that `transformers` has saved again is no longer a sealed export: its config still names the file, which is
gone, but also holds the version of `transformers`.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from bertjax import decoding
from bertjax.decoding import PATH_PART, DecodingError, FilePrefix
from bertjax.errors import UserError
from bertjax.storage.files import file_sha256, write_text

NAME = "bertjax_manifest.json"
KEYS = {"bertjax_manifest": NAME}  # of config.json

_Path = Annotated[str, msgspec.Meta(pattern=rf"\A{PATH_PART}(?:/{PATH_PART}){{0,3}}\Z")]  # within the folder


@dataclasses.dataclass(frozen=True)
class _Manifest:
    files: Mapping[_Path, FilePrefix]


@dataclasses.dataclass(frozen=True)
class _FileNames:
    """The part of a manifest that resealing reads."""

    files: Mapping[_Path, object]


def write_seal(folder: Path) -> None:
    """Seals all files of a folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != NAME)
    files = {path.relative_to(folder).as_posix(): FilePrefix(path.stat().st_size, file_sha256(path)) for path in paths}
    values = decoding.sealed(dataclasses.asdict(_Manifest(files)))
    write_text(folder / NAME, json.dumps(values, indent=1) + "\n")


def reseal_export(folder: Path) -> None:
    """Seals an export again after a deliberate edit.

    Raises:
      UserError: a file that the old seal lists is missing, or the old seal is unreadable.
    """
    for name in decoding.read(folder / NAME, _FileNames, "export the model again", foreign=True).files:
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}: missing; export the model again")
    write_seal(folder)


def check_seal(folder: Path) -> None:
    """Compares an export with its seal; accepts any other folder.

    Raises:
      UserError: a file differs from the seal or is missing.
    """
    path = folder / NAME
    remedy = (
        "export the model again, or copy it again; after a deliberate edit run python -m bertjax.convert "
        f"--reseal --from={folder}"
    )
    if not path.exists():
        if _is_sealed(folder, remedy):
            raise DecodingError(f"names {NAME}, which is missing", folder / "config.json", remedy)
        return
    for name, file in decoding.read_sealed(path, _Manifest, remedy).files.items():
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}: missing; {remedy}")
        if (folder / name).stat().st_size != file.bytes or file_sha256(folder / name) != file.sha256:
            raise UserError(f"{folder / name}: changed since the export; {remedy}")


def _is_sealed(folder: Path, remedy: str) -> bool:
    """Whether `config.json` belongs to an export that `transformers` has not saved again."""
    path = folder / "config.json"
    if not path.is_file():
        return False
    values = decoding.read(path, dict[str, object], remedy, foreign=True)
    return KEYS.keys() <= values.keys() and "transformers_version" not in values
