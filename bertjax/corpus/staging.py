"""A corpus that lies elsewhere (gs://…, s3://…, whatever fsspec knows), brought to this machine once.

It goes to a folder named by the corpus's fingerprint in `$BERTJAX_CACHE`, else in `~/.cache/bertjax`. All processes of
a machine share it. Every shard is compared with its hash before it gets its name; `corpus.json` comes last, so that a
folder with it is whole.
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bertjax.corpus.manifest import MANIFEST, decode_manifest
from bertjax.errors import UserError, first_line
from bertjax.storage.files import file_sha256, locked, written_whole

_LOG = logging.getLogger(__name__)


def local(corpus: str) -> Path:
    """The folder of `corpus` on this machine: itself, or where it was staged to.

    Args:
      corpus: a folder, or the URL of one.

    Raises:
      UserError: it cannot be read, is damaged there, or cannot be written here.
    """
    if "://" not in corpus:
        return Path(corpus)
    import fsspec

    with _errors_explained(corpus):
        files, root = fsspec.url_to_fs(corpus)
        manifest = files.cat_file(f"{root}/{MANIFEST}")
    content = decode_manifest(manifest, f"{corpus}/{MANIFEST}")
    fingerprint = content.fingerprint
    folder = Path(os.environ.get("BERTJAX_CACHE") or Path.home() / ".cache/bertjax") / "corpora" / fingerprint[:16]
    with _errors_explained(corpus, folder):
        (folder / "tokenizer").mkdir(parents=True, exist_ok=True)
        with locked(folder / "lock"):  # one process of the machine copies, the others wait for it
            if not (folder / MANIFEST).exists():
                for leftover in folder.glob(".*.tmp"):  # of a staging that was killed
                    leftover.unlink()
                for shard in (shard for split in content.shards.values() for shard in split):
                    target = folder / shard.name
                    if not target.exists():  # from a staging that was ended
                        _LOG.info(f"staging {shard.name} ({shard.bytes / 1e6:,.1f} MB) in {folder}")
                        _copy(files, f"{root}/{shard.name}", target, shard.sha256)
                for name, sha256 in content.tokenizer_files.items():
                    _copy(files, f"{root}/tokenizer/{name}", folder / "tokenizer" / name, sha256)
                with written_whole(folder / MANIFEST) as temporary:
                    temporary.write_bytes(manifest)
    return folder


def _copy(files: Any, source: str, target: Path, sha256: str = "") -> None:
    with written_whole(target) as temporary:
        files.get_file(source, str(temporary))
        if sha256 and file_sha256(temporary) != sha256:
            raise UserError(
                f"{source}: damaged, there or on its way: it fails its checksum; "
                "run the same command again, or copy the corpus there again"
            )


@contextlib.contextmanager
def _errors_explained(corpus: str, folder: Path | None = None) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except ImportError as error:  # fsspec says which package knows this kind of URL
        raise UserError(f"cannot read {corpus}: {error}") from error
    except FileNotFoundError as error:
        raise UserError(f"{corpus}: no corpus there ({error.filename or error} is missing)") from error
    except Exception as error:  # every kind of storage has errors of its own
        where = f" or write it to {folder} (BERTJAX_CACHE names another place)" if folder else ""
        raise UserError(
            f"cannot read {corpus}{where}: {first_line(error)}; once that is put right, run the same command"
        ) from error
