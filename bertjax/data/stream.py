"""Rows without end: epoch after epoch of a corpus, every row a pure function of its number."""

import dataclasses
import functools

import numpy as np

from bertjax.config.data import MaskingConfig, Sequencing
from bertjax.corpus.format import Corpus
from bertjax.data import rng
from bertjax.data.batch import Batch, BatchShape
from bertjax.data.epochs import Plans
from bertjax.data.masking import Predictions, mask
from bertjax.data.packing import Part, joined, widths
from bertjax.data.sequences import Sequences, sequences
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
    """Refuses pairs of next sentences from fewer than two documents, with a UserError."""
    if pairs == "next_sentence" and corpus.documents < 2:
        raise UserError(
            f"{corpus.directory}: next-sentence pairs need two {corpus.split} documents or more, and there is "
            "one; add documents, or set next_sentence to False"
        )


class Stream:
    """An endless sequence of rows: epoch after epoch of a corpus, each shuffled, masked and paired in its own way.

    Row n is the same whenever and wherever it is computed.
    """

    def __init__(self, corpus: Corpus, vocabulary: Vocabulary, row_format: RowFormat, seed: int, name: str):
        """Describes a stream.

        Args:
          corpus: the split to read.
          vocabulary: of the tokenizer that made the corpus.
          row_format: how its documents become rows.
          seed: of all draws.
          name: streams of other names draw other numbers from the same seed.

        Raises:
          UserError: pairs from fewer than two documents.
        """
        check_documents(corpus, row_format.sequencing.pairs)
        self.corpus = corpus
        self._vocabulary = vocabulary
        self._format = row_format
        self._shuffle = functools.partial(rng.key, seed, name, "shuffle")
        self._pair_key = rng.key(seed, name, "pairs")
        self._mask_key = rng.key(seed, name, "masks")
        self.plans = Plans(corpus, row_format.length, seed, row_format.sequencing)

    def examples(self, rows: np.ndarray) -> np.ndarray:
        """EXAMPLE [rows]: the examples behind rows (int64, counted from 0 through all epochs).

        Packed EXAMPLE [rows, sequencing.packing].
        """
        packing = self._format.sequencing.packing
        result = np.empty((len(rows), packing) if packing else len(rows), EXAMPLE)
        lowest, highest = rows.min(), rows.max()
        epoch, begin, end = 0, 0, 0
        while end <= highest:
            begin, end = end, end + self.plans.count(epoch)
            if lowest < end:
                here = np.flatnonzero((rows >= begin) & (rows < end))
                places = rng.permute(self._shuffle(epoch), rows[here] - begin, end - begin)
                result[here] = self.plans.plan(epoch)[places]
            epoch += 1
        return result

    def batch(self, rows: np.ndarray) -> Batch:
        """The batch of these rows (int64 [batch], counted from 0 through all epochs)."""
        if self._format.sequencing.packing:
            return self._packed(rows)
        keys = rng.bits(self._pair_key, rows), rng.bits(self._mask_key, rows)
        found, input_ids, predictions = self._masked(self.examples(rows), *keys, self._format.length)
        batch = {
            "input_ids": input_ids,
            "token_type_ids": found.token_types(),
            "attention_mask": found.attention_mask(),
            "masked_lm_positions": predictions.positions,
            "masked_lm_ids": predictions.ids,
            "masked_lm_weights": predictions.weights,
        }
        if found.pairs:
            batch[f"{self._format.sequencing.pairs}_labels"] = found.negative.astype(np.int32)
        return batch

    def _masked(
        self, examples: np.ndarray, pair_keys: np.ndarray, mask_keys: np.ndarray, length: int
    ) -> tuple[Sequences, np.ndarray, Predictions]:
        found = sequences(self.corpus, examples, pair_keys, length, self._vocabulary, self._format.sequencing)
        return found, *mask(found, mask_keys, self._vocabulary, self._format.masking)

    def _packed(self, rows: np.ndarray) -> Batch:
        sequencing, length = self._format.sequencing, self._format.length
        examples = self.examples(rows)
        row, slot = np.nonzero(examples["first"])
        examples = examples[row, slot]
        pair_keys, mask_keys = (rng.bits(rng.bits(key, rows[row]), slot) for key in (self._pair_key, self._mask_key))
        width, parts = widths(examples, length, sequencing), []
        for one in np.unique(width):
            here = np.flatnonzero(width == one)
            parts.append(Part(here, *self._masked(examples[here], pair_keys[here], mask_keys[here], int(one))))
        slots = self._format.masking.predictions(length, sequencing.packing)
        shape = BatchShape(len(rows), length, slots, sequencing.packing, sequencing.pairs)
        return joined(parts, row, shape, self._vocabulary.pad_id)

    def padding_share(self, rows: np.ndarray) -> float:
        """The share of padding in these rows (int64, counted from 0 through all epochs)."""
        sizes = example_sizes(self.examples(rows), self._format.sequencing)
        return 1.0 - float(sizes.sum()) / (len(rows) * self._format.length)
