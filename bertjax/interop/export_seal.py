"""The seal of an export: a file with the size and SHA-256 of every other one, which `config.json` names.

A folder that `transformers` has saved again is no longer an export: its config still names the file, which is gone, and
also holds the version of `transformers`.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from bertjax import decoding
from bertjax.decoding import PATH_PART, DecodingError, Written
from bertjax.errors import UserError
from bertjax.storage.files import file_sha256, write_text

NAME = "bertjax_manifest.json"
KEYS = {"bertjax_manifest": NAME}  # of config.json

_Path = Annotated[str, msgspec.Meta(pattern=rf"\A{PATH_PART}(?:/{PATH_PART}){{0,3}}\Z")]  # within the folder


@dataclasses.dataclass(frozen=True)
class _Manifest:
    files: Mapping[_Path, Written]


@dataclasses.dataclass(frozen=True)
class _Names:
    """Of a manifest that is made anew, all that counts."""

    files: Mapping[_Path, Any]


def write(folder: Path) -> None:
    """Seals all that lies in a folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != NAME)
    files = {path.relative_to(folder).as_posix(): Written(path.stat().st_size, file_sha256(path)) for path in paths}
    values = decoding.sealed(dataclasses.asdict(_Manifest(files)))
    write_text(folder / NAME, json.dumps(values, indent=1) + "\n")


def reseal(folder: Path) -> None:
    """Seals an export again that was edited on purpose: the files that it had.

    Raises:
      UserError: one of them is missing, or the seal does not say which they were.
    """
    for name in decoding.read(folder / NAME, _Names, "export the model again", foreign=True).files:
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}: missing; export the model again")
    write(folder)


def check(folder: Path) -> None:
    """Compares an export with its seal; other folders have none.

    Raises:
      UserError: it is not as it was written.
    """
    path = folder / NAME
    cure = (
        "export the model again, or copy it again; if it was changed on purpose, run python -m bertjax.convert "
        f"--reseal --from={folder}"
    )
    if not path.exists():
        if _named(folder, cure):
            raise DecodingError(f"names {NAME}, which is missing", folder / "config.json", cure)
        return
    for name, file in decoding.read_sealed(path, _Manifest, cure).files.items():
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}: missing; {cure}")
        if (folder / name).stat().st_size != file.bytes or file_sha256(folder / name) != file.sha256:
            raise UserError(f"{folder / name}: not as it was exported; {cure}")


def _named(folder: Path, cure: str) -> bool:
    """Whether `config.json` is of an export that nobody has saved again."""
    path = folder / "config.json"
    if not path.is_file():
        return False
    values = decoding.read(path, dict[str, Any], cure, foreign=True)
    return KEYS.keys() <= values.keys() and "transformers_version" not in values
