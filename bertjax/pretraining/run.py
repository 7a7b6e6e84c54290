"""Pre-training: `train` runs a config in a workdir, or continues it, to its last step."""

import contextlib
import dataclasses
import functools
import itertools
import json
import logging
from collections.abc import Generator
from pathlib import Path

from jax.sharding import Mesh

from bertjax.arrays.trees import tree_bytes
from bertjax.arrays.types import Batch, Params
from bertjax.checkpoints import store
from bertjax.checkpoints.meta import CheckpointMeta, StoredTokenizer
from bertjax.checkpoints.pretrained import Pretrained
from bertjax.config.model import ModelConfig
from bertjax.config.parse import to_dict
from bertjax.config.pretraining import Config
from bertjax.corpus.format import Corpus
from bertjax.data.pipeline import BatchSource
from bertjax.decoding import FilePrefix
from bertjax.errors import UserError
from bertjax.parallel import processes
from bertjax.parallel.mesh import local_rows, make_mesh
from bertjax.pretraining import build, distillation
from bertjax.pretraining.evaluation import HeldOut, open_held_out
from bertjax.pretraining.recorder import Recorder, TrainingEvent
from bertjax.storage.files import check_room, exclusive_lock, write_text
from bertjax.text.tokenizer import Tokenizer
from bertjax.trainer import metrics, profiler
from bertjax.trainer.loop import StopSignal, training_steps
from bertjax.trainer.plots import draw_curves
from bertjax.trainer.progress import progress_bar
from bertjax.trainer.step import (
    Metrics,
    TrainState,
    TrainStep,
    abstract_state,
    initial_state,
    make_init,
    make_train_step,
)

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class _Run:
    """The parts of a run, without its state."""

    config: Config  # with the vocabulary size resolved
    workdir: Path
    corpus: Corpus
    tokenizer: Tokenizer
    source: BatchSource
    mesh: Mesh
    held_out: HeldOut
    teacher: Pretrained | None
    meta: CheckpointMeta  # of its checkpoints; step and checksums are set on saving


def train(config: Config, workdir: Path, show_progress: bool = False) -> None:
    """Starts or continues the run of `config` in `workdir`, until its last step or a signal.

    `show_progress` shows a progress bar instead of log lines.

    Raises:
      UserError: another process trains in `workdir`, or the run cannot be started, continued or saved.
    """
    for _ in train_events(config, workdir, show_progress):
        pass


def train_events(config: Config, workdir: Path, show_progress: bool = False) -> Generator[TrainingEvent, None, None]:
    """Trains as `train` does and yields what happens; closing the iterator early saves a checkpoint."""
    first, total = processes.is_first(), config.total_steps
    with (
        exclusive_lock(workdir, "another run is active here", "workdir (--workdir)")
        if first
        else contextlib.nullcontext()
    ):
        run = _open_run(config, workdir)
        state, metrics_prefix = _restore_or_init(run)
        start = int(state.step)
        if first:
            if start < total:
                check_room(workdir, "workdir (--workdir)", tree_bytes([state.params, state.optimizer]), "a checkpoint")
            if metrics_prefix:
                metrics.truncate(workdir / "metrics.jsonl", metrics_prefix)
            _write_workdir(run)
        if start >= total:
            _LOG.info(f"{workdir} is at step {start} of {total}; add steps to config.phases to train further")
            done = total
        else:
            done = yield from _run_steps(run, state, start, show_progress and first)
        if done < total:
            _LOG.info(f"stopped at step {done} of {total}, saved in {workdir}/checkpoints; the same command continues")
        if first:
            draw_curves(workdir)
            if done >= total:
                _log_outputs(workdir)


def _open_run(config: Config, workdir: Path) -> _Run:
    extensions = build.find_extensions(config)
    config, corpus, tokenizer, vocabulary, source = build.open_training_data(config)
    mesh = make_mesh(config.mesh)
    build.check_mesh(config, mesh)
    for phase in config.phases:
        build.attention_impl(config, phase, mesh)
    held_out = open_held_out(config, mesh, vocabulary, corpus)
    teacher = distillation.load_teacher(config, tokenizer) if config.distillation.teacher else None
    stored = StoredTokenizer(tokenizer.hash(), store.tokenizer_files(corpus.directory / "tokenizer"))
    teacher_fingerprint = distillation.fingerprint(teacher) if teacher else ""
    meta = CheckpointMeta(config, stored, corpus.fingerprint, teacher_fingerprint, extensions=extensions)
    return _Run(config, workdir, corpus, tokenizer, source, mesh, held_out, teacher, meta)


