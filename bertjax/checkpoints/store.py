"""Checkpoints on disk: a thin layer over Orbax that saves asynchronously and verifies on restoring.

`DIR/STEP/` holds three items: `params`, `optimizer`, and `meta` (meta.py), everything needed to read the other two.
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
from typing import ParamSpec, TypeVar

import jax
import numpy as np
from jaxtyping import PyTree

from bertjax import decoding
from bertjax.arrays.types import Params
from bertjax.checkpoints.checksums import checksums
from bertjax.checkpoints.meta import REMEDY, CheckpointMeta, decode_meta, encode_meta
from bertjax.decoding import DecodingError
from bertjax.environment import bare_root_logger
from bertjax.errors import UserError, first_line
from bertjax.parallel import processes
from bertjax.storage.files import atomic_write, write_text
from bertjax.trainer.metrics import prefix_until

with bare_root_logger():  # importing it logs
    import orbax.checkpoint as ocp

P = ParamSpec("P")
R = TypeVar("R")

_LOG = logging.getLogger(__name__)


class BrokenCheckpoint(Exception):  # noqa: N818 - names the state of the checkpoint, not a failed operation
    """A checkpoint is damaged or incomplete; the message describes the damage."""


class CheckpointWriter:
    """Saves the states of a run; a save returns once the arrays are copied and finishes in the background."""

    def __init__(self, directory: Path, keep_last: int, keep_every: int) -> None:
        self.directory = Path(directory).absolute()
        _make_directory(self.directory)
        self._exit = contextlib.ExitStack()  # closed by `close`, as saves in the background log too
        self._exit.enter_context(bare_root_logger())
        # `enable_background_delete` stays off: a killed run would leave half-deleted checkpoints behind.
        self._manager = ocp.CheckpointManager(
            self.directory,
            item_names=("params", "optimizer", "meta"),
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep_last,
                keep_period=keep_every or None,
                enable_async_checkpointing=True,
                cleanup_tmp_directories=True,  # of killed saves
            ),
        )

    def save(self, step: int, params: Params, optimizer: PyTree, meta: CheckpointMeta) -> None:
        """Starts a save after waiting for the previous one. Does nothing if `step` is saved already.

        Raises:
          UserError: this save, or the previous one in the background, failed (disk full, no permission …).
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
                f"{self.directory}: checkpoint {step} was not saved, the folder holds later steps; "
                "move them away, or use a new workdir (--workdir)"
            )

    def check(self) -> None:
        """Raises UserError if a save in the background has failed since the last call."""
        self._attempt(self._manager.check_for_errors)

    def close(self) -> None:
        """Waits until everything is on disk; raises UserError if a save failed."""
        with self._exit:
            self._attempt(self._manager.wait_until_finished)
            self._manager.close()

    def latest(self) -> int | None:
        """Returns the step of the last finished checkpoint, or None."""
        return max(steps(self.directory), default=None)

    def _attempt(self, action: Callable[P, R], *args: P.args, **options: P.kwargs) -> R:
        """Returns the result of `action`; raises UserError if it fails."""
        try:
            return action(*args, **options)
        except Exception as error:
            latest = self.latest()
            finished, then = f"the last finished checkpoint is step {latest}", "continues from there"
            if latest is None:
                finished, then = "there is no finished checkpoint yet", "then starts from the beginning"
            raise UserError(
                f"{self.directory}: cannot save a checkpoint ({_reason(error)}); {finished}; "
                f"fix the cause and run the same command again, which {then}"
            ) from error


def steps(directory: Path) -> list[int]:
    """Returns the steps of the finished checkpoints, ascending."""
    if not Path(directory).is_dir():
        return []
    return sorted(int(entry.name) for entry in Path(directory).iterdir() if entry.name.isdigit() and entry.is_dir())


def latest_meta(directory: Path) -> CheckpointMeta | None:
    """Returns the last readable meta of a checkpoint, or None."""
    for step in reversed(steps(directory)):
        with contextlib.suppress(BrokenCheckpoint):
            return read_meta(Path(directory) / str(step))
    return None


