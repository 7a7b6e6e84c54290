"""The input pipeline: the global batch of a step is a pure function of the corpus, the seed and the step.

`BatchSource.batch` is that function; `BatchSource.iterate` computes it ahead of time on several threads.
There is no iterator state: a resumed run starts at another step, and each host computes only its own rows.
bertjax/data/batch.py describes the arrays of a batch.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from bertjax.config.pretraining import Config, Phase
from bertjax.corpus.format import Corpus
from bertjax.data.batch import HostBatch
from bertjax.data.stream import RowFormat, Stream
from bertjax.data.token_info import Vocabulary
from bertjax.errors import UserError

# The overhead of NumPy calls is small from about this many tokens, so one call computes several small batches.
_TOKENS_PER_CALL = 2**18
_PREFETCH = 2  # finished results that wait, in addition to one per thread
_PADDING_SAMPLE = 10_000


def row_format(config: Config, phase: Phase) -> RowFormat:
    """Returns the format of the rows of a phase."""
    return RowFormat(phase.length, config.masking, config.sequencing)


class BatchSource:
    """All batches of a pre-training run: one stream of rows per phase."""

    def __init__(self, corpus: Corpus, vocabulary: Vocabulary, config: Config):
        """Initializes the streams of `config`; reads no tokens yet.

        Raises:
          UserError: another vocabulary than that of the corpus, or a corpus too small for pairs.
        """
        if vocabulary.size != corpus.vocab_size:
            raise UserError(
                f"{corpus.directory}: the corpus has a vocabulary of {corpus.vocab_size} ids, but the tokenizer has "
                f"{vocabulary.size}; use the tokenizer of the corpus"
            )
        self._config = config
        self._streams = [
            Stream(corpus, vocabulary, row_format(config, phase), config.seed, f"phase {index}")
            for index, phase in enumerate(config.phases)
        ]

    def batch(self, phase: int, step: int, rows: slice | np.ndarray | None = None) -> HostBatch:
        """Returns the batch of a step.

        Args:
          phase: index of the phase.
          step: counted from 0 within the phase.
          rows: the rows of the global batch for this host; None selects all.
        """
        return self._streams[phase].batch(self._row_numbers(phase, step, step + 1, rows))

    def iterate(
        self,
        first_step: int,
        last_step: int,
        *,
        rows: Callable[[int], np.ndarray] | None = None,
        threads: int = 2,
    ) -> Iterator[HostBatch]:
        """Yields the batches of steps [first_step, last_step), counted through all phases, computed ahead.

        Args:
          first_step: the first step; 0 for a new run.
          last_step: the end of the range, at most the number of steps of all phases.
          rows: maps the batch size of a phase to the rows of each global batch for this host; None selects all.
          threads: number of threads that compute batches; does not affect the result.
        """
        begin = 0
        for index, phase in enumerate(self._config.phases):
            first, last = max(first_step - begin, 0), min(last_step - begin, phase.steps)
            if first < last:
                host_rows = None if rows is None else rows(phase.batch)
                yield from self._iterate_phase(index, first, last, host_rows, threads)
            begin += phase.steps

    def padding_share(self, phase: int, step: int = 0) -> float:
        """Returns the fraction of padding in the batches of a phase, estimated from the rows that follow `step`."""
        first = step * self._config.phases[phase].batch
        return self._streams[phase].padding_share(np.arange(first, first + _PADDING_SAMPLE))

    def _row_numbers(self, phase: int, first: int, last: int, rows: slice | np.ndarray | None) -> np.ndarray:
        """Returns the numbers in the phase's stream of the rows of steps [first, last): int64 [steps * rows]."""
        size = self._config.phases[phase].batch
        selected = np.arange(size)[rows if rows is not None else slice(None)]
        return (np.arange(first, last)[:, None] * size + selected).reshape(-1)

    def _iterate_phase(
        self, phase: int, first: int, last: int, rows: np.ndarray | None, threads: int
    ) -> Iterator[HostBatch]:
        size = len(self._row_numbers(phase, first, first + 1, rows))
        steps = max(1, _TOKENS_PER_CALL // (size * self._config.phases[phase].length))

        def compute(begin: int, end: int) -> HostBatch:
            return self._streams[phase].batch(self._row_numbers(phase, begin, end, rows))

        # The first batch comes alone, so that the first step need not wait for others.
        begins = itertools.chain([first], range(first + 1, last, steps))
        calls = ((begin, min(begin + steps, last) if begin > first else first + 1) for begin in begins)
        for batches in _ordered_map(compute, calls, threads):
            for begin in range(0, len(batches["input_ids"]), size):
                yield {name: array[begin : begin + size] for name, array in batches.items()}


def _ordered_map(
    function: Callable[..., HostBatch], calls: Iterable[tuple[int, int]], threads: int
) -> Iterator[HostBatch]:
    """Yields the results of `calls` in order, computed on several threads, at most two more than needed ahead.

    Most of the time is spent in NumPy, which releases the interpreter's lock.
    """
    results: deque[Future[HostBatch]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="batches")
    try:
        for call in calls:
            results.append(pool.submit(function, *call))
            if len(results) > threads + _PREFETCH:
                yield results.popleft().result()
        while results:
            yield results.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
