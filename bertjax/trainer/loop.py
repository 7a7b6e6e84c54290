"""State, step and loop of a training, whatever the objective."""

import dataclasses
import functools
import signal
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from types import FrameType, TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from bertjax.errors import UserError
from bertjax.model.partitioning import all_gather_params, state_shardings
from bertjax.objectives.terms import Term, total
from bertjax.parallel import processes, sharding
from bertjax.parallel.mesh import compiler_options, put_batch
from bertjax.trainer.throughput import Clock

Batch = Mapping[str, Any]
Read = Callable[[Any, Batch], Batch]  # (a teacher's parameters, a batch) → the batch with what the teacher says of it
TrainStep = Callable[..., tuple["TrainState", dict[str, jax.Array]]]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that a training carries from step to step."""

    step: jax.Array  # int32 scalar: steps done
    params: Any
    optimizer: Any


@dataclasses.dataclass(frozen=True)
class Objective:
    """What is trained: a model, and the terms and the loss made from its outputs."""

    model: Any  # flax module: apply({"params": …}, batch, dropout_keys) -> outputs
    terms: Callable[[Mapping[str, jax.Array], Batch], dict[str, Term]]
    weights: Callable[[Batch], dict[str, jax.Array]]  # those of the terms, known before the model runs
    scales: Mapping[str, float] = dataclasses.field(default_factory=dict)  # of terms in the loss, where not 1


def abstract_state(
    objective: Objective, optimizer: optax.GradientTransformation, batch: Batch, mesh: Mesh
) -> TrainState:
    """The state's shapes, dtypes and shardings; computes nothing. `batch` may be abstract as well."""
    shapes = jax.eval_shape(lambda batch: _initial(objective, optimizer, batch, 0), batch)
    where = state_shardings(shapes, mesh)
    return jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes, where)


def init_state(
    objective: Objective, optimizer: optax.GradientTransformation, batch: Batch, mesh: Mesh, seed: int
) -> TrainState:
    """The state before the first step, made where it will lie."""
    where = jax.tree.map(lambda x: x.sharding, abstract_state(objective, optimizer, batch, mesh))

    def make() -> TrainState:
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), dict(batch))
        return _initial(objective, optimizer, zeros, seed)

    return jax.jit(make, out_shardings=where)()


def _initial(objective: Objective, optimizer: optax.GradientTransformation, batch: Batch, seed: int) -> TrainState:
    params = objective.model.init(jax.random.key(seed), batch)["params"]
    return TrainState(step=jnp.zeros([], jnp.int32), params=params, optimizer=optimizer.init(params))


def make_train_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    mesh: Mesh,
    seed: int,
    accumulation: int = 1,
    read: Read | None = None,
) -> TrainStep:
    """`train_step_function`, compiled. The old state's memory is re-used."""
    step = train_step_function(objective, optimizer, schedule, mesh, seed, accumulation, read)
    return jax.jit(step, donate_argnums=0, compiler_options=compiler_options(mesh))


def train_step_function(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    mesh: Mesh,
    seed: int | jax.Array,
    accumulation: int = 1,
    read: Read | None = None,
) -> TrainStep:
    """A step, still to be compiled: (state, batch) -> (state, metrics as f32 scalars).

    The batch is computed in `accumulation` parts, one after the other; their number changes nothing but rounding. With
    `read` the step has a third argument, the parameters of a teacher, which reads each part before it is learned from.
    """

    def train_step(state: TrainState, batch: Batch, teacher: Any = None) -> tuple[TrainState, dict[str, jax.Array]]:
        rows = jax.tree.leaves(dict(batch))[0].shape[0]
        keys = dropout_keys(seed, state.step, rows)
        with sharding.use_mesh(mesh):
            prepare = functools.partial(read, teacher) if read else dict
            gradients, terms = _gradients(objective, state.params, dict(batch), keys, accumulation, prepare)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
        metrics = {
            "train/loss": total(terms, objective.scales),
            "train/grad_norm": optax.global_norm(gradients),
            "train/learning_rate": schedule(state.step),
        } | {f"train/{name}": term.mean() for name, term in terms.items()}
        params = optax.apply_updates(state.params, updates)
        state = TrainState(step=state.step + 1, params=params, optimizer=optimizer_state)
        return jax.lax.with_sharding_constraint(state, state_shardings(state, mesh)), metrics

    return train_step


