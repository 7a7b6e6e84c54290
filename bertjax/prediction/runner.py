"""Runs a model over rows of ids: in batches by length, in f32 or bf16, with weights as floats or 8-bit integers."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bertjax import quantization
from bertjax.errors import UserError
from bertjax.finetuning.batches import Batches
from bertjax.finetuning.inputs import Row
from bertjax.pretrained import Pretrained

DTYPES = ("float32", "bfloat16")
WEIGHTS = ("float", "int8")
POOLINGS = ("mean", "cls", "max")

_INPUTS = ("input_ids", "token_type_ids", "attention_mask")
_PLACES = 4  # the places of a row are filled up to a multiple, so that few programs are compiled


@dataclasses.dataclass(frozen=True)
class Options:
    """How predictions are computed, and how much is told of them. Raises UserError for a value that is not known."""

    dtype: str = "float32"  # of the computation; bfloat16
    weights: str = "float"  # float: kept in dtype; int8: kept as 8-bit integers (bertjax/quantization.py)
    batch: int = 32  # rows that are computed at once, at most
    top: int = 5  # fill-mask: tokens a mask; answer: answers in `best`
    pooling: str = "mean"  # embed: of the tokens' last states, [CLS] and [SEP] included; cls, max
    normalize: bool = False  # embed: to length 1

    def __post_init__(self) -> None:
        """Checks the values."""
        for name, known in (("dtype", DTYPES), ("weights", WEIGHTS), ("pooling", POOLINGS)):
            if getattr(self, name) not in known:
                raise UserError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(known)}")
        for name in ("batch", "top"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; it must be 1 or larger")


def computation(source: Pretrained, options: Options) -> dict[str, Any]:
    """How a model computes that a `Runner` runs: settings of `FinetuningModel` and `PretrainingModel`."""
    return {"dtype": jnp.dtype(options.dtype), "unroll": source.config.model.num_hidden_layers}


class Runner:
    """A compiled function of a model's parameters and a batch, over any rows."""

    def __init__(
        self, compute: Callable[[Any, Mapping[str, jax.Array]], Any], source: Pretrained, options: Options
    ) -> None:
        """Puts the parameters on the device.

        compute: (parameters, `input_ids`, `token_type_ids`, `attention_mask` [rows, length] and `places` [rows,
          places], those of the rows filled up with 0) → a tree of arrays [rows, …]. Its model
          is made with `computation`.
        """
        self._params = jax.device_put(_apart(_stored(source.params, options)))
        self._compute = jax.jit(lambda params, batch: compute(_stacked(params), batch))
        self._tokenizer, self._batch = source.tokenizer, options.batch

    def __call__(self, rows: Sequence[Row]) -> list[Any]:
        """What the function gives for each row, in order: trees of NumPy arrays, without the axis of rows."""
        if not rows:
            return []
        # A single text need not be computed as a whole batch; with powers of two few programs are compiled.
        batch = min(self._batch, 1 << (len(rows) - 1).bit_length())
        batches = Batches("classification", rows, self._tokenizer, batch, choices=1, labels=0)
        pending = []
        for numbers, arrays in batches.sorted():
            chosen = {name: arrays[name] for name in _INPUTS}
            chosen["places"] = _places([rows[number] for number in numbers], batch)
            pending.append((numbers, self._compute(self._params, chosen)))
        results: list[Any] = [None] * len(rows)
        for numbers, computed in pending:
            arrays = jax.device_get(computed)
            for place, number in enumerate(numbers):
                results[number] = jax.tree.map(lambda array, place=place: array[place], arrays)
        return results


def _places(rows: Sequence[Row], batch: int) -> np.ndarray:
    most = max(len(row.places) for row in rows)
    places = np.zeros((batch, -(-most // _PLACES) * _PLACES), np.int32)
    for number, row in enumerate(rows):
        places[number, : len(row.places)] = row.places
    return places


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

    return params | {"encoder": {name: layers(stack) for name, stack in params["encoder"].items()}}


def _stacked(params: Any) -> Any:
    """The inverse, within a compiled program; what is unrolled takes the layers out again, and nothing is copied."""

    def stack(layers: list[Any]) -> Any:
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)

    return params | {"encoder": {name: stack(layers) for name, layers in params["encoder"].items()}}
