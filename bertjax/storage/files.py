"""Atomic writes, checksums, checks of free space, and locks that admit one process at a time."""

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

_PROBE = 2**20  # bytes written to test whether a folder is writable


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary file beside `path`, which is synced to disk and renamed to `path` at the end of the block.

    The previous file stays until then, and stays if the block raises. If several processes write the same file, the
    last one wins. A killed process leaves `.NAME.….tmp` behind.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)  # makes the rename durable as well
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a small UTF-8 file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file, hex.

    Raises:
      UserError: the file is missing or cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); check its permissions, or copy it again"
        ) from error


def file_digests(folder: Path) -> dict[str, str]:
    """Returns name → SHA-256 of the files directly in a folder; empty if there is no such folder."""
    files = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    return {path.name: file_sha256(path) for path in files}


def local_path(value: str | Path, name: str) -> Path:
    """Returns the path that the user passed as `name`, such as a flag, with `~` replaced by the home directory.

    Raises:
      UserError: the path is an address of remote storage.
    """
    if "://" in str(value):
        raise UserError(f"{name}={value}: must be a path on this machine; copy remote files here, or mount the storage")
    try:
        return Path(value).expanduser()
    except RuntimeError:  # "~NAME", and there is no such user: an ordinary name
        return Path(value)


def check_room(folder: Path, flag: str, size: int = _PROBE, contents: str = "the output") -> None:
    """Checks, before hours of work, that a folder is writable and has `size` bytes of free space.

    Args:
      folder: the folder; if it does not exist yet, its nearest existing parent is checked.
      flag: the flag that names the folder, for messages.
      size: required space in bytes.
      contents: name of the files that need the space, for messages.

    Raises:
      UserError: the folder cannot be written to, or has too little free space.
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
            f"{folder}: {free / 1e6:,.0f} MB free, but {contents} needs {size / 1e6:,.0f} MB; free some space, or "
            f"choose another {flag}"
        )


@contextlib.contextmanager
def writable_folder(folder: Path) -> Iterator[None]:
    """Creates the folder, and turns OSErrors of the block into UserErrors.

    Raises:
      UserError: the folder cannot be created, or a file in it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        path = error.filename or folder
        raise UserError(f"cannot write {path}: {error.strerror}; free some space, or choose another folder") from error


@contextlib.contextmanager
def exclusive_lock(directory: Path, conflict: str, flag: str) -> Iterator[None]:
    """Locks a directory against other processes, and creates it if it is missing; removes it again if left empty.

    Args:
      directory: the directory to lock.
      conflict: message for a second process, such as "another run is active here".
      flag: the flag that names the directory, for messages.

    Raises:
      UserError: another process holds the lock, or the directory cannot be created.
    """
    created = not directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"{directory}: cannot be written to ({error.strerror}); choose another {flag}") from error
    try:
        _lock(descriptor, f"{directory}: {conflict}; wait until it has finished, or choose another {flag}")
        check_room(directory, flag)
        yield
    finally:
        os.close(descriptor)  # releases the lock, as does any end of the process
        if created and not any(directory.iterdir()):
            directory.rmdir()


@contextlib.contextmanager
def wait_for_lock(path: Path) -> Iterator[None]:
    """Holds the lock of a file, which is created; waits while another process of this machine holds it."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _lock(descriptor: int, message: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(message) from error
    except OSError:
        return  # a network file system without locks of folders: continue without a lock


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
