"""The input pipeline: the global batch of a step is a pure function of the corpus, the seed and the step.

`BatchSource.batch` is that function; `BatchSource.iterate` lets tf.data call it ahead of time on several threads. There
is no iterator state: resuming is starting at another step, and a host computes its own rows only.
bertjax/data/batch.py describes the arrays of a batch.
"""

from collections.abc import Callable, Iterator

import numpy as np

from bertjax import host_tensorflow
from bertjax.config.pretraining import Config, Phase
from bertjax.corpus.format import Corpus
from bertjax.data.batch import Batch
from bertjax.data.stream import RowFormat, Stream
from bertjax.data.token_info import Vocabulary
from bertjax.errors import UserError

# NumPy's calls are cheap from about this many tokens on, so a tf.data element holds several batches that are smaller.
_TOKENS_PER_CALL = 2**18
_PADDING_SAMPLE = 10_000


def row_format(config: Config, phase: Phase) -> RowFormat:
    """The rows of a phase."""
    return RowFormat(phase.length, config.masking, config.sequencing)


class BatchSource:
    """All batches of a training run: a stream of rows for each phase."""

    def __init__(self, corpus: Corpus, vocabulary: Vocabulary, config: Config):
        """Describes the batches of `config`; reads nothing yet.

        Raises:
          UserError: the corpus was made with another vocabulary, or is too small for pairs.
        """
        if vocabulary.size != corpus.vocab_size:
            raise UserError(
                f"{corpus.directory}: made with a vocabulary of {corpus.vocab_size} ids, but the tokenizer has "
                f"{vocabulary.size}; take the tokenizer of the corpus"
            )
        self._config = config
        self._streams = [
            Stream(corpus, vocabulary, row_format(config, phase), config.seed, f"phase {index}")
            for index, phase in enumerate(config.phases)
        ]

    def batch(self, phase: int, step: int, rows: slice | np.ndarray | None = None) -> Batch:
        """The batch of a step.

        Args:
          phase: index of the phase.
          step: counted from 0 within the phase.
          rows: a host's rows of the global batch; None takes all.
        """
        return self._streams[phase].batch(self._numbers(phase, step, step + 1, rows))

    def iterate(
        self,
        first_step: int,
        last_step: int,
        *,
        rows: Callable[[int], np.ndarray] | None = None,
        threads: int = 2,
    ) -> Iterator[Batch]:
        """The batches of steps [first_step, last_step), counted through all phases, computed ahead by tf.data.

        Args:
          first_step: where to begin; 0 for a new run.
          last_step: where to end, at most the steps of all phases.
          rows: from a phase's batch size to a host's rows of each global batch; None takes all.
          threads: how many compute batches; does not change them.
        """
        begin = 0
        for index, phase in enumerate(self._config.phases):
            first, last = max(first_step - begin, 0), min(last_step - begin, phase.steps)
            if first < last:
                own = None if rows is None else rows(phase.batch)
                yield from self._iterate_phase(index, first, last, own, threads)
            begin += phase.steps

    def padding_share(self, phase: int, step: int = 0) -> float:
        """The share of padding in a phase's batches, from the examples that follow `step` of it."""
        first = step * self._config.phases[phase].batch
        return self._streams[phase].padding_share(np.arange(first, first + _PADDING_SAMPLE))

    def _numbers(self, phase: int, first: int, last: int, rows: slice | np.ndarray | None) -> np.ndarray:
        """int64 [(last - first) * rows]: the rows of steps [first, last) as the phase's stream counts them."""
        size = self._config.phases[phase].batch
        own = np.arange(size)[rows if rows is not None else slice(None)]
        return (np.arange(first, last)[:, None] * size + own).reshape(-1)

    def _iterate_phase(
        self, phase: int, first: int, last: int, rows: np.ndarray | None, threads: int
    ) -> Iterator[Batch]:
        # It tells the shapes; and where a phase has no more, nothing needs TensorFlow.
        example = self.batch(phase, first, rows)
        yield example
        if last - first == 1:
            return
        size = len(example["input_ids"])
        steps = max(1, _TOKENS_PER_CALL // example["input_ids"].size)

        def compute(step: np.ndarray) -> list[np.ndarray]:
            numbers = self._numbers(phase, int(step), min(int(step) + steps, last), rows)
            return list(self._streams[phase].batch(numbers).values())

        tf = host_tensorflow.load()
        types = [array.dtype for array in example.values()]
        dataset = tf.data.Dataset.range(first + 1, last, steps).map(
            lambda step: tf.numpy_function(compute, [step], types),
            num_parallel_calls=threads,
            deterministic=True,
        )
        options = tf.data.Options()
        options.threading.private_threadpool_size = threads
        options.autotune.enabled = False
        for arrays in dataset.prefetch(2).with_options(options).as_numpy_iterator():
            for begin in range(0, len(arrays[0]), size):
                yield {name: array[begin : begin + size] for name, array in zip(example, arrays, strict=True)}
