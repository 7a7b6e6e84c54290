"""What a run leaves behind while it trains: log lines, metrics and checkpoints."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from bertjax.checkpoints import store
from bertjax.checkpoints.meta import CheckpointMeta
from bertjax.config.pretraining import Config
from bertjax.errors import UserError
from bertjax.parallel import processes
from bertjax.parallel.hardware import Device, peak_flops
from bertjax.pretraining import build
from bertjax.pretraining.evaluation import describe_scores
from bertjax.trainer import metrics
from bertjax.trainer.loop import non_finite_terms
from bertjax.trainer.step import TrainState
from bertjax.trainer.throughput import Clock, Speed

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class TrainingEvent:
    """What a run reports while it trains: the metrics of a logged step, or the scores of an evaluation."""

    step: int  # steps done
    total_steps: int
    metrics: Mapping[str, float]  # by name, e.g. train/loss or eval/mlm_loss


class Recorder:
    """Logs the steps of a run that continues from step `start`, and saves its checkpoints."""

    def __init__(
        self, config: Config, workdir: Path, start: int, devices: Sequence[Device], show: Callable[..., None]
    ) -> None:
        self.clock = Clock()
        self._config, self._workdir, self._start, self._show = config, workdir, start, show
        self._checkpoints = store.CheckpointWriter(workdir / "checkpoints", config.keep_last, config.keep_every)
        self._scales = build.make_objective(config).scales
        self._metrics = metrics.MetricsWriter(workdir, start)
        self._speed = Speed(self.clock, functools.partial(_work, config), start, peak_flops(devices))

    def log(self, steps: Iterable[tuple[int, dict[str, float]]]) -> list[TrainingEvent]:
        """Records finished steps, (step, metrics) in order; returns the events of those that `log_every` selects.

        Raises:
          UserError: a loss or gradient norm is not finite, or an earlier checkpoint could not be written.
        """
        events = []
        for step, values in steps:
            self._checkpoints.check()
            self._check_finite(step, values)
            self._show(step)
            if step == self._start + 1:
                self._speed.since_last(step)  # discarded: it includes compilation
            if step % self._config.log_every == 0:
                if step > self._start + 1:
                    values |= self._speed.since_last(step)
                self._metrics.write(step, values)
                self._show(step, _describe_step(values, self._scales))
                events.append(TrainingEvent(step, self._config.total_steps, values))
        return events

    def log_scores(self, step: int, scores: dict[str, float]) -> TrainingEvent:
        """Records the scores of the evaluation after `step`."""
        self._metrics.write(step, scores)
        _LOG.info(f"step {step}: {describe_scores(scores)}")
        return TrainingEvent(step, self._config.total_steps, scores)

    def save(self, step: int, state: TrainState, meta: CheckpointMeta) -> None:
        """Starts to save a checkpoint, which names the metrics written so far."""
        with self.clock.paused():
            self._metrics.sync()
            if processes.is_first():  # the only one that writes meta and metrics
                meta = dataclasses.replace(meta, metrics=metrics.file_prefix(self._workdir / "metrics.jsonl"))
            self._checkpoints.save(step, state.params, state.optimizer, meta)

    def close(self) -> None:
        """Waits for the last checkpoint and closes the files."""
        self._checkpoints.close()
        self._metrics.close()

    def _check_finite(self, step: int, values: Mapping[str, float]) -> None:
        if problem := non_finite_terms(values):
            latest = self._checkpoints.latest()
            good = "there is no checkpoint yet" if latest is None else f"the last good checkpoint is step {latest}"
            raise UserError(
                f"{problem} at step {step}; {good}; lower config.optimizer.learning_rate or raise "
                "config.optimizer.warmup_steps, in a new workdir (--workdir)"
            )


def _work(config: Config, step: int) -> tuple[int, float]:
    """Returns (token positions, model FLOPs) of a step, counted from 0."""
    phase = config.phases[config.locate(step)[0]]
    return phase.batch * phase.length, build.step_flops(config, phase)


def _describe_step(values: dict[str, float], scales: Mapping[str, float]) -> str:
    terms = {name.removeprefix("train/"): value for name, value in values.items() if name.endswith("_loss")}
    factors = {name: f"{scales[name]:g} × " if scales.get(name, 1) != 1 else "" for name in terms}
    text = f"loss {values['train/loss']:.3f}"
    if len(terms) > 1:
        text += f" ({', '.join(f'{factors[name]}{name} {value:.3f}' for name, value in terms.items())})"
    if "perf/tokens_per_second" not in values:
        return text
    text += f", {values['perf/tokens_per_second']:,.0f} tokens/s"
    text += f", {values['perf/model_flops_per_second'] / 1e9:,.0f} GFLOP/s"
    if "perf/mfu" in values:
        text += f" (MFU {values['perf/mfu']:.1%})"
    return text + f", waiting for input {values['perf/input_wait']:.1%}"
