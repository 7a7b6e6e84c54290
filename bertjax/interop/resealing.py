"""Seals a corpus, an export or a workdir again after a deliberate edit."""

import json
from pathlib import Path

from bertjax import decoding
from bertjax.checkpoints import store
from bertjax.corpus import format
from bertjax.corpus.format import Corpus
from bertjax.corpus.manifest import MANIFEST
from bertjax.errors import UserError
from bertjax.interop import export_seal
from bertjax.storage.files import exclusive_lock, write_text

_FINETUNING_FILES = ("config.json", "data.json")  # sealed
_REMEDY = "undo the edit, or use a new folder"


def reseal(folder: Path) -> str:
    """Seals the contents of a folder as they are, checks that they can be read, and returns their kind.

    Raises:
      UserError: the folder holds nothing that bertjax seals, cannot be read, or is in use.
    """
    if (folder / MANIFEST).is_file():
        kind, seal = "the corpus", _reseal_corpus
    elif (folder / export_seal.NAME).is_file():
        kind, seal = "the export", export_seal.reseal_export
    elif store.steps(folder / "checkpoints"):
        kind, seal = "the workdir", _reseal_workdir
    else:
        raise UserError(f"{folder}: no corpus, export or workdir of bertjax; give one of these as --from")
    with exclusive_lock(folder, "another process is writing here", "--from"):
        seal(folder)
    return kind


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
            raise UserError(f"{checkpoint}: unreadable checkpoint ({error}); delete it") from error
    if (workdir / "data.json").is_file():
        for path in (workdir / name for name in _FINETUNING_FILES):
            values = decoding.read(path, dict[str, object], _REMEDY)
            write_text(path, json.dumps(decoding.sealed(decoding.without_seal(values)), indent=2) + "\n")
    runs = workdir / "runs.jsonl"
    if runs.is_file():
        lines = decoding.read_bytes(runs, _REMEDY).splitlines()
        records = [
            decoding.convert(decoding.parse(line, runs, _REMEDY), dict[str, object], runs, _REMEDY) for line in lines
        ]
        sealed = (json.dumps(decoding.sealed(decoding.without_seal(record))) + "\n" for record in records)
        write_text(runs, "".join(sealed))
