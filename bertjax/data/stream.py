"""An endless stream of rows: epoch after epoch of a corpus, every row a pure function of its number."""

import dataclasses
import functools

import numpy as np

from bertjax.config.data import MaskingConfig, Sequencing
from bertjax.corpus.format import Corpus
from bertjax.data import rng
from bertjax.data.batch import BatchShape, HostBatch
from bertjax.data.epochs import EpochIndex
from bertjax.data.masking import Predictions, mask_tokens
from bertjax.data.packing import Part, join_parts, packed_widths
from bertjax.data.sequences import Sequences, read_sequences
from bertjax.data.spans import EXAMPLE, example_sizes
from bertjax.data.token_info import Vocabulary
from bertjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class RowFormat:
    """How documents become masked rows."""

    length: int  # tokens per row
    masking: MaskingConfig
    sequencing: Sequencing


def check_documents(corpus: Corpus, pairs: str) -> None:
    """Raises UserError for next-sentence pairs from fewer than two documents."""
    if pairs == "next_sentence" and corpus.documents < 2:
        raise UserError(
            f"{corpus.directory}: next-sentence pairs need at least two {corpus.split} documents, but there is only "
            "one; add documents, or set config.next_sentence to False"
        )


class Stream:
    """An endless stream of rows: each epoch of a corpus is shuffled, masked and paired differently.

    Row n is the same whenever and wherever it is computed.
    """

    def __init__(self, corpus: Corpus, vocabulary: Vocabulary, row_format: RowFormat, seed: int, name: str):
        """Initializes the stream; reads no tokens yet.

        Args:
          corpus: the split to read.
          vocabulary: the vocabulary of the corpus's tokenizer.
          row_format: how documents become rows.
          seed: the seed of all random draws.
          name: name of the random stream; streams with other names draw other numbers from the same seed.

        Raises:
          UserError: next-sentence pairs from fewer than two documents.
        """
        check_documents(corpus, row_format.sequencing.pairs)
        self.corpus = corpus
        self._vocabulary = vocabulary
        self._format = row_format
        self._shuffle_key = functools.partial(rng.key, seed, name, "shuffle")
        self._pair_key = rng.key(seed, name, "pairs")
        self._mask_key = rng.key(seed, name, "masks")
        self.epochs = EpochIndex(corpus, row_format.length, seed, row_format.sequencing)

    def examples(self, rows: np.ndarray) -> np.ndarray:
        """Returns the examples of rows (int64, counted from 0 through all epochs): EXAMPLE [rows].

        With packing, EXAMPLE [rows, sequencing.packing].
        """
        packing = self._format.sequencing.packing
        result = np.empty((len(rows), packing) if packing else len(rows), EXAMPLE)
        lowest, highest = rows.min(), rows.max()
        epoch, begin, end = 0, 0, 0
        while end <= highest:
            begin, end = end, end + self.epochs.count(epoch)
            if lowest < end:
                in_epoch = np.flatnonzero((rows >= begin) & (rows < end))
                shuffled = rng.permute(self._shuffle_key(epoch), rows[in_epoch] - begin, end - begin)
                result[in_epoch] = self.epochs.examples(epoch)[shuffled]
            epoch += 1
        return result

    def batch(self, rows: np.ndarray) -> HostBatch:
        """Returns the batch of these rows (int64 [batch], counted from 0 through all epochs)."""
        if self._format.sequencing.packing:
            return self._packed_batch(rows)
        keys = rng.bits(self._pair_key, rows), rng.bits(self._mask_key, rows)
        sequences, input_ids, predictions = self._masked(self.examples(rows), *keys, self._format.length)
        batch = {
            "input_ids": input_ids,
            "token_type_ids": sequences.token_types(),
            "attention_mask": sequences.attention_mask(),
            "masked_lm_positions": predictions.positions,
            "masked_lm_ids": predictions.ids,
            "masked_lm_weights": predictions.weights,
        }
        if sequences.pairs:
            batch[f"{self._format.sequencing.pairs}_labels"] = sequences.negative.astype(np.int32)
        return batch

    def _masked(
        self, examples: np.ndarray, pair_keys: np.ndarray, mask_keys: np.ndarray, length: int
    ) -> tuple[Sequences, np.ndarray, Predictions]:
        sequences = read_sequences(self.corpus, examples, pair_keys, length, self._vocabulary, self._format.sequencing)
        return sequences, *mask_tokens(sequences, mask_keys, self._vocabulary, self._format.masking)

    def _packed_batch(self, rows: np.ndarray) -> HostBatch:
        sequencing, length = self._format.sequencing, self._format.length
        examples = self.examples(rows)
        row, slot = np.nonzero(examples["length_a"])
        examples = examples[row, slot]
        pair_keys, mask_keys = (rng.bits(rng.bits(key, rows[row]), slot) for key in (self._pair_key, self._mask_key))
        widths, parts = packed_widths(examples, length, sequencing), []
        for width in np.unique(widths):
            index = np.flatnonzero(widths == width)
            masked = self._masked(examples[index], pair_keys[index], mask_keys[index], int(width))
            parts.append(Part(index, *masked))
        slots = self._format.masking.predictions(length, sequencing.packing)
        shape = BatchShape(len(rows), length, slots, sequencing.packing, sequencing.pairs)
        return join_parts(parts, row, shape, self._vocabulary.pad_id)

    def padding_share(self, rows: np.ndarray) -> float:
        """Returns the fraction of padding in these rows (int64, counted from 0 through all epochs)."""
        sizes = example_sizes(self.examples(rows), self._format.sequencing)
        return 1.0 - float(sizes.sum()) / (len(rows) * self._format.length)
