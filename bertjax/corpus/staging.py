"""Copies a remote corpus (gs://…, s3://… or any other fsspec URL) to this host once.

The copy is a folder in `$BERTJAX_CACHE`, by default `~/.cache/bertjax`, named by the fingerprint of the corpus and
shared by all processes of the host. Every shard is compared with its hash before it is renamed to its final name.
`corpus.json` is written last: a folder with it is complete.
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bertjax.corpus.manifest import MANIFEST, decode_manifest
from bertjax.errors import UserError, first_line
from bertjax.storage.files import atomic_write, file_sha256, local_path, wait_for_lock

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_LOG = logging.getLogger(__name__)


def local_copy(corpus: str) -> Path:
    """Returns the folder of a corpus on this host, copying a remote corpus if necessary.

    Args:
      corpus: a folder or the URL of one.

    Raises:
      UserError: the corpus cannot be read or is damaged, or the copy cannot be written.
    """
    if "://" not in corpus:
        return local_path(corpus, "the corpus")
    import fsspec

    with _as_user_errors(corpus):
        filesystem, root = fsspec.url_to_fs(corpus)
        manifest_bytes = filesystem.cat_file(f"{root}/{MANIFEST}")
    manifest = decode_manifest(manifest_bytes, f"{corpus}/{MANIFEST}")
    cache = Path(os.environ.get("BERTJAX_CACHE") or Path.home() / ".cache/bertjax")
    folder = cache / "corpora" / manifest.fingerprint[:16]
    with _as_user_errors(corpus, folder):
        (folder / "tokenizer").mkdir(parents=True, exist_ok=True)
        with wait_for_lock(folder / "lock"):  # one process of the host copies, the others wait
            if not (folder / MANIFEST).exists():
                for leftover in folder.glob(".*.tmp"):  # from a killed process
                    leftover.unlink()
                for shard in (shard for split in manifest.shards_by_split.values() for shard in split):
                    target = folder / shard.name
                    if not target.exists():  # else copied by an interrupted process
                        _LOG.info(f"copying {shard.name} ({shard.bytes / 1e6:,.1f} MB) to {folder}")
                        _copy(filesystem, f"{root}/{shard.name}", target, shard.sha256)
                for name, sha256 in manifest.tokenizer_files.items():
                    _copy(filesystem, f"{root}/tokenizer/{name}", folder / "tokenizer" / name, sha256)
                with atomic_write(folder / MANIFEST) as temporary:
                    temporary.write_bytes(manifest_bytes)
    return folder


def _copy(filesystem: "AbstractFileSystem", source: str, target: Path, sha256: str = "") -> None:
    with atomic_write(target) as temporary:
        filesystem.get_file(source, str(temporary))
        if sha256 and file_sha256(temporary) != sha256:
            raise UserError(
                f"{source}: checksum mismatch, damaged at the source or in transfer; run the same command again, or "
                "upload the corpus again"
            )


@contextlib.contextmanager
def _as_user_errors(corpus: str, folder: Path | None = None) -> Iterator[None]:
    """Turns errors while reading `corpus` and writing `folder` into UserErrors."""
    try:
        yield
    except UserError:
        raise
    except ImportError as error:  # names the package that supports this kind of URL
        raise UserError(f"{corpus}: cannot be read: {error}") from error
    except FileNotFoundError as error:
        raise UserError(
            f"{corpus}: no corpus there ({error.filename or error} is missing); check the address"
        ) from error
    except Exception as error:  # storage libraries share no base class of errors
        copying = f" or copied to {folder} (BERTJAX_CACHE sets another folder)" if folder else ""
        raise UserError(
            f"{corpus}: cannot be read{copying} ({first_line(error)}); fix this and run the same command again"
        ) from error
