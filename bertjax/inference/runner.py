"""Batched inference: rows are batched by length and computed in f32 or bf16, with float or 8-bit weights."""

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from bertjax.arrays.types import Batch, Params
from bertjax.checkpoints.pretrained import Pretrained
from bertjax.config.layout import MeshConfig
from bertjax.config.model import POOLINGS
from bertjax.data.batch import HostBatch
from bertjax.errors import UserError
from bertjax.model import quantization
from bertjax.model.computation import Computation
from bertjax.parallel import sharding
from bertjax.parallel.mesh import compiler_options, make_mesh, put_batch
from bertjax.tasks.encoding import EncodedExample, padded_inputs
from bertjax.tasks.metadata import TokenLimits

DTYPES = ("float32", "bfloat16")
WEIGHT_DTYPES = ("", "int8")

# (parameters, batch of `padded_inputs`) → a tree of arrays [rows, …]
Compute: TypeAlias = Callable[[Params, Batch], PyTree]

# Rows are padded to one of these lengths, and longer ones to the maximum of the model.
_LENGTHS = (8, 16, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 512, 768)
_LENGTHS += (1024, 1536, 2048, 3072, 4096, 6144, 8192)
_POSITIONS_MULTIPLE = 4  # token positions per row are padded to a multiple, which limits the compiled programs
_IN_FLIGHT = 4  # batches that are dispatched before the results of the oldest are fetched


