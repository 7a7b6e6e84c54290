"""The runs of a sweep, in one process and compiled once: rates, step counts and seeds are inputs of the program."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from bertjax.config.finetuning import Run, optimizer_config
from bertjax.errors import UserError
from bertjax.finetuning.task_model import Split, TaskModel
from bertjax.optimizers.adamw import adamw
from bertjax.optimizers.layerwise import scale_by_layer
from bertjax.optimizers.schedules import stretch
from bertjax.parallel.mesh import compiler_options
from bertjax.tasks.kinds.base import Prediction
from bertjax.trainer.loop import StopSignal, not_finite, training_steps
from bertjax.trainer.progress import progress
from bertjax.trainer.step import Batch, TeacherForward, TrainState, TrainStep, abstract_state, train_step_function
from bertjax.trainer.throughput import Clock

Settings = dict[str, jax.Array]  # of a run: learning_rate, warmup_steps, total_steps, seed
Scores = dict[str, dict[str, float]]  # by dev split and name


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run came to."""

    params: Any  # those with the best score, or the last ones
    scores: Scores
    predictions: dict[str, list[Prediction]]  # by dev split, of `params`
    epoch: int  # after which `params` were taken
    steps: int
    seconds: float  # of training, without evaluations
    examples_per_second: float


class Sweep:
    """Trains the runs of a task model's config."""

    def __init__(
        self,
        task_model: TaskModel,
        params: Any,
        train: Split,
        dev: list[Split],
        teacher: tuple[TeacherForward, Any] | None = None,
    ):
        """`params` are those to start from; what the model has beside them starts afresh, by the run's seed.

        `teacher`: its forward pass and its parameters.
        """
        forward, self._teacher = teacher or (None, None)
        self._objective = dataclasses.replace(task_model.objective, teacher_forward=forward)
        self._config, self._task_model, self._params = task_model.config, task_model, params
        self._train, self._dev = train, dev
        optimizer, _ = self._optimizer(self.settings(self._config.runs()[0]))
        self._abstract = abstract_state(self._objective, optimizer, train.batches.example(), task_model.mesh)

    def train(
        self, run: Run, stop: StopSignal, write: Callable[[int, Mapping[str, float]], None], show_progress: bool
    ) -> Result | None:
        """One run; None where `stop` ended it early.

        `write` receives (step, metrics) of every `log_every`th step, and the scores of the dev splits where these are
        computed: after the last epoch, and after each where `patience` asks for it.

        Raises:
          UserError: a loss or a score that is not finite.
        """
        config, batches = self._config, self._train.batches
        total = run.epochs * batches.steps
        settings = jax.device_put(self.settings(run), NamedSharding(self._task_model.mesh, PartitionSpec()))
        state = self.initial(self._params, settings["seed"])

        def train_step(state: TrainState, batch: Batch) -> Any:
            return self.step(state, batch, settings, self._teacher)

        def log(metrics: Iterable[tuple[int, dict[str, float]]]) -> None:
            for step, values in metrics:
                if problem := not_finite(values):
                    raise UserError(f"{problem} at step {step}; lower the learning rate")
                show(step)
                if step % config.log_every == 0:
                    write(step, values)
                    show(step, f"loss {values['train/loss']:.3f}")

        epochs = (batches.epoch(run.seed, epoch) for epoch in range(1, run.epochs + 1))
        best: Result | None = None
        clock = Clock()
        with progress(total, 0, show_progress) as show:
            steps = training_steps(train_step, state, itertools.chain.from_iterable(epochs), self._task_model.mesh, 0)
            for step, state, metrics in steps:
                log(metrics.earlier())
                stopping = stop.due(step)
                epoch, within = divmod(step, batches.steps)
                if step == total or (within == 0 and config.patience):
                    log(metrics.all())
                    with clock.paused():
                        predictions, scores = self._evaluate(state.params)
                        write(step, {f"{split}/{name}": x for split, by in scores.items() for name, x in by.items()})
                        if best is None or self.chosen(scores) > self.chosen(best.scores):
                            # A copy: the step that comes next takes the memory of this one's.
                            params = jax.tree.map(jnp.copy, state.params)
                            best = Result(params, scores, predictions, epoch, step, 0.0, 0.0)
                    if epoch - best.epoch >= config.patience:
                        break
                if stopping and step < total:
                    log(metrics.all())
                    return None
        seconds, _ = clock.read()
        speed = step // batches.steps * batches.units / seconds
        return dataclasses.replace(best, steps=step, seconds=seconds, examples_per_second=speed)

    def chosen(self, scores: Scores) -> float:
        """The score that chooses: the task's metric on its first dev split."""
        return scores[self._dev[0].name][self._task_model.task.metric]

    def _evaluate(self, params: Any) -> tuple[dict[str, list[Prediction]], Scores]:
        """The predictions for all dev splits, and their scores."""
        task_model = self._task_model
        predictions = {split.name: task_model.predictions(params, split) for split in self._dev}
        return predictions, {split.name: task_model.scores(split, predictions[split.name]) for split in self._dev}

    def settings(self, run: Run) -> dict[str, np.ndarray]:
        """What differs between runs, as `step` reads it."""
        total = run.epochs * self._train.batches.steps
        warmup = round(self._config.optimizer.warmup * total)
        return {
            "learning_rate": np.float32(run.learning_rate),
            "warmup_steps": np.float32(warmup),
            "total_steps": np.float32(total),
            "seed": np.uint32(run.seed),
        }

    def _optimizer(self, settings: Settings) -> tuple[optax.GradientTransformation, optax.Schedule]:
        update = optimizer_config(self._config.optimizer)
        schedule = stretch(update, settings["learning_rate"], settings["warmup_steps"], settings["total_steps"])
        by_layer = scale_by_layer(self._config.optimizer.layer_decay, self._task_model.model.config)
        return optax.chain(adamw(update, schedule), by_layer), schedule

    @functools.cached_property
    def step(self) -> TrainStep:
        """The compiled step: (state, batch, settings, the teacher's parameters) → (state, metrics)."""
        mesh, parts = self._task_model.mesh, self._config.layout.accumulation

        def step(state: TrainState, batch: Batch, settings: Settings, teacher: Any) -> Any:
            optimizer, schedule = self._optimizer(settings)
            train_step = train_step_function(self._objective, optimizer, schedule, mesh, settings["seed"], parts)
            return train_step(state, batch, teacher)

        return jax.jit(step, donate_argnums=0, compiler_options=compiler_options(mesh))

    @functools.cached_property
    def initial(self) -> Callable[[Any, jax.Array], TrainState]:
        """What makes the state before the first step, compiled, of the parameters to start from and a run's seed."""
        example = self._train.batches.example()
        first = self.settings(self._config.runs()[0])

        def make(params: Any, seed: jax.Array) -> TrainState:
            # Zeros: the program would hold the example's numbers, and features are many.
            batch = {name: jnp.zeros(array.shape, array.dtype) for name, array in example.items()}
            fresh = self._task_model.model.init(jax.random.key(seed), batch)["params"]
            params = fresh | params
            return TrainState(jnp.zeros([], jnp.int32), params, self._optimizer(first)[0].init(params))

        return jax.jit(make, out_shardings=jax.tree.map(lambda x: x.sharding, self._abstract))
