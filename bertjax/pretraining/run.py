"""A pre-training from beginning to end: `train` brings a config's run in a workdir to its last step."""

import contextlib
import dataclasses
import functools
import json
import logging
import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertjax.errors import UserError
from bertjax.storage.files import claimed, write_text
from bertjax.trainer.progress import Progress

_LOG = logging.getLogger(__name__)

if TYPE_CHECKING:
    from bertjax.checkpoints.store import CheckpointWriter
    from bertjax.config.pretraining import Config


def train(config: "Config", workdir: Path, show_progress: bool = False) -> None:
    """Runs or continues the run of `config` in `workdir`, to its last step or until it is told to stop.

    `show_progress` draws a progress bar instead of logging lines.

    Raises:
      UserError: another process trains there, or the run cannot be begun, continued or saved.
    """
    from bertjax.parallel import processes

    first = processes.is_first()
    with claimed(workdir, "another process trains here", "--workdir") if first else contextlib.nullcontext():
        _train(config, workdir, first, show_progress)


def _train(config: "Config", workdir: Path, first: bool, show_progress: bool) -> None:
    from bertjax.checkpoints.store import CheckpointWriter
    from bertjax.corpus import staging
    from bertjax.corpus.format import Corpus
    from bertjax.data.pipeline import BatchSource
    from bertjax.data.token_info import Vocabulary
    from bertjax.parallel.hardware import peak_flops
    from bertjax.parallel.mesh import local_rows, make_mesh
    from bertjax.pretraining import build, distillation
    from bertjax.pretraining.evaluation import describe_scores, open_held_out
    from bertjax.text.tokenizer import load_tokenizer
    from bertjax.trainer import loop, metrics, profiler
    from bertjax.trainer.throughput import Clock, Speed

    # -- corpus and tokenizer
    corpus = Corpus.open(staging.local(config.corpus), split="train")
    tokenizer = load_tokenizer(corpus.directory / "tokenizer")
    remedy = "put the one back that it was made with, or prepare the corpus again"
    build.check_tokenizer(corpus, tokenizer, corpus.directory / "tokenizer", remedy)
    config = build.with_vocabulary(config, tokenizer, corpus.directory)
    vocabulary = Vocabulary.of(tokenizer)
    source = BatchSource(corpus, vocabulary, config)

    # -- mesh, model, optimizer
    mesh = make_mesh(config.mesh)
    build.check_mesh(config, mesh)
    for phase in config.phases:
        build.attention_impl(config, phase, mesh)
    evaluation = open_held_out(config, mesh, vocabulary, corpus)
    objective = build.make_objective(config)
    teacher = distillation.open_teacher(config, tokenizer) if config.distillation.teacher else None
    taught_by = distillation.fingerprint(teacher) if teacher else ""
    optimizer, schedule = build.make_optimizer(config)

    # -- state: where the run stood, or a new one
    batch = build.abstract_batch(config, config.phases[0])
    abstract = loop.abstract_state(objective, optimizer, batch, mesh)
    state = build.restore_run(config, workdir, corpus, taught_by, abstract)
    if state is None:
        state = loop.init_state(objective, optimizer, batch, mesh, config.seed)
        if config.init_from:
            state = build.with_params_of(config, state, tokenizer)
        if teacher and config.distillation.initialize:
            params = distillation.start(teacher, config.model, state.params)
            state = dataclasses.replace(state, params=params)
    start, total = int(state.step), config.total_steps
    if first:
        _write_workdir(config, workdir, corpus.directory / "tokenizer")
    if start >= total:
        _LOG.info(f"{workdir} is at step {start} of {total}; for more steps raise config.phases")
        if first:
            _finish(workdir)
        return

    # -- the loop
    meta = build.checkpoint_meta(config, corpus, tokenizer, taught_by)
    checkpoints = CheckpointWriter(workdir / "checkpoints", config.keep_last, config.keep_every)
    writer = metrics.MetricsWriter(workdir, start) if first else metrics.NoWriter()
    clock = Clock()
    _LOG.info(_describe(config, corpus, source, state.params, start))
    if config.optimizer.warmup_steps >= total:
        _LOG.info(
            f"the learning rate still rises at the last step, as config.optimizer.warmup_steps is "
            f"{config.optimizer.warmup_steps} and the run has {total}: lower that, or add steps to config.phases"
        )
    with Progress(total, start, show_progress and first) as progress, loop.StopSignal() as stop:
        speed = Speed(config, clock, start, peak_flops(mesh.devices.flatten()))

        def on_metrics(step: int, values: dict[str, float]) -> None:
            checkpoints.check()
            _refuse_not_finite(step, values, checkpoints)
            progress.step(step)
            if step == start + 1:
                speed.since_last(step)  # its time is the compiler's
            if step % config.log_every == 0:
                values = values | (speed.since_last(step) if step > start + 1 else {})
                writer.write(step, values)
                progress.report(step, _describe_step(values))

        def on_evaluation(step: int, state: loop.TrainState) -> None:
            phase = config.phases[config.locate(step - 1)[0]]
            scores = evaluation.scores(state.params, phase)
            writer.write(step, scores)
            _LOG.info(f"step {step}: {describe_scores(scores)}")

        def on_checkpoint(step: int, state: loop.TrainState) -> None:
            writer.sync()
            checkpoints.save(step, state.params, state.optimizer, meta)

        hooks = loop.Hooks(
            on_metrics=on_metrics,
            evaluation_due=lambda step: step == total or bool(config.eval_every and step % config.eval_every == 0),
            on_evaluation=on_evaluation,
            checkpoint_due=lambda step: step == total or step % config.checkpoint_every == 0,
            on_checkpoint=on_checkpoint,
        )
        read = distillation.reader(teacher, config, mesh) if teacher else None
        train_step = build.make_train_step(config, optimizer, schedule, mesh, start, read)
        rows = functools.partial(local_rows, mesh)
        batches = source.iterate(start, total, rows=rows, threads=config.reader_threads)
        profile = profiler.traced(train_step, config.profile_steps, start, workdir / "profile")
        with profile as train_step:
            done, _ = loop.fit(state, batches, train_step, mesh, hooks, stop, clock, start)
        checkpoints.close()  # here, so that no signal ends the process before the last save is whole
        writer.close()
    if done < total:
        _LOG.info(f"stopped at step {done} of {total}, saved in {workdir}/checkpoints; the same command continues")
        return
    if first:
        _finish(workdir)


