"""Checkpoints: Orbax, asynchronous, behind one thin module.

`DIR/STEP/` holds three items: `params`, `optimizer`, and `meta` (meta.py), all that is needed to read the other two
alone.
A checkpoint that cannot be read, or whose arrays fail their checksums, is moved to `DIR.broken/`, never deleted.
"""

import base64
import contextlib
import dataclasses
import errno
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from bertjax import decoding
from bertjax.checkpoints.checksums import checksums
from bertjax.checkpoints.meta import CURE, CheckpointMeta, decode_meta, encode_meta
from bertjax.decoding import DecodingError
from bertjax.errors import UserError, first_line
from bertjax.parallel import processes
from bertjax.storage.files import write_text, written_whole
from bertjax.trainer.metrics import written_until

_LOG = logging.getLogger(__name__)


class BrokenCheckpoint(Exception):  # noqa: N818 - it names what is there, not what went wrong
    """A checkpoint cannot be read back as it was written; the message says what is wrong with it."""


class CheckpointWriter:
    """Saves the states of one run; a save returns once the arrays are copied and is finished in the background."""

    def __init__(self, directory: Path, keep_last: int, keep_every: int) -> None:
        self.directory = Path(directory).absolute()
        _make_directory(self.directory)
        # `enable_background_delete` stays off: a killed run would leave half-deleted checkpoints behind.
        self._manager = ocp.CheckpointManager(
            self.directory,
            item_names=("params", "optimizer", "meta"),
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep_last,
                keep_period=keep_every or None,
                enable_async_checkpointing=True,
                cleanup_tmp_directories=True,  # of saves that were killed
            ),
        )

    def save(self, step: int, params: Any, optimizer: Any, meta: CheckpointMeta) -> None:
        """Starts to save; waits for the save before. Does nothing if `step` is saved already.

        Raises:
          UserError: this save, or the one before in the background, failed (disk full, no permission …).
        """
        if step in self._manager.all_steps():
            return
        sums = checksums({"params": params, "optimizer": optimizer})
        args = ocp.args.Composite(
            params=ocp.args.StandardSave(params),
            optimizer=ocp.args.StandardSave(optimizer),
            meta=ocp.args.JsonSave(encode_meta(dataclasses.replace(meta, step=step, checksums=sums))),
        )
        if not self._attempt(self._manager.save, step, args=args, force=True):
            raise UserError(
                f"checkpoint {step} was not saved: {self.directory} holds later steps; "
                "move them away or use a new --workdir"
            )

    def check(self) -> None:
        """Raises UserError if a save in the background has failed since the last call."""
        self._attempt(self._manager.check_for_errors)

    def close(self) -> None:
        """Waits until everything is on disk. Raises UserError where that failed."""
        self._attempt(self._manager.wait_until_finished)
        self._manager.close()

    def latest(self) -> int | None:
        """The step of the last whole checkpoint."""
        return max(steps(self.directory), default=None)

    def _attempt(self, action: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """What `action` returns; where it fails, UserError."""
        try:
            return action(*args, **options)
        except Exception as error:
            latest = self.latest()
            whole = "no checkpoint is whole yet" if latest is None else f"the last whole checkpoint is step {latest}"
            raise UserError(
                f"cannot save a checkpoint in {self.directory}: {_reason(error)}; {whole}; "
                "put that right and run the same command again, it continues from there"
            ) from error


def steps(directory: Path) -> list[int]:
    """The steps with a finished checkpoint, ascending."""
    if not Path(directory).is_dir():
        return []
    return sorted(int(entry.name) for entry in Path(directory).iterdir() if entry.name.isdigit() and entry.is_dir())


def latest_meta(directory: Path) -> CheckpointMeta | None:
    """The meta of the last checkpoint whose meta can be read, None where there is none."""
    for step in reversed(steps(directory)):
        with contextlib.suppress(BrokenCheckpoint):
            return read_meta(Path(directory) / str(step))
    return None


def restore_latest(directory: Path, params: Any, optimizer: Any) -> tuple[Any, Any, CheckpointMeta] | None:
    """(params, optimizer, meta) of the last readable checkpoint, or None where there never was one.

    `params` and `optimizer` are trees of `jax.ShapeDtypeStruct` with the shardings to restore to. Broken checkpoints
    are set aside, which is logged.

    Raises:
      UserError: every checkpoint is broken, or the processes of a run do not see the same ones.
    """
    directory = Path(directory).absolute()
    found = steps(directory)
    newest = processes.of_all(max(found, default=-1))
    if len(set(newest)) > 1:
        raise UserError(
            f"the processes of this run see different checkpoints in {directory} (the newest: {newest}, -1 for none); "
            "--workdir must be a folder that all hosts share; if it is one, run the same command again"
        )
    for step in reversed(found):
        try:
            return _restore(directory / str(step), params, optimizer)
        except BrokenCheckpoint as error:
            if processes.is_first():
                aside = _set_aside(directory, step)
                _LOG.info(f"checkpoint {step} is broken ({error}); it was moved to {aside}, the one before is taken")
            processes.everywhere(True)  # nobody looks at the folder before it is moved
    aside = _aside(directory)
    if aside.is_dir():
        raise UserError(
            f"no checkpoint in {directory} can be read, the broken ones are in {aside}; "
            "remove that folder to start over, or move one back to try it again"
        )
    return None


def _restore(checkpoint: Path, params: Any, optimizer: Any) -> tuple[Any, Any, CheckpointMeta]:
    """(params, optimizer, meta) of one checkpoint, which all processes find whole, or all find broken."""
    broken = None
    try:
        meta = read_meta(checkpoint)
        abstract = {"params": params, "optimizer": optimizer}
        restored = {item: _read_item(checkpoint, item, tree) for item, tree in abstract.items()}
    except BrokenCheckpoint as error:
        broken = error
    if not processes.everywhere(broken is None):
        raise broken or BrokenCheckpoint("another process cannot read it")
    _compare(checksums(restored), meta.checksums)
    return restored["params"], restored["optimizer"], meta


def read_params(checkpoint: Path) -> tuple[Any, CheckpointMeta]:
    """(params as NumPy arrays, meta) of one checkpoint, `DIR/STEP`.

    Raises:
      BrokenCheckpoint: it cannot be read back as it was written.
    """
    checkpoint = Path(checkpoint).absolute()
    meta = read_meta(checkpoint)
    params = _read_item(checkpoint, "params", None)
    expected = {name: value for name, value in meta.checksums.items() if name.startswith("params/")}
    _compare(checksums({"params": params}), expected)
    return jax.tree.map(np.asarray, params), meta


def write_params(checkpoint: Path, params: Any, meta: CheckpointMeta) -> None:
    """Writes a checkpoint `DIR/STEP` of parameters alone, as an import makes it; nothing may be there yet.

    Raises:
      UserError: it cannot be written.
    """
    checkpoint = Path(checkpoint).absolute()
    sums = checksums({"params": params})
    _make_directory(checkpoint / "meta")
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(checkpoint / "params", params)
        meta = dataclasses.replace(meta, step=int(checkpoint.name), checksums=sums)
        write_text(checkpoint / "meta" / "metadata", json.dumps(encode_meta(meta)))
    except Exception as error:
        raise UserError(
            f"cannot write {checkpoint}: {_reason(error)}; put that right or choose another folder"
        ) from error


def read_meta(checkpoint: Path) -> CheckpointMeta:
    """The `meta` of one checkpoint, its own checksum verified.

    Raises:
      BrokenCheckpoint: it is missing or not as it was written.
      UserError: it is whole, but not of this bertjax.
    """
    path = Path(checkpoint) / "meta" / "metadata"
    try:
        return decode_meta(path.read_bytes(), path)
    except OSError as error:
        _refuse_what_no_file_causes(Path(checkpoint), error)
        raise BrokenCheckpoint(f"its meta cannot be read: {_reason(error)}") from error
    except DecodingError as error:
        raise BrokenCheckpoint(f"its meta is damaged: {error.problem}") from error


def reseal(checkpoint: Path, metrics_file: Path) -> None:
    """Seals a checkpoint whose meta or parameters were edited on purpose; the optimizer's arrays stay under their sums.

    `metrics_file`: the run's metrics.jsonl, of which it says what lies before its step.

    Raises:
      BrokenCheckpoint: its parameters cannot be read.
      UserError: its meta cannot be what it says.
    """
    path = Path(checkpoint).absolute() / "meta" / "metadata"
    meta = decode_meta(decoding.read_bytes(path, CURE), path, resealing=True)
    sums = {name: value for name, value in meta.checksums.items() if not name.startswith("params/")}
    sums |= checksums({"params": _read_item(path.parents[1], "params", None)})
    known = written_until(metrics_file, meta.step) if meta.metrics or metrics_file.is_file() else None
    write_text(path, json.dumps(encode_meta(dataclasses.replace(meta, checksums=sums, metrics=known))))


def tokenizer_files(folder: Path) -> dict[str, str]:
    """A tokenizer's files as name → base64, to travel inside `meta`."""
    files = sorted(path for path in Path(folder).iterdir() if path.is_file())
    return {path.name: base64.b64encode(path.read_bytes()).decode("ascii") for path in files}


def write_tokenizer(files: Mapping[str, str], folder: Path) -> None:
    """Writes a tokenizer's files, as `tokenizer_files` returns them, into an existing folder."""
    for name, content in files.items():
        with written_whole(Path(folder) / name) as temporary:
            temporary.write_bytes(base64.b64decode(content))


def _read_item(checkpoint: Path, item: str, abstract: Any | None) -> Any:
    """One item, laid out as `abstract` says; without it, on the first local device, whatever it was saved from."""
    try:
        # Each process reads for itself: with Orbax's barriers those that can read would wait for one that cannot.
        alone = ocp.options.MultiprocessingOptions(
            primary_host=jax.process_index(),
            active_processes={jax.process_index()},
            barrier_sync_key_prefix=f"process {jax.process_index()}",
        )
        with ocp.StandardCheckpointer(multiprocessing_options=alone) as checkpointer:
            if abstract is None:
                here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
                stored = checkpointer.metadata(checkpoint / item).item_metadata.tree
                abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), stored)
            return checkpointer.restore(checkpoint / item, abstract)
    except Exception as error:
        _refuse_what_no_file_causes(checkpoint, error)
        raise BrokenCheckpoint(f"its {item} cannot be read: {_reason(error)}") from error


