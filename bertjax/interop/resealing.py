"""Seals again what was edited on purpose: a corpus, an export, or a workdir."""

import json
from pathlib import Path
from typing import Any

from bertjax import decoding
from bertjax.checkpoints import store
from bertjax.corpus import format
from bertjax.corpus.format import Corpus
from bertjax.corpus.manifest import MANIFEST
from bertjax.errors import UserError
from bertjax.interop import export_seal
from bertjax.storage.files import claimed, write_text

_SWEEP = ("config.json", "data.json")  # sealed files of a fine-tuning
_CURE = "put it right, or use a new folder"


def reseal(folder: Path) -> str:
    """Seals the contents of a folder as they are now, reads them back, and returns what they are in a few words.

    Raises:
      UserError: the folder holds nothing that bertjax seals, cannot be read, or is in use.
    """
    if (folder / MANIFEST).is_file():
        what, act = "the corpus", _reseal_corpus
    elif (folder / export_seal.NAME).is_file():
        what, act = "the export", export_seal.reseal
    elif store.steps(folder / "checkpoints"):
        what, act = "the workdir", _reseal_workdir
    else:
        raise UserError(f"{folder}: no corpus, export or workdir of bertjax; give one of these as --from")
    with claimed(folder, "another process is writing here", "--from"):
        act(folder)
    return what


def _reseal_corpus(folder: Path) -> None:
    format.reseal(folder)
    Corpus.open(folder).load_tokenizer()


def _reseal_workdir(workdir: Path) -> None:
    for step in store.steps(workdir / "checkpoints"):
        checkpoint = workdir / "checkpoints" / str(step)
        try:
            store.reseal(checkpoint, workdir / "metrics.jsonl")
            store.read_params(checkpoint)
        except store.BrokenCheckpoint as error:
            raise UserError(f"checkpoint {step} of {workdir} cannot be read ({error}); delete it") from error
    if (workdir / "data.json").is_file():
        for path in (workdir / name for name in _SWEEP):
            values = decoding.read(path, dict[str, Any], _CURE)
            write_text(path, json.dumps(decoding.sealed(decoding.without_seal(values)), indent=2) + "\n")
    runs = workdir / "runs.jsonl"
    if runs.is_file():
        lines = decoding.read_bytes(runs, _CURE).splitlines()
        records = [decoding.convert(decoding.parse(line, runs, _CURE), dict[str, Any], runs, _CURE) for line in lines]
        sealed = (json.dumps(decoding.sealed(decoding.without_seal(record))) + "\n" for record in records)
        write_text(runs, "".join(sealed))
