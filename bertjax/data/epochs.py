"""Index of the examples of every epoch, cached in memory and beside the corpus. It can always be recomputed.

In the corpus, `cache/plan-<hash of all arguments>/` holds `epoch-00000.npy` … with the examples of the newest epochs,
and `plans.json` with each epoch's number of examples (which locates the next epoch in the stream) and the SHA-256 of
its file. A read-only corpus, a full disk or a damaged file costs only the time to compute the examples again.
"""

import dataclasses
import hashlib
import io
import json
import threading
from pathlib import Path

import numpy as np

from bertjax import decoding
from bertjax.config.data import Sequencing
from bertjax.corpus.format import Corpus
from bertjax.data import rng
from bertjax.data.packing import pack_examples
from bertjax.data.spans import ALGORITHM, cut_examples
from bertjax.decoding import Count, Digest
from bertjax.errors import UserError
from bertjax.storage.files import atomic_write, file_sha256, write_text

# Cached epochs. At the end of an epoch some threads still read the old one while others read the next.
_CACHE_SIZE = 2


@dataclasses.dataclass(frozen=True)
class _Entry:
    """The entry of an epoch in plans.json: its number of examples, and the SHA-256 of its file."""

    examples: Count
    sha256: Digest


class EpochIndex:
    """The examples of all epochs of (corpus, length, seed); thread-safe."""

    def __init__(
        self,
        corpus: Corpus,
        length: int,
        seed: int,
        sequencing: Sequencing,
    ):
        """Takes the arguments of `bertjax.data.spans.cut_examples`, except the epoch."""
        self._corpus, self._length, self._seed, self._sequencing = corpus, length, seed, sequencing
        settings = [length, seed, dataclasses.asdict(sequencing)]
        identity = json.dumps([ALGORITHM, corpus.fingerprint, corpus.split, *settings])
        name = hashlib.sha256(identity.encode()).hexdigest()[:16]
        self._directory = corpus.directory / "cache" / f"plan-{name}"
        self._examples: dict[int, np.ndarray] = {}
        self._counts: dict[int, int] = {}
        # Ensures that only one thread computes an epoch.
        self._lock = threading.RLock()

    def count(self, epoch: int) -> int:
        """Returns the number of examples of an epoch; with packing, the number of rows."""
        with self._lock:
            if epoch not in self._counts:
                entry = self._entries().get(str(epoch))
                self._counts[epoch] = entry.examples if entry else len(self.examples(epoch))
            return self._counts[epoch]

    def examples(self, epoch: int) -> np.ndarray:
        """Returns EXAMPLE [examples] of an epoch; with packing [rows, sequencing.packing]. Read-only."""
        with self._lock:
            if epoch not in self._examples:
                examples = self._load(epoch)
                if examples is None:
                    examples = self._compute(epoch)
                    examples.flags.writeable = False
                    self._save(epoch, examples)
                self._examples[epoch] = examples
                for oldest in list(self._examples)[:-_CACHE_SIZE]:
                    del self._examples[oldest]
            return self._examples[epoch]

    def _compute(self, epoch: int) -> np.ndarray:
        examples = cut_examples(self._corpus, self._length, self._seed, epoch, self._sequencing)
        if not self._sequencing.packing:
            return examples
        key = rng.key(self._seed, "packing", epoch)
        return pack_examples(self._corpus, examples, self._length, key, self._sequencing)

    def _load(self, epoch: int) -> np.ndarray | None:
        entry = self._entries().get(str(epoch))
        path = self._path(epoch)
        try:
            if entry and file_sha256(path) == entry.sha256:
                return np.load(path, mmap_mode="r")
        except (OSError, ValueError, UserError):
            pass  # missing, not an array, or just deleted by another process
        return None

    def _save(self, epoch: int, examples: np.ndarray) -> None:
        content = io.BytesIO()
        np.save(content, examples)
        view = content.getbuffer()
        new = _Entry(len(examples), hashlib.sha256(view).hexdigest())
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with atomic_write(self._path(epoch)) as temporary:
                temporary.write_bytes(view)
            entries = self._entries() | {str(epoch): new}
            values = {name: dataclasses.asdict(entry) for name, entry in entries.items()}
            write_text(self._directory / "plans.json", json.dumps(decoding.sealed(values)))
            files = sorted(self._directory.glob("epoch-*.npy"), key=lambda path: path.stat().st_mtime_ns)
            for oldest in files[:-_CACHE_SIZE]:
                oldest.unlink(missing_ok=True)
        except OSError:
            pass  # read-only or full; the copy in memory is enough

    def _path(self, epoch: int) -> Path:
        return self._directory / f"epoch-{epoch:05d}.npy"

    def _entries(self) -> dict[str, _Entry]:
        try:
            return decoding.read_sealed(self._directory / "plans.json", dict[str, _Entry], "")
        except UserError:
            return {}  # missing or damaged
