"""Seals again what was edited on purpose: a corpus, an export, or a workdir."""

import json
from pathlib import Path
from typing import Any

from bertjax import decoding
from bertjax.checkpoints import store
from bertjax.corpus import format
from bertjax.corpus.manifest import MANIFEST
from bertjax.errors import UserError
from bertjax.interop import export_seal
from bertjax.storage.files import write_text
from bertjax.trainer import metrics

_SWEEP = ("config.json", "data.json")  # sealed files of a fine-tuning
_CURE = "put it right, or use a new folder"


def reseal(folder: Path) -> str:
    """Seals what lies in a folder; returns what that is, in a few words.

    Raises:
      UserError: it holds nothing that bertjax seals, or nothing that can be read.
    """
    if (folder / MANIFEST).is_file():
        format.reseal(folder)
        return "the corpus"
    if (folder / export_seal.NAME).is_file():
        export_seal.reseal(folder)
        return "the export"
    if not (steps := store.steps(folder / "checkpoints")):
        raise UserError(f"{folder}: no corpus, export or workdir of bertjax; give one of these as --from")
    for step in steps:
        _reseal_checkpoint(folder, step)
    for path in (folder / name for name in _SWEEP if (folder / "runs.jsonl").is_file()):
        if path.is_file():
            values = decoding.without_seal(decoding.read(path, dict[str, Any], _CURE))
            write_text(path, json.dumps(decoding.sealed(values), indent=2) + "\n")
    return f"the workdir's checkpoints {', '.join(map(str, steps))}"


def _reseal_checkpoint(workdir: Path, step: int) -> None:
    path = workdir / "metrics.jsonl"
    known = metrics.written_until(path, step) if path.is_file() else None
    try:
        store.reseal(workdir / "checkpoints" / str(step), known)
    except store.BrokenCheckpoint as error:
        raise UserError(f"checkpoint {step} of {workdir} cannot be read ({error}); delete it") from error