def _gradients(
    objective: Objective,
    params: Any,
    batch: dict[str, jax.Array],
    keys: jax.Array,
    parts: int,
    prepare: Callable[[Batch], Batch],
) -> tuple[Any, dict[str, Term]]:
    """The gradients of the loss, and its terms; both summed over the parts of the batch, each prepared."""
    weights = objective.weights(batch)

    def loss_of(params: Any, batch: Batch, keys: jax.Array) -> tuple[jax.Array, dict[str, Term]]:
        terms = objective.terms(apply_model(objective.model, params, batch, keys), batch)
        # By the weight of the whole batch: the parts have unequal numbers of predictions.
        terms = {name: Term(term.sum, weights[name]) for name, term in terms.items()}
        return total(terms, objective.scales), terms

    def gradient_of(params: Any, batch: Batch, keys: jax.Array) -> tuple[Any, dict[str, Term]]:
        return jax.grad(loss_of, has_aux=True)(params, prepare(batch), keys)

    if parts == 1:
        return gradient_of(params, batch, keys)

    def add(sums: Any, part: tuple[Batch, jax.Array]) -> tuple[Any, None]:
        gradients, terms = gradient_of(params, *part)
        more = (gradients, {name: term.sum for name, term in terms.items()})
        return jax.tree.map(jnp.add, sums, more), None

    # Every device gives rows of its own to every part.
    split = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), (batch, keys))
    start = (jax.tree.map(jnp.zeros_like, params), dict.fromkeys(weights, jnp.float32(0)))
    (gradients, sums), _ = jax.lax.scan(add, start, split)
    return gradients, {name: Term(total, weights[name]) for name, total in sums.items()}


def apply_model(model: Any, params: Any, batch: Batch, keys: jax.Array | None = None, method: str | None = None) -> Any:
    """A model's outputs, within a program and `sharding.use_mesh`."""
    return model.apply({"params": all_gather_params(params, model.dtype)}, batch, keys, method=method)


def dropout_keys(seed: int | jax.Array, step: jax.Array, rows: int) -> jax.Array:
    """A threefry key for each row of the global batch of `step`, typed keys [rows]; derived, so never saved."""
    key = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), step)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(rows))


def make_eval_step(objective: Objective, mesh: Mesh) -> Callable[[Any, Batch], dict[str, Term]]:
    """A compiled evaluation of one batch: (params, batch) -> terms, without dropout."""

    def eval_step(params: Any, batch: Batch) -> dict[str, Term]:
        with sharding.use_mesh(mesh):
            return objective.terms(apply_model(objective.model, params, batch), batch)

    return jax.jit(eval_step, compiler_options=compiler_options(mesh))


def evaluate(
    eval_step: Callable[[Any, Batch], dict[str, Term]], params: Any, batches: Iterable[Batch], mesh: Mesh
) -> dict[str, float]:
    """The mean of each term over all batches together, each divided once by its own weight."""
    results = [eval_step(params, put_batch(batch, mesh)) for batch in batches]
    if not results:
        raise UserError("the held-out split is too small for one example; prepare the corpus with a larger --heldout")
    results = jax.device_get(results)
    sums = {name: sum(float(terms[name].sum) for terms in results) for name in results[0]}
    weights = {name: sum(float(terms[name].weight) for terms in results) for name in results[0]}
    return {name: sums[name] / max(weights[name], 1e-6) for name in sums}


class StopSignal:
    """Turns the first SIGTERM or Ctrl-C into a wish to stop after the current step; a second one interrupts.

    The wish of one process is all processes' wish.
    """

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> "StopSignal":
        self._before = {s: signal.signal(s, self._request) for s in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def due(self, step: int) -> bool:
        """Whether to stop after `step`, the same on every process; to be asked once a step."""
        # A process can be so far ahead of another because the metrics of a step are sums over all processes.
        return processes.agreed_to_stop(step, self.requested, ahead=_IN_FLIGHT + 1)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


@dataclasses.dataclass(frozen=True)
class Hooks:
    """What the loop calls; each gets the number of steps done."""

    on_metrics: Callable[[int, dict[str, float]], None]  # every step's metrics, a little later, in order
    evaluation_due: Callable[[int], bool]
    on_evaluation: Callable[[int, TrainState], None]
    checkpoint_due: Callable[[int], bool]
    on_checkpoint: Callable[[int, TrainState], None]


# Steps that may be under way before the loop waits for the oldest one's metrics: enough that the device always has its
# next step queued, few enough that the host does not run away from it.
_IN_FLIGHT = 2


def fit(
    state: TrainState,
    batches: Iterable[dict[str, np.ndarray]],
    train_step: Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]],
    mesh: Mesh,
    hooks: Hooks,
    stop: StopSignal,
    clock: Clock,
    start: int,
) -> tuple[int, TrainState]:
    """Trains from step `start` through all `batches`, or until `stop` is requested; the steps done and their state.

    Every metric of a step is handed over before an evaluation or checkpoint of that step is made.

    Raises:
      UserError: a loss or gradient that is not finite.
    """
    pending: deque[tuple[int, dict[str, jax.Array]]] = deque()

    def settle(in_flight: int) -> None:
        while len(pending) > in_flight:
            done, metrics = pending.popleft()
            values = {name: float(value) for name, value in jax.device_get(metrics).items()}
            hooks.on_metrics(done, values)

    step = start
    for batch in clock.waiting(batches):
        with jax.transfer_guard("disallow"):
            state, metrics = train_step(state, put_batch(batch, mesh))
        step += 1
        pending.append((step, metrics))
        settle(_IN_FLIGHT)
        if hooks.evaluation_due(step):
            settle(0)
            with clock.paused():
                hooks.on_evaluation(step, state)
        stopping = stop.due(step)  # read once: a signal between two readings would leave without a checkpoint
        if stopping or hooks.checkpoint_due(step):
            settle(0)
            with clock.paused():
                hooks.on_checkpoint(step, state)
        if stopping:
            break
    settle(0)
    return step, state
