"""The state of a training and its compiled steps: train, evaluate, predict; whatever the objective."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from bertjax.errors import UserError
from bertjax.model.partitioning import all_gather_params, state_shardings
from bertjax.objectives.terms import Term, total
from bertjax.parallel import sharding
from bertjax.parallel.mesh import compiler_options, put_batch

Batch = Mapping[str, Any]
TeacherForward = Callable[[Any, Batch], Batch]  # (a teacher's parameters, a batch) -> the batch with its outputs
Metrics = dict[str, jax.Array]  # f32 scalars by name, still being computed
TrainStep = Callable[..., tuple["TrainState", Metrics]]


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
    teacher_forward: TeacherForward | None = None  # runs on each batch of a train step, before the model


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
    return make_init(objective, optimizer, batch, mesh, seed)()


def make_init(
    objective: Objective, optimizer: optax.GradientTransformation, batch: Batch, mesh: Mesh, seed: int
) -> Callable[[], TrainState]:
    """What makes the state before the first step, compiled. `batch` may be abstract."""
    where = jax.tree.map(lambda x: x.sharding, abstract_state(objective, optimizer, batch, mesh))

    def make() -> TrainState:
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), dict(batch))
        return _initial(objective, optimizer, zeros, seed)

    return jax.jit(make, out_shardings=where)


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
) -> TrainStep:
    """`train_step_function`, compiled. The old state's memory is re-used."""
    step = train_step_function(objective, optimizer, schedule, mesh, seed, accumulation)
    return jax.jit(step, donate_argnums=0, compiler_options=compiler_options(mesh))


def train_step_function(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    mesh: Mesh,
    seed: int | jax.Array,
    accumulation: int = 1,
) -> TrainStep:
    """A step, still to be compiled: (state, batch) -> (state, metrics).

    The batch is computed in `accumulation` parts, one after the other; their number changes nothing but rounding. A
    step whose objective has a `teacher_forward` takes the teacher's parameters as its third argument.
    """

    def train_step(state: TrainState, batch: Batch, teacher: Any = None) -> tuple[TrainState, Metrics]:
        rows = jax.tree.leaves(dict(batch))[0].shape[0]
        keys = dropout_keys(seed, state.step, rows)
        with sharding.use_mesh(mesh):
            forward = objective.teacher_forward
            prepare = functools.partial(forward, teacher) if forward else dict
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
    return model.apply({"params": all_gather_params(params, model.computation.dtype)}, batch, keys, method=method)


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
    results = jax.device_get([eval_step(params, put_batch(batch, mesh)) for batch in batches])
    if not results:
        raise UserError("the held-out split is too small for one example; prepare the corpus with a larger --heldout")
    sums = jax.tree.map(lambda *values: sum(map(float, values)), *results)
    return {name: term.sum / max(term.weight, 1e-6) for name, term in sums.items()}