@dataclasses.dataclass(frozen=True)
class PredictOptions:
    """How predictions are computed and reported.

    Raises:
      UserError: a value is invalid.
    """

    dtype: str = "float32"  # of the computation: float32, bfloat16
    weight_dtype: str = ""  # int8: 8-bit matrices (bertjax/model/quantization.py); "": as `dtype`
    tokens_per_batch: int = 1024  # a GPU or TPU needs about 16 times as many
    top: int = 5  # fill-mask: tokens per mask; answer: answers in `best`; search: texts per query
    pooling: str = ""  # embed: mean, cls or max of all tokens' states, [CLS] and [SEP] included; "": as trained
    normalize: bool | None = None  # embed: whether to scale vectors to length 1; None: as trained
    texts: Sequence[str] = ()  # search: the texts to search
    prompt: str | None = None  # embed, search: name of the prompt prepended to texts; "": none; None: as trained

    def __post_init__(self) -> None:
        """Checks the values."""
        for name, choices in (("dtype", DTYPES), ("weight_dtype", WEIGHT_DTYPES), ("pooling", ("", *POOLINGS))):
            if getattr(self, name) not in choices:
                raise UserError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(map(repr, choices))}")
        for name in ("tokens_per_batch", "top"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise UserError(f"{name} is {value!r}; it must be an integer of at least 1")
        if isinstance(self.texts, str):
            raise UserError("texts is a single text; give a list of texts to search")


def model_limits(model: Pretrained) -> TokenLimits:
    """Returns the token limits that a model was fine-tuned with, or else the largest that it supports."""
    longest = model.config.model.max_position_embeddings
    if model.sentence and model.sentence.length:
        longest = min(longest, model.sentence.length)
    if model.task and model.task.limits:
        return dataclasses.replace(model.task.limits, length=min(model.task.limits.length, longest))
    quarter = longest // 4
    return TokenLimits(
        longest, stride=min(TokenLimits.stride, quarter), question_length=min(TokenLimits.question_length, quarter)
    )


def apply_module(
    module: nn.Module, params: Params, *inputs: Batch | jax.Array | None, method: str | None = None
) -> PyTree:
    """Returns the outputs of a module, which `nn.Module.apply` declares as a union with mutated variables."""
    return module.apply({"params": params}, *inputs, method=method)


def computation(source: Pretrained, options: PredictOptions) -> Computation:
    """Returns the `Computation` of a model for `bind_params`."""
    unroll = source.config.model.num_hidden_layers if _unrolled(options) else 1
    return Computation(jnp.dtype(options.dtype), unroll)


def _unrolled(options: PredictOptions) -> bool:
    """Whether layers are unrolled, which is faster (see `_unstack`); a loop dequantizes only one layer at a time."""
    return not options.weight_dtype


@dataclasses.dataclass(frozen=True)
class BatchShapes:
    """The shapes of the batches of a `Runner`."""

    tokens: int  # approximate number per batch, over all devices
    longest: int  # maximum number of tokens per row
    pad_id: int
    group: int = 1  # consecutive rows that share a batch, for example texts whose vectors are compared
    with_positions: bool = False  # add the `token_positions` of the rows, padded with 0: [rows, positions]


class Runner:
    """Applies a compiled function to any number of rows; the devices of a mesh share each batch.

    Parameters are an argument of each call, so other parameters of the same shapes reuse the programs.
    """

    def __init__(self, compute: Compute, mesh: Mesh, shapes: BatchShapes) -> None:
        def compute_batch(params: Params, batch: Batch) -> PyTree:
            with sharding.use_mesh(mesh):
                return compute(params, batch)

        replicated = NamedSharding(mesh, PartitionSpec())
        self._compute = jax.jit(compute_batch, out_shardings=replicated, compiler_options=compiler_options(mesh))
        self._mesh, self._shapes = mesh, shapes

    def __call__(self, params: Params, rows: Sequence[EncodedExample]) -> list[PyTree]:
        """Returns the result of each row, in order: trees of NumPy arrays without the row axis."""
        results = dict(self.stream(params, rows))
        return [results[number] for number in range(len(rows))]

    def stream(self, params: Params, rows: Sequence[EncodedExample]) -> Iterator[tuple[int, PyTree]]:
        """Yields (number, result) of each row, the longest rows first.

        The arrays are views of a whole batch; copy the parts to keep.
        """
        pending: collections.deque[tuple[np.ndarray, PyTree]] = collections.deque()
        for numbers, shape in batches_by_length([len(row.input_ids) for row in rows], self._shapes, self._mesh):
            batch = self._batch([rows[number] for number in numbers], shape)
            pending.append((numbers, self._compute(params, put_batch(batch, self._mesh))))
            if len(pending) > _IN_FLIGHT:
                yield from _split_rows(*pending.popleft())
        while pending:
            yield from _split_rows(*pending.popleft())

    def _batch(self, rows: Sequence[EncodedExample], shape: tuple[int, int]) -> HostBatch:
        inputs = padded_inputs(rows, shape, self._shapes.pad_id)
        if not self._shapes.with_positions:  # their number would be another dimension of shapes to compile
            return inputs
        count = max(len(row.token_positions) for row in rows)
        positions = np.zeros((shape[0], -(-count // _POSITIONS_MULTIPLE) * _POSITIONS_MULTIPLE), np.int32)
        for number, row in enumerate(rows):
            positions[number, : len(row.token_positions)] = row.token_positions
        return inputs | {"token_positions": positions}


def _split_rows(numbers: np.ndarray, results: PyTree) -> Iterator[tuple[int, PyTree]]:
    arrays = jax.device_get(results)
    for row, number in enumerate(numbers.tolist()):
        yield number, jax.tree.map(lambda array, row=row: array[row], arrays)


def batches_by_length(
    lengths: Sequence[int], shapes: BatchShapes, mesh: Mesh
) -> Iterator[tuple[np.ndarray, tuple[int, int]]]:
    """Yields (numbers of the rows of a batch, padded shape [rows, length]), the longest rows first.

    Every batch has about `shapes.tokens` tokens, which bounds the memory and the number of shapes. The row
    count of a smaller batch is padded to a power of two. Groups stay together, and every device has the same number of
    them.
    """
    group, devices = shapes.group, sharding.batch_shards(mesh)
    longest = np.asarray(lengths, int).reshape(-1, group).max(axis=1, initial=0)
    order = np.argsort(-longest, kind="stable")
    while len(order):
        needed = longest[order[0]]
        length = min(next((length for length in _LENGTHS if length >= needed), shapes.longest), shapes.longest)
        length = -(-length // mesh.shape["sequence"]) * mesh.shape["sequence"]
        groups = max(1, shapes.tokens // (length * group * devices))  # per device
        rows = min(groups, 1 << (-(-len(order) // devices) - 1).bit_length()) * devices * group
        numbers = order[: groups * devices, None] * group + np.arange(group)
        yield numbers.reshape(-1), (rows, length)
        order = order[groups * devices :]


def bind_params(
    compute: Compute, source: Pretrained, options: PredictOptions, with_positions: bool = False
) -> Callable[[Sequence[EncodedExample]], list[PyTree]]:
    """Binds the parameters of a loaded model to a `Runner` of `compute`, whose model uses `computation`.

    The devices share each batch, and every device holds all parameters.
    """
    mesh, params = make_mesh(MeshConfig()), _convert_weights(source.params, options)
    longest = source.config.model.max_position_embeddings
    shapes = BatchShapes(options.tokens_per_batch, longest, source.tokenizer.pad_id, with_positions=with_positions)

    def compute_unstacked(params: Params, batch: Batch) -> PyTree:
        return compute(_stack(params), batch)

    if _unrolled(options):
        params = _unstack(params)
    params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    runner = Runner(compute_unstacked if _unrolled(options) else compute, mesh, shapes)
    return functools.partial(runner, params)


def _convert_weights(params: Params, options: PredictOptions) -> Params:
    """Converts the matrices to the dtype of `options`."""
    if options.weight_dtype == "int8":
        return quantization.quantize_params(params)
    if options.dtype == "float32":
        return params

    def cast(matrix: np.ndarray) -> np.ndarray:
        return np.asarray(matrix).astype(jnp.dtype(options.dtype))

    return quantization.map_matrices(params, cast, cast)


def _unstack(params: Params) -> Params:
    """Replaces each stack of layers with a list of layers.

    A compiled program copies slices of a stack, but reads separate arrays in place.
    """

    def split(stack: PyTree) -> list[PyTree]:
        count = len(jax.tree.leaves(stack)[0])
        return [jax.tree.map(lambda leaf, i=i: np.ascontiguousarray(leaf[i]), stack) for i in range(count)]

    return _map_stacks(params, split)


def _stack(params: Params) -> Params:
    """Inverts `_unstack` within a compiled program, where unrolled layers make the copies unnecessary."""

    def stack(layers: list[PyTree]) -> PyTree:
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)

    return _map_stacks(params, stack)


def _map_stacks(params: Params, change: Callable[[PyTree], PyTree]) -> Params:
    """Applies a function to each stack of layers of the encoder."""
    encoder = params["encoder"].items()
    return params | {"encoder": {name: change(x) if name.startswith("segment_") else x for name, x in encoder}}
