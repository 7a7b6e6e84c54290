"""Training state, and the compiled train and evaluation steps of any objective."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import PyTree

from bertjax.arrays.types import Batch, Params
from bertjax.data.batch import HostBatch
from bertjax.errors import UserError
from bertjax.model.computation import Computation
from bertjax.model.partitioning import all_gather_params, state_shardings
from bertjax.objectives.terms import Term, total
from bertjax.parallel import sharding
from bertjax.parallel.mesh import compiler_options, put_batch

TeacherForward = Callable[[Params, Batch], Batch]  # (teacher's parameters, batch) -> batch with the teacher's outputs
Metrics = dict[str, jax.Array]  # f32 scalars by name, which may still be being computed
TrainStep = Callable[..., tuple["TrainState", Metrics]]
EvalStep = Callable[[Params, Batch], dict[str, Term]]
AbstractBatch: TypeAlias = Mapping[str, jax.Array | np.ndarray | jax.ShapeDtypeStruct]


class Model(Protocol):
    """A Flax module of an encoder with its heads."""

    computation: Computation

    def init(self, rngs: jax.Array, batch: Batch, /) -> Mapping[str, PyTree]:
        """Returns {"params": initial parameters}."""
        ...

    def apply(
        self, variables: Mapping[str, Params], batch: Batch, keys: jax.Array | None, /, *, method: str | None
    ) -> PyTree:
        """Returns the outputs from {"params": parameters}, a batch and dropout keys [rows] (None: no dropout)."""
        ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """The state that training carries from step to step."""

    step: jax.Array  # int32 scalar: steps done
    params: Params
    optimizer: PyTree


@dataclasses.dataclass(frozen=True)
class Objective:
    """A model to train, with the terms of the loss on its outputs.

    Attributes:
      model: a Flax module; `model.apply({"params": params}, batch, dropout_keys)` returns a dict of outputs.
      terms: (outputs, batch) → the terms by name. Those named `…_loss` add to the loss, others are only logged.
      weights: batch → for each term exactly the weight that `terms` gives it. It is computed before the model runs, to
        divide by the weight of the whole batch while the batch is computed in parts.
      scales: factors of terms in the loss, 1 if left out; terms are logged without them.
      teacher_forward: runs on each training batch, before the model.
    """

    model: Model
    terms: Callable[[Mapping[str, jax.Array], Batch], dict[str, Term]]
    weights: Callable[[Batch], dict[str, jax.Array]]
    scales: Mapping[str, float] = dataclasses.field(default_factory=dict)
    teacher_forward: TeacherForward | None = None


def initial_state(
    objective: Objective, optimizer: optax.GradientTransformation, batch: AbstractBatch, seed: int = 0
) -> Callable[[], TrainState]:
    """Returns a function that computes the initial state; `batch` gives the shapes.

    `abstract_state` and `make_init` of the same function trace it only once.
    """

    def initial() -> TrainState:
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), dict(batch))
        params = objective.model.init(jax.random.key(seed), zeros)["params"]
        return TrainState(step=jnp.zeros([], jnp.int32), params=params, optimizer=optimizer.init(params))

    return initial


def abstract_state(initial: Callable[..., TrainState], mesh: Mesh, *arguments: PyTree) -> TrainState:
    """Returns shapes, dtypes and shardings of the state that `initial(*arguments)` would compute."""
    shapes = jax.eval_shape(initial, *arguments)
    shardings = state_shardings(shapes, mesh)
    return jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes, shardings)


def make_init(initial: Callable[..., TrainState], mesh: Mesh, *arguments: PyTree) -> Callable[..., TrainState]:
    """Compiles `initial`, to compute the state in its final sharding."""
    shardings = jax.tree.map(lambda x: x.sharding, abstract_state(initial, mesh, *arguments))
    return jax.jit(initial, out_shardings=shardings)


def make_train_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    mesh: Mesh,
    seed: int,
    accumulation: int = 1,
) -> jax.stages.Wrapped:
    """Compiles `train_step_function`, donating the memory of the old state."""
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
    """Returns the train step, not yet compiled: (state, batch) -> (state, metrics).

    The batch is computed in `accumulation` microbatches, one after the other, which changes results only by rounding.
    With `objective.teacher_forward` the step takes the teacher's parameters as a third argument.
    """

    def train_step(state: TrainState, batch: Batch, teacher: PyTree = None) -> tuple[TrainState, Metrics]:
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
        state = TrainState(
            step=state.step + 1,
            params=params,  # pyright: ignore[reportArgumentType]  # optax's trees may be bare arrays
            optimizer=optimizer_state,
        )
        return jax.lax.with_sharding_constraint(state, state_shardings(state, mesh)), metrics

    return train_step


def _gradients(
    objective: Objective,
    params: Params,
    batch: dict[str, jax.Array],
    keys: jax.Array,
    microbatches: int,
    prepare: Callable[[Batch], Batch],
) -> tuple[Params, dict[str, Term]]:
    """Returns the gradients of the loss and its terms, summed over the microbatches; `prepare` maps each of these."""
    weights = objective.weights(batch)

    def loss(params: Params, batch: Batch, keys: jax.Array) -> tuple[jax.Array, dict[str, Term]]:
        terms = objective.terms(apply_model(objective.model, params, batch, keys), batch)
        if unweighted := sorted(terms.keys() - weights.keys()):
            raise UserError(f"the objective's `weights` has no {unweighted[0]}; return the weight of every term")
        # By the weight of the whole batch: microbatches have unequal numbers of predictions.
        terms = {name: Term(term.sum, weights[name]) for name, term in terms.items()}
        return total(terms, objective.scales), terms

    def gradient(params: Params, batch: Batch, keys: jax.Array) -> tuple[Params, dict[str, Term]]:
        return jax.grad(loss, has_aux=True)(params, prepare(batch), keys)

    if microbatches == 1:
        return gradient(params, batch, keys)

    def add(sums: PyTree, microbatch: tuple[Batch, jax.Array]) -> tuple[PyTree, None]:
        gradients, terms = gradient(params, *microbatch)
        summands = (gradients, {name: term.sum for name, term in terms.items()})
        return jax.tree.map(jnp.add, sums, summands), None

    # Every microbatch takes rows from every device.
    split = jax.tree.map(lambda x: x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1), (batch, keys))
    zero = jnp.float32(0)
    start = (jax.tree.map(jnp.zeros_like, params), {name: zero for name in weights})
    (gradients, sums), _ = jax.lax.scan(add, start, split)
    return gradients, {name: Term(total, weights[name]) for name, total in sums.items()}


def apply_model(
    model: Model, params: Params, batch: Batch, keys: jax.Array | None = None, method: str | None = None
) -> PyTree:
    """Returns a model's outputs; to be called while tracing, within `sharding.use_mesh`."""
    return model.apply({"params": all_gather_params(params, model.computation.dtype)}, batch, keys, method=method)


def dropout_keys(seed: int | jax.Array, step: jax.Array, rows: int) -> jax.Array:
    """Returns a typed threefry key per row of the global batch of `step`, [rows]; derived, thus never saved."""
    key = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), step)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(rows))


def make_eval_step(objective: Objective, mesh: Mesh) -> EvalStep:
    """Returns a compiled evaluation of one batch without dropout: (params, batch) -> terms."""

    def eval_step(params: Params, batch: Batch) -> dict[str, Term]:
        with sharding.use_mesh(mesh):
            return objective.terms(apply_model(objective.model, params, batch), batch)

    return jax.jit(eval_step, compiler_options=compiler_options(mesh))


def evaluate(eval_step: EvalStep, params: Params, batches: Iterable[HostBatch], mesh: Mesh) -> dict[str, float]:
    """Returns the mean of each term over all batches, each divided once by its total weight."""
    results = jax.device_get([eval_step(params, put_batch(batch, mesh)) for batch in batches])
    if not results:
        raise UserError(
            "the held-out split is smaller than one example; prepare the corpus again with a larger --heldout"
        )
    sums = jax.tree.map(lambda *values: sum(map(float, values)), *results)
    return {name: term.sum / max(term.weight, 1e-6) for name, term in sums.items()}
