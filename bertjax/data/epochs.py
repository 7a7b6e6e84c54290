"""Keeps epoch plans at hand: in memory, and on disk beside the corpus. They can always be derived again.

In the corpus, `cache/plan-<hash of all that a plan depends on>/` holds `epoch-00000.npy` … and `plans.json`, each
epoch's number of examples (it says where the next epoch begins in the stream) and its plan's SHA-256. Only the
plans of the newest epochs stay. A corpus that cannot be written to, a full disk or a damaged file costs nothing but
the time to derive the plan again.
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
from bertjax.data.packing import packed
from bertjax.data.spans import ALGORITHM, examples
from bertjax.decoding import Count, Digest
from bertjax.errors import UserError
from bertjax.storage.files import file_sha256, write_text, written_whole

# At an epoch's end some threads still read the old plan while others read the new one.
_KEPT = 2


@dataclasses.dataclass(frozen=True)
class _Entry:
    """What plans.json says of an epoch: its number of examples, and the SHA-256 of its file."""

    examples: Count
    sha256: Digest


class Plans:
    """The plans of all epochs of (corpus, length, seed); threads may share it."""

    def __init__(
        self,
        corpus: Corpus,
        length: int,
        seed: int,
        sequencing: Sequencing,
    ):
        """Takes the arguments of `bertjax.data.spans.examples`, but for the epoch."""
        self._corpus, self._length, self._seed, self._sequencing = corpus, length, seed, sequencing
        settings = [length, seed, dataclasses.asdict(sequencing)]
        identity = json.dumps([ALGORITHM, corpus.fingerprint, corpus.split, *settings])
        name = hashlib.sha256(identity.encode()).hexdigest()[:16]
        self._directory = corpus.directory / "cache" / f"plan-{name}"
        self._plans: dict[int, np.ndarray] = {}
        self._counts: dict[int, int] = {}
        # A plan is made once, however many threads want it.
        self._lock = threading.RLock()

    def count(self, epoch: int) -> int:
        """Number of examples of an epoch, packed of rows."""
        with self._lock:
            if epoch not in self._counts:
                entry = self._entries().get(str(epoch))
                self._counts[epoch] = entry.examples if entry else len(self.plan(epoch))
            return self._counts[epoch]

    def plan(self, epoch: int) -> np.ndarray:
        """EXAMPLE [examples] of an epoch, packed [rows, sequencing.packing]; read-only."""
        with self._lock:
            if epoch not in self._plans:
                plan = self._load(epoch)
                if plan is None:
                    plan = self._made(epoch)
                    plan.flags.writeable = False
                    self._save(epoch, plan)
                self._plans[epoch] = plan
                for oldest in list(self._plans)[:-_KEPT]:
                    del self._plans[oldest]
            return self._plans[epoch]

    def _made(self, epoch: int) -> np.ndarray:
        plan = examples(self._corpus, self._length, self._seed, epoch, self._sequencing)
        if not self._sequencing.packing:
            return plan
        return packed(self._corpus, plan, self._length, rng.key(self._seed, "packing", epoch), self._sequencing)

    def _load(self, epoch: int) -> np.ndarray | None:
        entry = self._entries().get(str(epoch))
        path = self._path(epoch)
        try:
            if entry and file_sha256(path) == entry.sha256:
                return np.load(path, mmap_mode="r")
        except (OSError, ValueError, UserError):
            pass  # none, no array, or another process has just taken it away
        return None

    def _save(self, epoch: int, plan: np.ndarray) -> None:
        content = io.BytesIO()
        np.save(content, plan)
        view = content.getbuffer()
        entry = _Entry(len(plan), hashlib.sha256(view).hexdigest())
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with written_whole(self._path(epoch)) as temporary:
                temporary.write_bytes(view)
            entries = {name: dataclasses.asdict(one) for name, one in (self._entries() | {str(epoch): entry}).items()}
            write_text(self._directory / "plans.json", json.dumps(decoding.sealed(entries)))
            files = sorted(self._directory.glob("epoch-*.npy"), key=lambda path: path.stat().st_mtime_ns)
            for oldest in files[:-_KEPT]:
                oldest.unlink(missing_ok=True)
        except OSError:
            pass  # no permission or no room: memory serves as well

    def _path(self, epoch: int) -> Path:
        return self._directory / f"epoch-{epoch:05d}.npy"

    def _entries(self) -> dict[str, _Entry]:
        try:
            return decoding.read_sealed(self._directory / "plans.json", dict[str, _Entry], "")
        except UserError:
            return {}  # none yet, or damaged
