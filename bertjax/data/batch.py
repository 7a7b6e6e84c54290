"""The arrays of a batch: their names, shapes and dtypes, from which everything that makes or places batches is built.

A batch of pre-training is a dict of arrays, of one shape throughout a phase. Where several sequences share a row
(config.packing), `attention_mask` numbers them from 1, and there are position ids, which restart with each.
"""

from dataclasses import dataclass

import numpy as np

Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class BatchArray:
    """One array of a batch; `axes` are "batch", "length", "predictions", "packing"."""

    name: str
    axes: tuple[str, ...]
    dtype: type = np.int32

    def empty(self, shape: tuple[int, ...], pad_id: int) -> np.ndarray:
        """The array of this shape, nothing but padding."""
        return np.full(shape, pad_id if self.name == "input_ids" else 0, self.dtype)


# What every model reads: the mask is 1 on tokens, 0 on padding.
MODEL_INPUTS = (
    BatchArray("input_ids", ("batch", "length")),
    BatchArray("token_type_ids", ("batch", "length")),
    BatchArray("attention_mask", ("batch", "length")),
)
POSITION_IDS = BatchArray("position_ids", ("batch", "length"))
# Where tokens are masked, what they are, and 0 on unused slots.
MASKED_LM = (
    BatchArray("masked_lm_positions", ("batch", "predictions")),
    BatchArray("masked_lm_ids", ("batch", "predictions")),
    BatchArray("masked_lm_weights", ("batch", "predictions"), np.float32),
)
# The arrays that are laid out along sequences; all others are split by rows alone.
SEQUENCE_ARRAYS = frozenset(array.name for array in (*MODEL_INPUTS, POSITION_IDS))


@dataclass(frozen=True)
class BatchShape:
    """The shape of a batch of pre-training."""

    batch: int
    length: int
    predictions: int
    packing: int = 0  # most sequences per row; 0: one, as long as it is
    pairs: str = ""  # the task of pairs: next_sentence, sentence_order

    def arrays(self) -> tuple[BatchArray, ...]:
        """The arrays of such a batch.

        `next_sentence_labels` are 0 where B follows A, 1 where it is random; `sentence_order_labels` 0 where B follows
        A, 1 where A follows B. Packed rows have several labels, with `cls_positions`, where the pairs begin, and
        `sequence_weights`, 0 where there is none.
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
        """The shape of one of its arrays."""
        return tuple(getattr(self, axis) for axis in array.axes)

    def empty(self, pad_id: int) -> Batch:
        """A batch of nothing but padding."""
        return {array.name: array.empty(self.shape(array), pad_id) for array in self.arrays()}
