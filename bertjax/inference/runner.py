"""Runs a model over rows of ids: in batches by length, in f32 or bf16, with weights as floats or 8-bit integers."""

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bertjax.checkpoints.pretrained import Pretrained
from bertjax.config.layout import MeshConfig
from bertjax.config.model import POOLINGS
from bertjax.errors import UserError
from bertjax.model import quantization
from bertjax.model.computation import Computation
from bertjax.parallel import sharding
from bertjax.parallel.mesh import compiler_options, make_mesh, put_batch
from bertjax.tasks.encoding import EncodedExample, padded_inputs
from bertjax.tasks.metadata import TokenLimits

DTYPES = ("float32", "bfloat16")
WEIGHTS = ("float", "int8")

# Rows are padded to one of these; what is longer than all of them, to what the model reads at most.
_LENGTHS = (8, 16, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 512, 768)
_LENGTHS += (1024, 1536, 2048, 3072, 4096, 6144, 8192)
_POSITIONS = 4  # the token positions of a row are filled up to a multiple, so that few programs are compiled
_IN_FLIGHT = 4  # batches that are computed before the results of the oldest are taken


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
    prompt: str | None = None  # embed, search: name of the prompt prepended to texts; "": none; None: the model's own

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


def model_limits(model: Pretrained) -> TokenLimits:
    """How much of a text a model reads: as it was fine-tuned, else all that it can."""
    longest = model.config.model.max_position_embeddings
    if model.sentence and model.sentence.length:
        longest = min(longest, model.sentence.length)
    if model.task and model.task.limits:
        return dataclasses.replace(model.task.limits, length=min(model.task.limits.length, longest))
    part = longest // 4
    return TokenLimits(
        longest, stride=min(TokenLimits.stride, part), question_length=min(TokenLimits.question_length, part)
    )


def computation(source: Pretrained, options: Options) -> Computation:
    """How a model is computed whose parameters are bound."""
    unroll = source.config.model.num_hidden_layers if _unrolled(options) else 1
    return Computation(jnp.dtype(options.dtype), unroll)


def _unrolled(options: Options) -> bool:
    """Layers one by one are faster (see `_unstacked`); in a loop only one layer at a time is widened."""
    return options.weights == "float"


@dataclasses.dataclass(frozen=True)
class BatchShapes:
    """How a `Runner` cuts rows into batches."""

    tokens: int  # that are computed at once, about
    longest: int  # tokens per row, at most
    pad_id: int
    group: int = 1  # neighbouring rows that stay together, as the texts of an example whose vectors are compared
    with_positions: bool = False  # batches have the rows' `token_positions` too, filled up with 0: [rows, positions]