def _refuse_not_finite(step: int, values: dict[str, float], checkpoints: "CheckpointWriter") -> None:
    for name in ("train/loss", "train/grad_norm"):
        if not math.isfinite(values[name]):
            latest = checkpoints.latest()
            good = "there is no checkpoint yet" if latest is None else f"the last good checkpoint is step {latest}"
            raise UserError(
                f"{name} is {values[name]} at step {step}; {good}; "
                "lower config.optimizer.learning_rate or lengthen warmup_steps, in a new --workdir"
            )


def _describe(config: "Config", corpus: Any, source: Any, params: Any, start: int) -> str:
    from bertjax.pretraining import build

    tokens = sum(phase.steps * phase.batch * phase.length for phase in config.phases)
    return (
        f"{'continuing at' if start else 'starting at'} step {start} of {config.total_steps}: "
        f"{build.count_parameters(config.model, params):,} parameters, "
        f"{tokens:,} token positions of a corpus of {corpus.tokens:,} tokens (about {tokens / corpus.tokens:.1f} "
        f"epochs); padding {source.padding_share(*config.locate(start)):.1%}"
    )


def _describe_step(values: dict[str, float]) -> str:
    text = f"loss {values['train/loss']:.3f}"
    if "perf/tokens_per_second" not in values:
        return text
    text += f", {values['perf/tokens_per_second']:,.0f} tokens/s"
    text += f", {values['perf/model_flops_per_second'] / 1e9:,.0f} GFLOP/s"
    if "perf/mfu" in values:
        text += f" (MFU {values['perf/mfu']:.1%})"
    return text + f", waiting for input {values['perf/input_wait']:.1%}"


def _write_workdir(config: "Config", workdir: Path, tokenizer: Path) -> None:
    from bertjax.config.parse import to_dict

    try:
        write_text(workdir / "config.json", json.dumps(to_dict(config), indent=2) + "\n")
        (workdir / "tokenizer").mkdir(exist_ok=True)
        for path in tokenizer.iterdir():
            shutil.copyfile(path, workdir / "tokenizer" / path.name)
    except OSError as error:
        raise UserError(f"cannot write to {workdir}: {error.strerror}; choose another --workdir") from error


def _finish(workdir: Path) -> None:
    from bertjax.trainer.plots import draw

    draw(workdir)
    _LOG.info(f"wrote {workdir}/metrics.jsonl, perf.jsonl, checkpoints/ and curves.png")
    _LOG.info(f'next: python -m bertjax.predict fill-mask --checkpoint={workdir} "The [MASK] of the list is returned."')