def _refuse_what_no_file_causes(checkpoint: Path, error: Exception) -> None:
    """Raises UserError where memory or rights are missing: such a checkpoint is sound, and must stay where it is."""
    lacking = isinstance(error, (MemoryError, PermissionError))
    if lacking or any(code in str(error) for code in ("RESOURCE_EXHAUSTED", "PERMISSION_DENIED")):
        raise UserError(
            f"cannot read {checkpoint}: {_reason(error)}; free the memory or get the right to read it, "
            "and run the same command again"
        ) from error


def _compare(found: dict[str, int], expected: Mapping[str, int]) -> None:
    if found.keys() != expected.keys():
        raise BrokenCheckpoint("it holds other arrays than its meta says")
    for name, value in found.items():
        if value != expected[name]:
            raise BrokenCheckpoint(f"the array {name} fails its checksum")


def _aside(directory: Path) -> Path:
    return directory.with_name(directory.name + ".broken")


def _set_aside(directory: Path, step: int) -> Path:
    folder = _aside(directory)
    _make_directory(folder)
    number = 1
    while (folder / f"{step}-{number}").exists():
        number += 1
    return (directory / str(step)).rename(folder / f"{step}-{number}")


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {directory}: {error.strerror}; choose another folder") from error


def _reason(error: BaseException) -> str:
    """A short reason out of errors whose messages run to pages."""
    text = str(error)
    if "No space left" in text or getattr(error, "errno", None) == errno.ENOSPC:
        return "no space left on the device"
    if "ermission denied" in text or getattr(error, "errno", None) == errno.EACCES:
        return "permission denied"
    return f"{type(error).__name__}: {first_line(error)}" if text.strip() else type(error).__name__