class Runner:
    """A compiled function of parameters and batches, run over any rows; the devices of a mesh share each batch.

    Parameters are given with each call, so that those of another run need no other program.
    """

    def __init__(self, compute: Callable[[Any, Mapping[str, jax.Array]], Any], mesh: Mesh, shapes: BatchShapes) -> None:
        """compute: (parameters, batch of `padded_inputs`) → a tree of arrays [rows, …]."""

        def compute_batch(params: Any, batch: Mapping[str, jax.Array]) -> Any:
            with sharding.use_mesh(mesh):
                return compute(params, batch)

        everywhere = NamedSharding(mesh, PartitionSpec())
        self._compute = jax.jit(compute_batch, out_shardings=everywhere, compiler_options=compiler_options(mesh))
        self._mesh, self._shapes = mesh, shapes

    def __call__(self, params: Any, rows: Sequence[EncodedExample]) -> list[Any]:
        """What the function gives for each row, in order: trees of NumPy arrays, without the axis of rows."""
        found = dict(self.stream(params, rows))
        return [found[number] for number in range(len(rows))]

    def stream(self, params: Any, rows: Sequence[EncodedExample]) -> Iterator[tuple[int, Any]]:
        """(number of a row, what the function gives for it), every row once, those of about one length together.

        The arrays are views of the batch's; whoever keeps a part copies it.
        """
        pending: collections.deque = collections.deque()
        for numbers, shape in batches([len(row.input_ids) for row in rows], self._shapes, self._mesh):
            batch = self._batch([rows[number] for number in numbers], shape)
            pending.append((numbers, self._compute(params, put_batch(batch, self._mesh))))
            if len(pending) > _IN_FLIGHT:
                yield from _rows_of(*pending.popleft())
        while pending:
            yield from _rows_of(*pending.popleft())

    def _batch(self, rows: Sequence[EncodedExample], shape: tuple[int, int]) -> dict[str, np.ndarray]:
        inputs = padded_inputs(rows, shape, self._shapes.pad_id)
        if not self._shapes.with_positions:  # a shape that depends on them would be one more program
            return inputs
        most = max(len(row.token_positions) for row in rows)
        positions = np.zeros((shape[0], -(-most // _POSITIONS) * _POSITIONS), np.int32)
        for number, row in enumerate(rows):
            positions[number, : len(row.token_positions)] = row.token_positions
        return inputs | {"token_positions": positions}


def _rows_of(numbers: np.ndarray, computed: Any) -> Iterator[tuple[int, Any]]:
    arrays = jax.device_get(computed)
    for place, number in enumerate(numbers.tolist()):
        yield number, jax.tree.map(lambda array, place=place: array[place], arrays)


def batches(lengths: Sequence[int], shapes: BatchShapes, mesh: Mesh) -> Iterator[tuple[np.ndarray, tuple[int, int]]]:
    """(numbers of rows, the shape [rows, length] to pad them to), every row once, the longest first.

    A shape holds about `shapes.tokens`, so that all batches take about as long and as much memory, and few shapes serve
    any input. Fewer rows than a shape holds, as of a single text, are padded to a power of two. Groups stay together,
    and each device that shares a batch has as many.
    """
    group, devices = shapes.group, sharding.batch_shards(mesh)
    longest = np.asarray(lengths, int).reshape(-1, group).max(axis=1, initial=0)
    order = np.argsort(-longest, kind="stable")
    while len(order):
        needed = longest[order[0]]
        length = min(next((length for length in _LENGTHS if length >= needed), shapes.longest), shapes.longest)
        length = -(-length // mesh.shape["sequence"]) * mesh.shape["sequence"]
        most = max(1, shapes.tokens // (length * group * devices))  # groups per device
        rows = min(most, 1 << (-(-len(order) // devices) - 1).bit_length()) * devices * group
        numbers = order[: most * devices, None] * group + np.arange(group)
        yield numbers.reshape(-1), (rows, length)
        order = order[most * devices :]


def bind(
    compute: Callable[[Any, Mapping[str, jax.Array]], Any],
    source: Pretrained,
    options: Options,
    with_positions: bool = False,
) -> Callable[[Sequence[EncodedExample]], list[Any]]:
    """A `Runner` of `compute`, whose model is made with `computation`, with the parameters of a loaded model.

    All devices share each batch, and each has all parameters.
    """
    mesh, params = make_mesh(MeshConfig()), _stored(source.params, options)
    longest = source.config.model.max_position_embeddings
    shapes = BatchShapes(options.tokens, longest, source.tokenizer.pad_id, with_positions=with_positions)
    if _unrolled(options):
        params, of_stacks = _unstacked(params), compute

        def compute(params: Any, batch: Mapping[str, jax.Array]) -> Any:
            return of_stacks(_stacked(params), batch)

    params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    return functools.partial(Runner(compute, mesh, shapes), params)


def _stored(params: Any, options: Options) -> Any:
    """The parameters as they lie in memory."""
    if options.weights == "int8":
        return quantization.quantized(params)
    if options.dtype == "float32":
        return params

    def cast(matrix: np.ndarray) -> np.ndarray:
        return np.asarray(matrix).astype(jnp.dtype(options.dtype))

    return quantization.map_matrices(params, cast, cast)


def _unstacked(params: Any) -> Any:
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