def _restore_or_init(run: _Run) -> tuple[TrainState, FilePrefix | None]:
    """Returns the state of the last checkpoint and its prefix of metrics.jsonl, or the initial state and None."""
    config, objective = run.config, build.make_objective(run.config)
    optimizer, _ = build.make_optimizer(config)
    batch = build.abstract_batch(config, config.phases[0])
    initial = initial_state(objective, optimizer, batch, config.seed)
    abstract = abstract_state(initial, run.mesh)
    if restored := build.restore_run(run.workdir, run.corpus, run.meta, abstract):
        state, saved = restored
        return state, saved.metrics
    state = make_init(initial, run.mesh)()
    if config.init_from:
        state = build.load_initial_params(config, state, run.tokenizer)
    if run.teacher and config.distillation.initialize:
        params = distillation.init_student(run.teacher, config.model, state.params)
        state = dataclasses.replace(state, params=params)
    return state, None


def _run_steps(run: _Run, state: TrainState, start: int, show_bar: bool) -> Generator[TrainingEvent, None, int]:
    """Trains from step `start` to the last step or until a signal; returns the final step, which is saved."""
    config, total = run.config, run.config.total_steps
    _log_start(run, state.params, start)
    with progress_bar(total, start, show_bar) as show, StopSignal() as stop:
        recorder = Recorder(config, run.workdir, start, list(run.mesh.devices.flat), show)
        rows = functools.partial(local_rows, run.mesh)
        batches = run.source.iterate(start, total, rows=rows, threads=config.reader_threads)
        batches = recorder.clock.waiting(batches)
        compiled = _compile_step(run, start)
        with profiler.trace_steps(compiled, config.profile_steps, start, run.workdir / "profile") as train_step:
            steps = training_steps(train_step, state, batches, run.mesh, start)
            for step, state, pending in steps:
                events = recorder.log(pending.earlier())
                if step == total or (config.eval_every and step % config.eval_every == 0):
                    events += recorder.log(pending.all())
                    with recorder.clock.paused():
                        scores = run.held_out.scores(state.params, config.phases[config.locate(step - 1)[0]])
                        events.append(recorder.log_scores(step, scores))
                stopping = stop.due(step)
                saving = stopping or step == total or step % config.checkpoint_every == 0
                if saving:
                    events += recorder.log(pending.all())
                    recorder.save(step, state, run.meta)
                try:
                    with recorder.clock.paused():  # the caller's code
                        yield from events
                except GeneratorExit:  # the caller left its loop: stop as after a signal
                    stopping = True
                    if not saving:
                        recorder.log(pending.all())
                        recorder.save(step, state, run.meta)
                if stopping:
                    break
        recorder.close()  # within StopSignal: a signal must not end the process before the last save has finished
    return step


def _compile_step(run: _Run, start: int) -> TrainStep:
    """Returns the train step, whose first call is step `start`, counted from 0, and whose calls follow in order.

    It is compiled once per different model config among the phases.
    """
    forward, *teacher_params = (
        distillation.teacher_forward(run.teacher, run.config, run.mesh) if run.teacher else (None,)
    )
    optimizer, schedule = build.make_optimizer(run.config)
    accumulation = run.config.layout.accumulation
    configs = [run.config.for_phase(phase) for phase in run.config.phases]
    compiled: dict[ModelConfig, TrainStep] = {}
    for config in configs:
        objective = dataclasses.replace(build.make_objective(config), teacher_forward=forward)
        compiled[config.model] = make_train_step(objective, optimizer, schedule, run.mesh, config.seed, accumulation)
    numbers = itertools.count(start)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        phase, _ = run.config.locate(next(numbers))
        return compiled[configs[phase].model](state, batch, *teacher_params)

    return step


def _log_start(run: _Run, params: Params, start: int) -> None:
    config, corpus = run.config, run.corpus
    tokens = sum(phase.steps * phase.batch * phase.length for phase in config.phases)
    _LOG.info(
        f"{'continuing at' if start else 'starting at'} step {start} of {config.total_steps}: "
        f"{build.count_parameters(config.model, params):,} parameters, "
        f"{tokens:,} token positions on a corpus of {corpus.tokens:,} tokens (about {tokens / corpus.tokens:.1f} "
        f"epochs); padding {run.source.padding_share(*config.locate(start)):.1%}"
    )
    if config.optimizer.warmup_steps >= config.total_steps:
        _LOG.info(
            f"config.optimizer.warmup_steps is {config.optimizer.warmup_steps}, but the run has {config.total_steps} "
            "steps, so that the learning rate rises until the end; lower it, or add steps to config.phases"
        )


def _write_workdir(run: _Run) -> None:
    workdir = run.workdir
    try:
        write_text(workdir / "config.json", json.dumps(to_dict(run.config), indent=2) + "\n")
        (workdir / "tokenizer").mkdir(exist_ok=True)
        store.write_tokenizer(run.meta.tokenizer.files, workdir / "tokenizer")
    except OSError as error:
        raise UserError(
            f"{workdir}: cannot be written to ({error.strerror}); choose another workdir (--workdir)"
        ) from error


def _log_outputs(workdir: Path) -> None:
    _LOG.info(f"wrote {workdir}/metrics.jsonl, perf.jsonl, checkpoints/ and curves.png")
    _LOG.info(f'next: python -m bertjax.predict fill-mask --checkpoint={workdir} "This is a [MASK]."')