def restore_latest(directory: Path, params: Params, optimizer: PyTree) -> tuple[Params, PyTree, CheckpointMeta] | None:
    """Returns (params, optimizer, meta) of the last readable checkpoint, or None if there never was a checkpoint.

    `params` and `optimizer` are trees of `jax.ShapeDtypeStruct` with the shardings to restore to. Broken checkpoints
    are moved away and logged.

    Raises:
      UserError: every checkpoint is broken, or the processes of a run see different checkpoints.
    """
    directory = Path(directory).absolute()
    present = steps(directory)
    newest = processes.gather_values(max(present, default=-1))
    if len(set(newest)) > 1:
        raise UserError(
            f"{directory}: the processes of this run see different checkpoints (the newest by process: {newest}, -1: "
            "none); workdir (--workdir) must be a folder shared by all hosts; if it is, run the same command again"
        )
    for step in reversed(present):
        try:
            return _restore(directory / str(step), params, optimizer)
        except BrokenCheckpoint as error:
            if processes.is_first():
                target = _move_to_broken(directory, step)
                _LOG.info(f"checkpoint {step} is broken ({error}); moved it to {target}, using the one before")
            processes.all_agree(True)  # waits for the move before any process reads the folder
    broken = _broken_folder(directory)
    if broken.is_dir():
        raise UserError(
            f"{directory}: no readable checkpoint, the broken ones are in {broken}; "
            "remove that folder to start over, or move a checkpoint back to try it again"
        )
    return None


def _restore(checkpoint: Path, params: Params, optimizer: PyTree) -> tuple[Params, PyTree, CheckpointMeta]:
    """Returns (params, optimizer, meta) of one checkpoint; raises BrokenCheckpoint on all processes or on none."""
    broken = None
    try:
        meta = read_meta(checkpoint)
        abstract = {"params": params, "optimizer": optimizer}
        restored = {item: _read_item(checkpoint, item, tree) for item, tree in abstract.items()}
    except BrokenCheckpoint as error:
        broken = error
    if not processes.all_agree(broken is None):
        raise broken or BrokenCheckpoint("another process cannot read it")
    _compare(checksums(restored), meta.checksums)
    return restored["params"], restored["optimizer"], meta


def read_params(checkpoint: Path) -> tuple[Params, CheckpointMeta]:
    """Returns (params as NumPy arrays, meta) of one checkpoint, `DIR/STEP`.

    Raises:
      BrokenCheckpoint: the checkpoint is damaged or incomplete.
    """
    checkpoint = Path(checkpoint).absolute()
    meta = read_meta(checkpoint)
    params = _read_item(checkpoint, "params", None)
    expected = {name: value for name, value in meta.checksums.items() if name.startswith("params/")}
    _compare(checksums({"params": params}), expected)
    return jax.tree.map(np.asarray, params), meta


@bare_root_logger()
def write_params(checkpoint: Path, params: Params, meta: CheckpointMeta) -> None:
    """Writes a checkpoint `DIR/STEP` of parameters without optimizer, e.g. of an import; it must not exist yet.

    Raises:
      UserError: the checkpoint cannot be written.
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
            f"{checkpoint}: cannot be written ({_reason(error)}); fix the cause, or choose another folder"
        ) from error


def read_meta(checkpoint: Path) -> CheckpointMeta:
    """Returns the meta of one checkpoint after verifying its seal.

    Raises:
      BrokenCheckpoint: the meta is missing or damaged.
      UserError: the meta is intact, but this version of bertjax does not support it.
    """
    path = Path(checkpoint) / "meta" / "metadata"
    try:
        return decode_meta(path.read_bytes(), path)
    except OSError as error:
        _raise_unless_damaged(Path(checkpoint), error)
        raise BrokenCheckpoint(f"its meta cannot be read: {_reason(error)}") from error
    except DecodingError as error:
        raise BrokenCheckpoint(f"its meta is damaged: {error.problem}") from error


def reseal(checkpoint: Path, metrics_file: Path) -> None:
    """Seals a checkpoint whose meta or parameters were edited on purpose; the optimizer keeps its checksums.

    `metrics_file` is the run's metrics.jsonl, whose lines up to the checkpoint's step are recorded again.

    Raises:
      BrokenCheckpoint: the parameters cannot be read.
      UserError: the meta is not valid.
    """
    path = Path(checkpoint).absolute() / "meta" / "metadata"
    meta = decode_meta(decoding.read_bytes(path, REMEDY), path, resealing=True)
    sums = {name: value for name, value in meta.checksums.items() if not name.startswith("params/")}
    sums |= checksums({"params": _read_item(path.parents[1], "params", None)})
    prefix = prefix_until(metrics_file, meta.step) if meta.metrics or metrics_file.is_file() else None
    write_text(path, json.dumps(encode_meta(dataclasses.replace(meta, checksums=sums, metrics=prefix))))


def tokenizer_files(folder: Path) -> dict[str, str]:
    """Returns the files of a tokenizer as name → base64, as stored in a checkpoint's meta."""
    files = sorted(path for path in Path(folder).iterdir() if path.is_file())
    return {path.name: base64.b64encode(path.read_bytes()).decode("ascii") for path in files}


