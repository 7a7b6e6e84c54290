"""A phase's train step, compiled for devices that need not be here, and what its program says about itself."""

import dataclasses
import logging
import math
import re
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.extend.core import jaxprs_in_params

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
from bertjax.trainer.step import TrainState, abstract_state, make_train_step

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What a step of one phase takes; bytes, FLOPs and seconds are those of one chip."""

    phase: Phase
    mesh: dict[str, int]
    attention: str  # xla (the plain path), cudnn or splash
    parameters: int  # bytes, f32
    optimizer: int  # bytes
    total: int  # bytes: the whole program's, as the compiler gives them
    limit: int | None  # bytes that a chip has for a program
    model_flops: float
    program_flops: float  # with what is computed again
    moved: int  # bytes to and from HBM
    collectives: list[Collective]
    seconds: dict[str, float]  # that compute, HBM and links each need at their best; empty where that is not known
    peak_flops: float | None  # FLOP/s at best
    unread_loops: list[str]  # whose trips could not be read; they count once

    @property
    def activations(self) -> int:
        """Bytes of everything but the state: activations, gradients, buffers, code."""
        return self.total - self.parameters - self.optimizer

    @property
    def bound(self) -> str | None:
        """What a step cannot be faster than, were everything else free."""
        return max(self.seconds, key=self.seconds.get) if self.seconds else None

    @property
    def mfu(self) -> float | None:
        """The largest share of the peak that the model's own FLOPs can come to."""
        return self.model_flops / self.peak_flops / max(self.seconds.values()) if self.seconds else None


class DoesNotFit(Exception):  # noqa: N818 - a finding, not a mistake
    """The program needs more memory than a chip has; `used` and `limit` are bytes."""

    def __init__(self, used: float, limit: float) -> None:
        super().__init__(f"needs {used / 2**30:.2f} of {limit / 2**30:.2f} GiB")
        self.used, self.limit = used, limit


def plan(config: Config, phase: Phase, topology: Topology) -> Plan:
    """Compiles the train step of `phase`.

    Raises:
      DoesNotFit: the compiler says so, or its program takes more than there is.
      UserError: the mesh does not fit the devices or the model.
    """
    mesh = make_mesh(config.mesh, topology.devices)
    traced, state = _trace(config, phase, mesh)
    compiled = _compile(traced)
    memory = compiled.memory_analysis()
    program = hlo.parse(compiled.as_text())
    sent = collectives(program, dict(mesh.shape))
    program_flops, moved = matmul_flops(traced.jaxpr.jaxpr) / mesh.size, traffic(program)
    peak = peak_flops(topology.devices[:1])
    made = Plan(
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
        collectives=sent,
        seconds=_seconds(program_flops / peak, moved, sent, topology) if topology.chip else {},
        peak_flops=peak,
        unread_loops=[name for name, trips in program.trips.items() if trips is None],
    )
    if made.limit is not None and made.total > made.limit:
        raise DoesNotFit(made.total, made.limit)
    return made


def _trace(config: Config, phase: Phase, mesh: Any) -> tuple[Any, TrainState]:
    """The train step as JAX sees it, and the shapes of its state."""
    build.check_mesh(dataclasses.replace(config, phases=(phase,)), mesh)
    objective = build.make_objective(config.in_phase(phase))
    optimizer, schedule = build.make_optimizer(config)
    batch = build.abstract_batch(config, phase)
    places = sharding.of_batch(batch, mesh)
    batch = {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=places[name]) for name, x in batch.items()}
    state = abstract_state(objective, optimizer, batch, mesh)
    step = make_train_step(objective, optimizer, schedule, mesh, config.seed, config.layout.accumulation)
    return step.trace(state, batch), state


# The two ways in which the TPU's compiler says that a program does not fit.
_AMOUNT = r"([\d.]+)([KMG])"
_OUT_OF_MEMORY = (
    rf"Used {_AMOUNT} of {_AMOUNT} hbm",
    rf"required for HLO temporaries \({_AMOUNT}\) exceeds available HBM \({_AMOUNT}\)",
)


def _compile(traced: Any) -> Any:
    try:
        return traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        found = next(filter(None, (re.search(pattern, str(error)) for pattern in _OUT_OF_MEMORY)), None)
        if not found:
            raise UserError(f"the compiler refuses the program: {first_line(error)}") from error
        units = {"K": 2**10, "M": 2**20, "G": 2**30}
        raise DoesNotFit(float(found[1]) * units[found[2]], float(found[3]) * units[found[4]]) from error


def _bytes(tree: Any) -> int:
    """Of one device's parts."""
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * np.dtype(x.dtype).itemsize for x in leaves)


def _seconds(compute: float, moved: int, sent: list[Collective], topology: Topology) -> dict[str, float]:
    chip = topology.chip
    # Between slices only the data axis runs, which lies outermost.
    slow = [one for one in sent if topology.slices > 1 and "data" in one.axes]
    times = {
        "compute": compute,
        "HBM": moved / chip.hbm_bytes_per_second,
        "links": sum(one.times * one.sent for one in sent if one not in slow) / chip.ring_bytes_per_second,
    }
    if topology.slices > 1:
        times["network"] = sum(one.times * one.sent for one in slow) / chip.network_bytes_per_second
    return times


# Matrix products within cuDNN's attention, of which JAX sees only that it is called; backwards the scores are computed
# again.
_CUDNN_PRODUCTS = {"dot_product_attention_fwd_wrapper": 2, "dot_product_attention_bwd_wrapper": 5}


def matmul_flops(jaxpr: Any) -> float:
    """FLOPs of all matrix products of a program, over all devices, each as often as its loop runs it."""
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracting, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += 2.0 * equation.outvars[0].aval.size * math.prod(shape[axis] for axis in contracting)
            continue
        if equation.primitive.name in _CUDNN_PRODUCTS:
            query, key = (variable.aval.shape for variable in equation.invars[:2])
            total += 2.0 * math.prod(query) * key[1] * _CUDNN_PRODUCTS[equation.primitive.name]
            continue
        if not (equation.outvars or equation.effects):  # a kernel whose results remat has kept; XLA leaves it out
            continue
        inner = sum(matmul_flops(inner) for inner in jaxprs_in_params(equation.params))
        total += _times(equation) * inner
    return total


def _times(equation: Any) -> int:
    """How often all devices together run the inner program of an equation."""
    name, params = equation.primitive.name, equation.params
    if name == "scan":
        return params["length"]
    if name == "shard_map":  # what stands within is one device's
        return params["mesh"].size
    if name == "pallas_call":
        return math.prod(params["grid_mapping"].grid)
    return 1


def largest_batch(config: Config, phase: Phase, topology: Topology) -> int:
    """The largest global batch that fits, in steps of an eighth of what does; 0 where none does."""
    if topology.chip is None:
        raise UserError("--fit needs a topology whose memory is known: a TPU's")
    shape = make_mesh(config.mesh, topology.devices).shape
    unit = shape["data"] * shape["fsdp"] * config.layout.accumulation

    def fits(rows: int) -> bool:
        _LOG.info(f"trying a batch of {rows * unit}")
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
