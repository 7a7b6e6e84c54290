"""Files that appear whole or not at all, and folders that one process at a time writes in."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from bertjax.errors import UserError

_PROBE = 2**20  # bytes written to check that a folder can be written to


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Gives a temporary file beside `path` to write; at the end it is put on disk and renamed to `path`.

    What was at `path` stays until then, and stays if the block raises. Several processes may write the same file: the
    last one wins. A process that is killed leaves `.NAME.….tmp` behind.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)  # the rename, too, is safe only when it is on disk
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a small UTF-8 file so."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hex.

    Raises:
      UserError: it is missing or cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); get the right to read it, or copy it again"
        ) from error


def file_digests(folder: Path) -> dict[str, str]:
    """Name → SHA-256 of the files that lie in a folder, not below it; none where there is no such folder."""
    files = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    return {path.name: file_sha256(path) for path in files}


def local_path(value: str | Path, name: str) -> Path:
    """The path that a user gave as `name`, a flag for instance.

    Raises:
      UserError: it is the address of something on another machine.
    """
    if "://" in str(value):
        raise UserError(
            f"{name}={value}: this must be a path on this machine, other storage is not read or written yet; "
            "copy it here, or mount it"
        )
    return Path(value)


def check_room(folder: Path, flag: str, size: int = _PROBE, what: str = "what comes") -> None:
    """Checks, before hours of work, that a folder can be written to and has room for `size` bytes.

    Args:
      folder: if it does not exist yet, its nearest parent that does is checked.
      flag: the flag that names it, for messages.
      size: in bytes.
      what: what needs the room, for messages.

    Raises:
      UserError: it cannot be written to, or is full.
    """
    folder = folder.absolute()
    folder = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(min(size, _PROBE)))
            probe.flush()
            os.fsync(probe.fileno())
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise UserError(f"{folder}: cannot be written to ({error.strerror}); choose another {flag}") from error
    if free < size:
        raise UserError(
            f"{folder}: {free / 1e6:,.0f} MB are free there, and {what} takes {size / 1e6:,.0f} MB; make room, or "
            f"choose another {flag}"
        )


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Makes the folder, and says in a line what goes wrong with writing into it.

    Raises:
      UserError: it cannot be made, or something in it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        where = error.filename or folder
        raise UserError(f"cannot write {where}: {error.strerror}; free space, or choose another folder") from error


@contextlib.contextmanager
def claimed(directory: Path, others: str, flag: str) -> Iterator[None]:
    """Makes the directory where it is missing and keeps other processes that claim it out; left empty, it goes again.

    Args:
      directory: where.
      others: what keeps a second process out, for its message, e.g. "another process trains here".
      flag: the flag that names the directory.

    Raises:
      UserError: another process has claimed it, or it cannot be made.
    """
    made = not directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"{directory}: cannot be written to ({error.strerror}); choose another {flag}") from error
    try:
        _lock(descriptor, f"{directory}: {others}; wait for its end, or choose another {flag}")
        check_room(directory, flag)
        yield
    finally:
        os.close(descriptor)  # this, and the end of the process in any way, takes the lock away
        if made and not any(directory.iterdir()):
            directory.rmdir()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Waits until no other process of this machine is within `locked` of the same file, which is made."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _lock(descriptor: int, message: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(message) from error
    except OSError:
        return  # a network file system that has no locks for folders: better unguarded than not at all


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