def write_tokenizer(files: Mapping[str, str], folder: Path) -> None:
    """Writes the files of `tokenizer_files` into an existing folder."""
    for name, content in files.items():
        with atomic_write(Path(folder) / name) as temporary:
            temporary.write_bytes(base64.b64decode(content))


@bare_root_logger()
def _read_item(checkpoint: Path, item: str, abstract: PyTree | None) -> PyTree:
    """Reads one item, sharded as `abstract`; None: on the first local device, whatever its sharding was."""
    try:
        # Each process reads on its own: with Orbax's barriers, all would wait for a process that cannot read.
        single_process = ocp.options.MultiprocessingOptions(
            primary_host=jax.process_index(),
            active_processes={jax.process_index()},
            barrier_sync_key_prefix=f"process {jax.process_index()}",
        )
        with ocp.StandardCheckpointer(multiprocessing_options=single_process) as checkpointer:
            if abstract is None:
                device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
                stored = checkpointer.metadata(checkpoint / item).item_metadata.tree
                abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), stored)
            return checkpointer.restore(checkpoint / item, abstract)
    except Exception as error:
        _raise_unless_damaged(checkpoint, error)
        raise BrokenCheckpoint(f"its {item} cannot be read: {_reason(error)}") from error


def _raise_unless_damaged(checkpoint: Path, error: Exception) -> None:
    """Raises UserError if memory or permissions are missing: the checkpoint is intact and must stay in place."""
    environmental = isinstance(error, (MemoryError, PermissionError))
    if environmental or any(code in str(error) for code in ("RESOURCE_EXHAUSTED", "PERMISSION_DENIED")):
        raise UserError(
            f"{checkpoint}: cannot be read ({_reason(error)}); free memory or get permission to read it, "
            "and run the same command again"
        ) from error


def _compare(actual: dict[str, int], expected: Mapping[str, int]) -> None:
    if actual.keys() != expected.keys():
        raise BrokenCheckpoint("its arrays are not those listed in its meta")
    for name, value in actual.items():
        if value != expected[name]:
            raise BrokenCheckpoint(f"checksum mismatch in the array {name}")


def _broken_folder(directory: Path) -> Path:
    return directory.with_name(directory.name + ".broken")


def _move_to_broken(directory: Path, step: int) -> Path:
    folder = _broken_folder(directory)
    _make_directory(folder)
    number = 1
    while (folder / f"{step}-{number}").exists():
        number += 1
    return (directory / str(step)).rename(folder / f"{step}-{number}")


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{directory}: cannot be created ({error.strerror}); choose another folder") from error


def _reason(error: BaseException) -> str:
    """Returns a short reason for errors whose messages may span pages."""
    text = str(error)
    if "No space left" in text or getattr(error, "errno", None) == errno.ENOSPC:
        return "no space left on the device"
    if "ermission denied" in text or getattr(error, "errno", None) == errno.EACCES:
        return "permission denied"
    return f"{type(error).__name__}: {first_line(error)}" if text.strip() else type(error).__name__
