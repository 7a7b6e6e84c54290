"""Runs a model over rows of ids: in batches by length, in f32 or bf16, with weights as floats or 8-bit integers."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bertjax.checkpoints.pretrained import Pretrained
from bertjax.config.model import POOLINGS
from bertjax.errors import UserError
from bertjax.model import quantization
from bertjax.tasks.encoding import EncodedExample, padded_inputs

DTYPES = ("float32", "bfloat16")
WEIGHTS = ("float", "int8")

# Rows are padded to one of these; what is longer than all of them, to what the model reads at most.
_LENGTHS = (8, 16, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 512, 768)
_LENGTHS += (1024, 1536, 2048, 3072, 4096, 6144, 8192)
_POSITIONS = 4  # the token positions of a row are filled up to a multiple, so that few programs are compiled


@dataclasses.dataclass(frozen=True)
class Options:
    """How predictions are computed, and how much is told of them. Raises UserError for a value that is not known."""

    dtype: str = "float32"  # of the computation; bfloat16
    weights: str = "float"  # float: kept in dtype; int8: kept as 8-bit integers (bertjax/model/quantization.py)
    tokens: int = 1024  # that are computed at once; a GPU or TPU is busy with 16 times as many
    top: int = 5  # fill-mask: tokens a mask; answer: answers in `best`
    pooling: str = ""  # embed: of all tokens' last states, [CLS] and [SEP] too: mean, cls, max; "": the model's own
    normalize: bool | None = None  # embed: to length 1; None: as the model was trained
    texts: Sequence[str] = ()  # search: in which the nearest are found

    def __post_init__(self) -> None:
        """Checks the values."""
        for name, known in (("dtype", DTYPES), ("weights", WEIGHTS), ("pooling", ("", *POOLINGS))):
            if getattr(self, name) not in known:
                raise UserError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(known)}")
        for name in ("tokens", "top"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise UserError(f"{name} is {value!r}; it must be an integer, 1 or larger")
        if isinstance(self.texts, str):
            raise UserError("texts is a single text; give a list of texts to search in")


def computation(source: Pretrained, options: Options) -> dict[str, Any]:
    """How a model computes that a `Runner` runs: settings of `FinetuningModel` and `PretrainingModel`."""
    unroll = source.config.model.num_hidden_layers if _unrolled(options) else 1
    return {"dtype": jnp.dtype(options.dtype), "unroll": unroll}


def _unrolled(options: Options) -> bool:
    """Layers one by one are faster (see `_apart`); in a loop only one layer at a time is widened."""
    return options.weights == "float"


class Runner:
    """A compiled function of a model's parameters and a batch, over any rows."""

    def __init__(
        self,
        compute: Callable[[Any, Mapping[str, jax.Array]], Any],
        source: Pretrained,
        options: Options,
        with_positions: bool = False,
    ) -> None:
        """Puts the parameters on the device.

        compute: (parameters, `input_ids`, `token_type_ids` and `attention_mask` [rows, length]) → a tree of arrays
          [rows, …]. Its model is made with `computation`. With `with_positions` it also gets their `token_positions`,
          filled up with 0: [rows, positions].
        """
        stored = _stored(source.params, options)
        if _unrolled(options):
            self._params = jax.device_put(_apart(stored))
            self._compute = jax.jit(lambda params, batch: compute(_stacked(params), batch))
        else:
            self._params, self._compute = jax.device_put(stored), jax.jit(compute)
        self._pad, self._tokens = source.tokenizer.pad_id, options.tokens
        self._longest, self._with_positions = source.config.model.max_position_embeddings, with_positions

    def __call__(self, rows: Sequence[EncodedExample]) -> list[Any]:
        """What the function gives for each row, in order: trees of NumPy arrays, without the axis of rows."""
        pending = []
        for numbers, shape in batches([len(row.input_ids) for row in rows], self._tokens, self._longest):
            batch = self._batch([rows[number] for number in numbers], shape)
            pending.append((numbers, self._compute(self._params, batch)))
        results: list[Any] = [None] * len(rows)
        for numbers, computed in pending:
            arrays = jax.device_get(computed)
            for place, number in enumerate(numbers):
                results[number] = jax.tree.map(lambda array, place=place: array[place], arrays)
        return results

    def _batch(self, rows: Sequence[EncodedExample], shape: tuple[int, int]) -> dict[str, np.ndarray]:
        inputs = padded_inputs(rows, shape, self._pad)
        if not self._with_positions:  # a shape that depends on them would be one more program
            return inputs
        most = max(len(row.token_positions) for row in rows)
        positions = np.zeros((shape[0], -(-most // _POSITIONS) * _POSITIONS), np.int32)
        for number, row in enumerate(rows):
            positions[number, : len(row.token_positions)] = row.token_positions
        return inputs | {"token_positions": positions}


def batches(lengths: Sequence[int], tokens: int, longest: int) -> Iterator[tuple[np.ndarray, tuple[int, int]]]:
    """(numbers of rows, the shape [rows, length] to pad them to), every row once, the longest first.

    A shape holds about `tokens`, so that all batches take about as long and as much memory, and few shapes serve any
    input. Fewer rows than a shape holds, as of a single text, are padded to a power of two. `longest`: what the model
    reads at most.
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    while len(order):
        needed = lengths[order[0]]
        length = min(next((length for length in _LENGTHS if length >= needed), longest), longest)
        most = max(1, tokens // length)
        yield order[:most], (min(most, 1 << (len(order) - 1).bit_length()), length)
        order = order[most:]


def _stored(params: Any, options: Options) -> Any:
    """The parameters as they lie in memory."""
    if options.weights == "int8":
        return quantization.quantized(params)
    if options.dtype == "float32":
        return params

    def cast(matrix: np.ndarray) -> np.ndarray:
        return np.asarray(matrix).astype(jnp.dtype(options.dtype))

    return quantization.map_matrices(params, cast, cast)


def _apart(params: Any) -> Any:
    """The parameters with a list of layers in place of each stack.

    A compiled program copies what it takes out of a stack, but reads what is an array of its own where it lies.
    """

    def layers(stack: Any) -> list[Any]:
        count = len(jax.tree.leaves(stack)[0])
        return [jax.tree.map(lambda leaf, i=i: np.ascontiguousarray(leaf[i]), stack) for i in range(count)]

    return _of_stacks(params, layers)


def _of_stacks(params: Any, change: Callable[[Any], Any]) -> Any:
    """The parameters with each segment of the encoder changed; what else it has is no stack."""
    encoder = params["encoder"].items()
    return params | {"encoder": {name: change(x) if name.startswith("segment_") else x for name, x in encoder}}


def _stacked(params: Any) -> Any:
    """The inverse, within a compiled program; what is unrolled takes the layers out again, and nothing is copied."""

    def stack(layers: list[Any]) -> Any:
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)

    return _of_stacks(params, stack)
