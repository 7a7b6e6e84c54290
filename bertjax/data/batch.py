"""The arrays of a batch: names, shapes and dtypes, shared by all code that builds or shards batches.

A pre-training batch is a dict of arrays whose shapes are the same throughout a phase. In rows of several sequences
(config.packing), `attention_mask` numbers the sequences from 1, and `position_ids` restart with each.
"""

from dataclasses import dataclass

import numpy as np

HostBatch = dict[str, np.ndarray]


@dataclass(frozen=True)
class BatchArray:
    """One array of a batch; `axes` are "batch", "length", "predictions" or "packing"."""

    name: str
    axes: tuple[str, ...]
    dtype: type = np.int32

    def empty(self, shape: tuple[int, ...], pad_id: int) -> np.ndarray:
        """Returns an array of this shape that holds only padding."""
        return np.full(shape, pad_id if self.name == "input_ids" else 0, self.dtype)


# The inputs of every model. attention_mask is 1 on tokens, 0 on padding.
MODEL_INPUTS = (
    BatchArray("input_ids", ("batch", "length")),
    BatchArray("token_type_ids", ("batch", "length")),
    BatchArray("attention_mask", ("batch", "length")),
)
POSITION_IDS = BatchArray("position_ids", ("batch", "length"))
# The masked positions, their original ids and their weights; 0 in unused slots.
MASKED_LM = (
    BatchArray("masked_lm_positions", ("batch", "predictions")),
    BatchArray("masked_lm_ids", ("batch", "predictions")),
    BatchArray("masked_lm_weights", ("batch", "predictions"), np.float32),
)
# Arrays with one element per token, which sequence parallelism splits; all others are split by rows only.
SEQUENCE_ARRAYS = frozenset(array.name for array in (*MODEL_INPUTS, POSITION_IDS))


@dataclass(frozen=True)
class BatchShape:
    """The shape of a pre-training batch."""

    batch: int
    length: int
    predictions: int
    packing: int = 0  # maximum sequences per row; 0: one, padded
    pairs: str = ""  # the pair task: next_sentence, sentence_order

    def arrays(self) -> tuple[BatchArray, ...]:
        """Returns the arrays of such a batch.

        `next_sentence_labels` are 0 if B follows A, 1 if B is random; `sentence_order_labels` are 0 if B follows A, 1
        if A follows B. Packed rows have one label per sequence, `cls_positions`, where each sequence begins, and
        `sequence_weights`, 0 for unused slots.
        """
        arrays = MODEL_INPUTS + MASKED_LM + ((POSITION_IDS,) if self.packing else ())
        if not self.pairs:
            return arrays
        axes = ("batch", "packing") if self.packing else ("batch",)
        labels = BatchArray(f"{self.pairs}_labels", axes)
        if not self.packing:
            return (*arrays, labels)
        return (*arrays, BatchArray("cls_positions", axes), labels, BatchArray("sequence_weights", axes, np.float32))

    def shape(self, array: BatchArray) -> tuple[int, ...]:
        """Returns the shape of `array` in such a batch."""
        return tuple(getattr(self, axis) for axis in array.axes)

    def empty(self, pad_id: int) -> HostBatch:
        """Returns a batch that holds only padding."""
        return {array.name: array.empty(self.shape(array), pad_id) for array in self.arrays()}
