"""Changes to files: with their seal made new, as by hand, or bits and bytes as by a broken disk."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bertjax import decoding
from bertjax.interop import export_seal


def edit_sealed(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Changes the values of a sealed JSON file and seals it again."""
    values = decoding.without_seal(json.loads(path.read_text(encoding="utf-8")))
    edit(values)
    path.write_text(json.dumps(decoding.sealed(values)), encoding="utf-8")


def unsealed(folder: Path) -> Path:
    """An exported folder without its seal, as if another program had written it."""
    (folder / export_seal.NAME).unlink()
    config = folder / "config.json"
    values = json.loads(config.read_text(encoding="utf-8"))
    for key in export_seal.KEYS:
        del values[key]
    config.write_text(json.dumps(values), encoding="utf-8")
    return folder
