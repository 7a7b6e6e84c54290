"""The runs of a sweep, in one process and compiled once: rates, step counts and seeds are inputs of the program."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from bertjax.config.finetuning import FinetuneConfig, Run, optimizer_config
from bertjax.errors import UserError
from bertjax.finetuning.task_model import Split, TaskModel
from bertjax.optimizers.adamw import adamw
from bertjax.optimizers.layerwise import scale_by_layer
from bertjax.optimizers.schedules import stretch
from bertjax.parallel.mesh import compiler_options
from bertjax.tasks.kinds.base import Prediction
from bertjax.trainer import loop
from bertjax.trainer.progress import Progress
from bertjax.trainer.throughput import Clock

Settings = dict[str, jax.Array]  # of a run: learning_rate, warmup_steps, total_steps, seed


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run came to."""

    params: Any  # those with the best score, or the last ones
    scores: dict[str, dict[str, float]]  # by dev split
    predictions: dict[str, list[Prediction]]  # by dev split, of `params`
    epoch: int  # after which `params` were taken
    steps: int
    seconds: float  # of training, without evaluations
    examples_per_second: float


class Sweep:
    """Trains the runs of a config on a task model."""

    def __init__(
        self,
        config: FinetuneConfig,
        task_model: TaskModel,
        params: Any,
        train: Split,
        dev: list[Split],
        teacher: tuple[loop.Read, Any] | None = None,
    ):
        """`params` are those to start from; what the model has beside them starts afresh, by the run's seed.

        `teacher`: `teacher.reader`'s.
        """
        self._read, self._teacher = teacher or (None, None)
        self._config, self._task_model, self._params, self._train, self._dev = config, task_model, params, train, dev
        self._abstract = loop.abstract_state(
            task_model.objective,
            self._optimizer(self._settings(config.runs()[0]))[0],
            train.batches.example(),
            task_model.mesh,
        )

    def train(
        self,
        run: Run,
        stop: loop.StopSignal,
        on_step: Callable[[int, dict[str, float]], None],
        on_epoch: Callable[[int, int, dict[str, dict[str, float]]], None],
        show_progress: bool,
    ) -> Result | None:
        """One run; None where `stop` ended it early.

        `on_step` gets the metrics of every `log_every`th step, `on_epoch` (epoch, step, scores by dev split) where
        these are computed: after the last epoch, and after each where `patience` asks for it.

        Raises:
          UserError: a loss or a score that is not finite.
        """
        config, batches = self._config, self._train.batches
        total, step, seconds = run.epochs * batches.steps, 0, 0.0
        everywhere = NamedSharding(self._task_model.mesh, PartitionSpec())
        settings = jax.device_put(self._settings(run), everywhere)

        def train_step(state: loop.TrainState, batch: loop.Batch) -> Any:
            return self._step(state, batch, settings, self._teacher)

        state = self._initial(self._params, settings["seed"])
        best: Result | None = None
        with Progress(total, 0, show_progress) as progress:
            hooks = _hooks(on_step, progress, config.log_every)
            for epoch in range(1, run.epochs + 1):
                begin, first = time.perf_counter(), step
                step, state = loop.fit(
                    state, batches.epoch(run.seed, epoch), train_step, self._task_model.mesh, hooks, stop, Clock(), step
                )
                seconds += time.perf_counter() - begin
                if step < first + batches.steps:
                    return None
                if epoch < run.epochs and not config.patience:
                    continue
                predictions = {split.name: self._task_model.predictions(state.params, split) for split in self._dev}
                scores = {split.name: self._task_model.scores(split, predictions[split.name]) for split in self._dev}
                on_epoch(epoch, step, scores)
                if best is None or self.chosen(scores) > self.chosen(best.scores):
                    # A copy: the step that comes next takes the memory of this one's.
                    params = jax.tree.map(jnp.copy, state.params)
                    best = Result(params, scores, predictions, epoch, step, seconds, 0.0)
                elif epoch - best.epoch >= config.patience:
                    break
        speed = step // batches.steps * batches.units / seconds
        return dataclasses.replace(best, steps=step, seconds=seconds, examples_per_second=speed)

    def chosen(self, scores: dict[str, dict[str, float]]) -> float:
        """The score that chooses: the task's metric on its first dev split."""
        return scores[self._dev[0].name][self._task_model.task.metric]

    def _settings(self, run: Run) -> dict[str, np.ndarray]:
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
    def _step(self) -> loop.TrainStep:
        task_model, parts = self._task_model, self._config.layout.accumulation

        def step(state: loop.TrainState, batch: loop.Batch, settings: Settings, teacher: Any) -> Any:
            optimizer, schedule = self._optimizer(settings)
            one = loop.train_step_function(
                task_model.objective, optimizer, schedule, task_model.mesh, settings["seed"], parts, self._read
            )
            return one(state, batch, teacher)

        return jax.jit(step, donate_argnums=0, compiler_options=compiler_options(task_model.mesh))

    @functools.cached_property
    def _initial(self) -> Callable[[Any, jax.Array], loop.TrainState]:
        example = self._train.batches.example()
        first = self._settings(self._config.runs()[0])

        def make(params: Any, seed: jax.Array) -> loop.TrainState:
            # Zeros: the program would hold the example's numbers, and features are many.
            batch = {name: jnp.zeros(array.shape, array.dtype) for name, array in example.items()}
            fresh = self._task_model.model.init(jax.random.key(seed), batch)["params"]
            params = fresh | params
            return loop.TrainState(jnp.zeros([], jnp.int32), params, self._optimizer(first)[0].init(params))

        return jax.jit(make, out_shardings=jax.tree.map(lambda x: x.sharding, self._abstract))


def _hooks(on_step: Callable[[int, dict[str, float]], None], progress: Progress, log_every: int) -> loop.Hooks:
    def on_metrics(step: int, values: dict[str, float]) -> None:
        for name in ("train/loss", "train/grad_norm"):
            if not math.isfinite(values[name]):
                raise UserError(f"{name} is {values[name]} at step {step}; lower the learning rate")
        progress.step(step)
        if step % log_every == 0:
            on_step(step, values)
            progress.report(step, f"loss {values['train/loss']:.3f}")

    return loop.Hooks(
        on_metrics=on_metrics,
        evaluation_due=lambda step: False,
        on_evaluation=lambda step, state: None,
        checkpoint_due=lambda step: False,
        on_checkpoint=lambda step, state: None,
    )
