"""Plans a phase: compiles its train step, also for absent devices, and estimates memory, FLOPs and time."""

import dataclasses
import logging
import math
import re
from dataclasses import dataclass

import jax
import numpy as np
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var, jaxprs_in_params
from jax.sharding import Mesh
from jaxtyping import PyTree

from bertjax.config.pretraining import Config, Phase
from bertjax.errors import UserError, first_line
from bertjax.parallel import sharding
from bertjax.parallel.hardware import peak_flops
from bertjax.parallel.mesh import make_mesh
from bertjax.planning import hlo
from bertjax.planning.collectives import Collective, collectives
from bertjax.planning.topology import Topology
from bertjax.planning.traffic import traffic
from bertjax.pretraining import build
from bertjax.trainer.step import TrainState, abstract_state, initial_state, make_train_step

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """Resources of a train step of one phase; bytes, FLOPs and seconds are per chip."""

    phase: Phase
    mesh: dict[str, int]
    attention: str  # xla (plain), cudnn or splash
    parameters: int  # bytes, f32
    optimizer: int  # bytes
    total: int  # bytes of the program, by the compiler
    limit: int | None  # bytes available to a program
    model_flops: float
    program_flops: float  # including recomputation
    moved: int  # bytes to and from HBM
    collectives: list[Collective]
    seconds: dict[str, float]  # lower bounds by compute, HBM, links and network; empty if unknown
    peak_flops: float | None  # FLOP/s
    unread_loops: list[str]  # with unknown trip count; they count once

    @property
    def activations(self) -> int:
        """Bytes of everything except the state: activations, gradients, buffers, code."""
        return self.total - self.parameters - self.optimizer

    @property
    def bound(self) -> str | None:
        """The resource with the largest lower bound on the time of a step."""
        return max(self.seconds, key=self.seconds.__getitem__) if self.seconds else None

    @property
    def mfu(self) -> float | None:
        """Upper bound of the MFU, the share of the peak that the model FLOPs reach."""
        if not self.seconds or self.peak_flops is None:
            return None
        return self.model_flops / self.peak_flops / max(self.seconds.values())


class DoesNotFit(Exception):  # noqa: N818 - a result, not a failure
    """The program needs more memory than a chip has; `used` and `limit` are bytes."""

    def __init__(self, used: float, limit: float) -> None:
        super().__init__(f"needs {used / 2**30:.2f} of {limit / 2**30:.2f} GiB")
        self.used, self.limit = used, limit


def plan(config: Config, phase: Phase, topology: Topology) -> Plan:
    """Compiles the train step of `phase` and returns its plan.

    Raises:
      DoesNotFit: the compiler reports out of memory, or the program needs more than a chip has.
      UserError: the mesh does not fit the devices or the model.
    """
    mesh = make_mesh(config.mesh, topology.devices)
    traced, state = _trace(config, phase, mesh)
    compiled = _compile(traced)
    memory, text = compiled.memory_analysis(), compiled.as_text()
    if memory is None or text is None:
        raise UserError(f"--topology={topology.name}: its compiler reports no memory or program; use another topology")
    program = hlo.parse(text)
    operations = collectives(program, dict(mesh.shape))
    program_flops, moved = matmul_flops(traced.jaxpr.jaxpr) / mesh.size, traffic(program)
    peak = peak_flops(topology.devices[:1])
    result = Plan(
        phase=phase,
        mesh=dict(mesh.shape),
        attention=build.attention_impl(config, phase, mesh),
        parameters=_bytes(state.params),
        optimizer=_bytes(state.optimizer),
        total=(
            memory.argument_size_in_bytes
            + memory.output_size_in_bytes
            - memory.alias_size_in_bytes
            + memory.temp_size_in_bytes
            + memory.generated_code_size_in_bytes
        ),
        limit=topology.chip.hbm_bytes if topology.chip else None,
        model_flops=build.step_flops(config, phase) / mesh.size,
        program_flops=program_flops,
        moved=moved,
        collectives=operations,
        seconds=_seconds(program_flops / peak, moved, operations, topology) if peak else {},
        peak_flops=peak,
        unread_loops=[name for name, trips in program.trips.items() if trips is None],
    )
    if result.limit is not None and result.total > result.limit:
        raise DoesNotFit(result.total, result.limit)
    return result


def _trace(config: Config, phase: Phase, mesh: Mesh) -> tuple[jax.stages.Traced, TrainState]:
    """Returns the traced train step and its abstract state."""
    build.check_mesh(dataclasses.replace(config, phases=(phase,)), mesh)
    objective = build.make_objective(config.for_phase(phase))
    optimizer, schedule = build.make_optimizer(config)
    batch = build.abstract_batch(config, phase)
    shardings = sharding.batch_shardings(batch, mesh)
    batch = {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=shardings[name]) for name, x in batch.items()}
    state = abstract_state(initial_state(objective, optimizer, batch), mesh)
    step = make_train_step(objective, optimizer, schedule, mesh, config.seed, config.layout.accumulation)
    return step.trace(state, batch), state


