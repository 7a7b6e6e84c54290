"""The runs of a sweep, trained in one process.

The train step is compiled once: learning rates, numbers of steps and seeds are inputs of the program.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from bertjax.arrays.types import Batch, Params
from bertjax.config.finetuning import RunConfig, optimizer_config
from bertjax.errors import UserError
from bertjax.finetuning.task_model import Split, TaskModel
from bertjax.optimizers.adamw import adamw
from bertjax.optimizers.layerwise import scale_by_layer
from bertjax.optimizers.schedules import make_schedule
from bertjax.parallel.mesh import compiler_options
from bertjax.tasks.kinds.base import Prediction
from bertjax.trainer.loop import StopSignal, non_finite_terms, training_steps
from bertjax.trainer.progress import progress_bar
from bertjax.trainer.step import Metrics, TeacherForward, TrainState, TrainStep, make_init, train_step_function
from bertjax.trainer.throughput import Clock

Settings = Mapping[str, jax.Array]  # of a run: learning_rate, warmup_steps, total_steps, seed; scalars
HostSettings = Mapping[str, np.generic]
Scores = dict[str, dict[str, float]]  # by dev split and name


@dataclasses.dataclass(frozen=True)
class RunResult:
    """The best epoch of a run, or its last one without `patience`."""

    params: Params
    scores: Scores
    predictions: dict[str, list[Prediction]]  # by dev split
    epoch: int
    steps: int  # of the whole run
    seconds: float  # of training, without evaluations
    examples_per_second: float


class Sweep:
    """Trains the runs of a task model's config."""

    def __init__(
        self,
        task_model: TaskModel,
        params: Params,
        train: Split,
        dev: list[Split],
        teacher: tuple[TeacherForward, Params] | None = None,
    ):
        """Prepares the sweep.

        Args:
          task_model: the task and the model.
          params: the initial parameters; the seed of a run initializes those that are missing.
          train: the split to train on.
          dev: the splits to evaluate on; the first one selects the best epoch and the best run.
          teacher: the forward pass and the parameters of a teacher.
        """
        forward, self._teacher = teacher or (None, None)
        self._objective = dataclasses.replace(task_model.objective, teacher_forward=forward)
        self._config, self._task_model, self._params = task_model.config, task_model, params
        self._train, self._dev = train, dev

    def train(
        self, run: RunConfig, stop: StopSignal, write: Callable[[int, Mapping[str, float]], None], show_progress: bool
    ) -> RunResult | None:
        """Trains one run.

        Args:
          run: the learning rate, the number of epochs and the seed.
          stop: ends the run early.
          write: receives (step, metrics) every `log_every` steps, and the dev scores after the last epoch, or after
            every epoch with `patience`.
          show_progress: whether to draw a progress bar instead of logging lines.

        Returns:
          The result; None if `stop` ended the run early.

        Raises:
          UserError: a loss or a score is not finite.
        """
        config, batches = self._config, self._train.batches
        total = run.epochs * batches.steps
        mesh = self._task_model.mesh
        settings = jax.device_put(self.settings(run), NamedSharding(mesh, PartitionSpec()))
        state = self.init_state(self._params, settings["seed"])

        def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
            return self.step(state, batch, settings, self._teacher)

        def log(metrics: Iterable[tuple[int, dict[str, float]]]) -> None:
            for step, values in metrics:
                if problem := non_finite_terms(values):
                    raise UserError(f"{problem} at step {step}; lower the learning rate")
                show(step)
                if step % config.log_every == 0:
                    write(step, values)
                    show(step, f"loss {values['train/loss']:.3f}")

        stream = itertools.chain.from_iterable(batches.epoch(run.seed, epoch) for epoch in range(1, run.epochs + 1))
        best: RunResult | None = None
        step, clock = 0, Clock()
        with progress_bar(total, 0, show_progress) as show:
            steps = training_steps(train_step, state, stream, mesh, 0)  # pyright: ignore[reportArgumentType]  # on host
            for step, state, metrics in steps:
                log(metrics.earlier())
                stopping = stop.due(step)
                epoch, step_in_epoch = divmod(step, batches.steps)
                if step == total or (step_in_epoch == 0 and config.patience):
                    log(metrics.all())
                    with clock.paused():
                        predictions, scores = self._evaluate(state.params)
                        write(step, {f"{split}/{name}": x for split, by in scores.items() for name, x in by.items()})
                        if best is None or self.selection_score(scores) > self.selection_score(best.scores):
                            # A copy, because the next step reuses the memory of the state.
                            params = jax.tree.map(jnp.copy, state.params)
                            best = RunResult(params, scores, predictions, epoch, step, 0.0, 0.0)
                    if epoch - best.epoch >= config.patience:
                        break
                if stopping and step < total:
                    log(metrics.all())
                    return None
        seconds, _ = clock.read()
        speed = step // batches.steps * batches.units / seconds
        assert best is not None  # the last step is always evaluated
        return dataclasses.replace(best, steps=step, seconds=seconds, examples_per_second=speed)

    def selection_score(self, scores: Scores) -> float:
        """Returns the score that selects the best epoch and run: the metric of the task on the first dev split."""
        return scores[self._dev[0].name][self._task_model.task.metric]

    def _evaluate(self, params: Params) -> tuple[dict[str, list[Prediction]], Scores]:
        """Returns the predictions and the scores of all dev splits."""
        task_model = self._task_model
        predictions = {split.name: task_model.predictions(params, split) for split in self._dev}
        return predictions, {split.name: task_model.scores(split, predictions[split.name]) for split in self._dev}

    def settings(self, run: RunConfig) -> HostSettings:
        """Returns the inputs of `step` that differ between runs."""
        total = run.epochs * self._train.batches.steps
        warmup = round(self._config.optimizer.warmup * total)
        return {
            "learning_rate": np.float32(run.learning_rate),
            "warmup_steps": np.float32(warmup),
            "total_steps": np.float32(total),
            "seed": np.uint32(run.seed),
        }

    def _optimizer(self, settings: Settings | HostSettings) -> tuple[optax.GradientTransformation, optax.Schedule]:
        update = optimizer_config(self._config.optimizer)
        rate, warmup, total = (jnp.asarray(settings[name]) for name in ("learning_rate", "warmup_steps", "total_steps"))
        schedule = make_schedule(update, rate, warmup, total)
        by_layer = scale_by_layer(self._config.optimizer.layer_decay, self._task_model.model.config)
        return optax.chain(adamw(update, schedule), by_layer), schedule

    @functools.cached_property
    def step(self) -> TrainStep:
        """The compiled train step: (state, batch, settings, parameters of the teacher) → (state, metrics)."""
        mesh, parts = self._task_model.mesh, self._config.layout.accumulation

        def step(
            state: TrainState, batch: Batch, settings: Settings, teacher: Params | None
        ) -> tuple[TrainState, Metrics]:
            optimizer, schedule = self._optimizer(settings)
            train_step = train_step_function(self._objective, optimizer, schedule, mesh, settings["seed"], parts)
            return train_step(state, batch, teacher)

        return jax.jit(step, donate_argnums=0, compiler_options=compiler_options(mesh))

    @functools.cached_property
    def init_state(self) -> Callable[[Params, jax.Array], TrainState]:
        """The compiled initialization: (initial parameters, seed of the run) → the state before the first step."""
        example = self._train.batches.example()
        settings, mesh = self.settings(self._config.runs()[0]), self._task_model.mesh

        def init(params: Params, seed: jax.Array) -> TrainState:
            # Zeros, because the program would store the values of the example, and features are large.
            batch = {name: jnp.zeros(array.shape, array.dtype) for name, array in example.items()}
            initialized = self._task_model.model.init(jax.random.key(seed), batch)["params"]
            params = {**initialized, **params}
            return TrainState(jnp.zeros([], jnp.int32), params, self._optimizer(settings)[0].init(params))

        return make_init(init, mesh, self._params, settings["seed"])