# The two out-of-memory messages of the TPU compiler.
_AMOUNT = r"([\d.]+)([KMG])"
_OUT_OF_MEMORY = (
    rf"Used {_AMOUNT} of {_AMOUNT} hbm",
    rf"required for HLO temporaries \({_AMOUNT}\) exceeds available HBM \({_AMOUNT}\)",
)


def _compile(traced: jax.stages.Traced) -> jax.stages.Compiled:
    try:
        return traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        match = next(filter(None, (re.search(pattern, str(error)) for pattern in _OUT_OF_MEMORY)), None)
        if not match:
            raise UserError(
                f"the compiler rejects the train step: {first_line(error)}; change config.layout or config.mesh"
            ) from error
        units = {"K": 2**10, "M": 2**20, "G": 2**30}
        raise DoesNotFit(float(match[1]) * units[match[2]], float(match[3]) * units[match[4]]) from error


def _bytes(tree: PyTree) -> int:
    """Returns the bytes of the arrays of a tree on one device."""
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * np.dtype(x.dtype).itemsize for x in leaves)


def _seconds(compute: float, moved: int, operations: list[Collective], topology: Topology) -> dict[str, float]:
    """Returns the lower bounds of a step's time by resource; empty for unknown chips."""
    chip = topology.chip
    if chip is None:
        return {}
    # Only the outermost axis, data, spans slices.
    between = [operation for operation in operations if topology.slices > 1 and "data" in operation.axes]
    within = [operation for operation in operations if operation not in between]
    seconds = {
        "compute": compute,
        "HBM": moved / chip.hbm_bytes_per_second,
        "links": sum(operation.times * operation.sent for operation in within) / chip.ring_bytes_per_second,
    }
    if topology.slices > 1:
        sent = sum(operation.times * operation.sent for operation in between)
        seconds["network"] = sent / chip.network_bytes_per_second
    return seconds


# Matrix products within cuDNN's attention, which is opaque to JAX; the backward pass recomputes the scores.
_CUDNN_PRODUCTS = {"dot_product_attention_fwd_wrapper": 2, "dot_product_attention_bwd_wrapper": 5}


def matmul_flops(jaxpr: Jaxpr) -> float:
    """Returns the FLOPs of all matrix products of a program, over all devices and iterations of loops."""
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracting, _), _ = equation.params["dimension_numbers"]
            shape, result = _shape(equation.invars[0]), _shape(equation.outvars[0])
            total += 2.0 * math.prod(result) * math.prod(shape[axis] for axis in contracting)
            continue
        if equation.primitive.name in _CUDNN_PRODUCTS:
            query, key = map(_shape, equation.invars[:2])
            total += 2.0 * math.prod(query) * key[1] * _CUDNN_PRODUCTS[equation.primitive.name]
            continue
        if not (equation.outvars or equation.effects):  # a kernel whose results remat has saved; XLA removes it
            continue
        inner = sum(matmul_flops(inner) for inner in jaxprs_in_params(equation.params))
        total += _repetitions(equation) * inner
    return total


def _shape(variable: Var | Literal) -> tuple[int, ...]:
    return variable.aval.shape  # pyright: ignore[reportAttributeAccessIssue]  # declared by its subclass ShapedArray


def _repetitions(equation: JaxprEqn) -> int:
    """Returns how often all devices together run the inner program of an equation."""
    name, params = equation.primitive.name, equation.params
    if name == "scan":
        return params["length"]
    if name == "shard_map":  # the inner program is that of one device
        return params["mesh"].size
    if name == "pallas_call":
        return math.prod(params["grid_mapping"].grid)
    return 1


def largest_batch(config: Config, phase: Phase, topology: Topology) -> int:
    """Returns a global batch that fits, at most an eighth below the largest; 0 if none fits."""
    if topology.chip is None:
        raise UserError(
            f"--fit needs devices whose memory is known, and that of {topology.name} is not; use a TPU topology, e.g. "
            "--topology=v5e:4x4"
        )
    shape = make_mesh(config.mesh, topology.devices).shape
    unit = shape["data"] * shape["fsdp"] * config.layout.accumulation

    def fits(rows: int) -> bool:
        _LOG.info(f"compiling for a batch of {rows * unit}")
        try:
            plan(config, dataclasses.replace(phase, batch=rows * unit), topology)
        except DoesNotFit:
            return False
        return True

    low, high = 0, max(1, phase.batch // unit)
    while fits(high):
        low, high = high, 2 * high
    while high - low > max(1, low // 8):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low * unit
