"""Pre-training and fine-tuning runs in Python, from a config object."""

import contextlib
from collections.abc import Callable, Generator, Mapping
from pathlib import Path

from bertjax.api.data import checked_config
from bertjax.config import config_file
from bertjax.config.finetuning import FinetuneConfig
from bertjax.config.pretraining import Config
from bertjax.errors import UserError
from bertjax.finetuning import run as finetuning
from bertjax.finetuning.report import SweepResults
from bertjax.finetuning.run import FinetuningEvent
from bertjax.pretraining import run as pretraining
from bertjax.pretraining.recorder import TrainingEvent
from bertjax.storage.files import local_path
from bertjax.tasks import glue


def load_config(path: str | Path, changes: Mapping[str, object] | None = None, **settings: object):
    """Loads a config file and changes some of its settings.

    >>> config = bertjax.load_config("configs/tiny.py", {"optimizer.learning_rate": 3e-4}, corpus="data/books")
    >>> config.optimizer.learning_rate, config.corpus
    (0.0003, 'data/books')

    Args:
      path: a config file, with an argument behind a colon where it takes one: "configs/glue.py:sst2".
      changes: settings by their dotted key.
      **settings: settings at the top level.

    Returns:
      A `Config` (pre-training) or a `FinetuneConfig`, both frozen dataclasses: `dataclasses.replace` changes them too.

    Raises:
      UserError: the file cannot be loaded, a key is unknown (the error names its equivalent or the nearest key), or a
        value is out of range.
    """
    return config_file.load(str(local_path(path, "path")), {**(changes or {}), **settings})


def run_pretraining(
    config: Config, workdir: str | Path, *, callbacks: tuple[Callable[[TrainingEvent], None], ...] = ()
) -> Path:
    """Runs or continues a pre-training run, to its last step.

    Ctrl-C saves a checkpoint and returns; the same call continues from there.

    >>> config = bertjax.load_config("configs/quickstart.py", corpus="data/books")
    >>> bertjax.run_pretraining(config, "runs/books", callbacks=(lambda event: print(event.step, event.metrics),))

    Args:
      config: a pre-training config.
      workdir: the folder of the run.
      callbacks: each is called with every `TrainingEvent`: the metrics of a logged step, or the scores of an
        evaluation. An exception from a callback saves a checkpoint and ends the run.

    Returns:
      The workdir, which `bertjax.load_model` takes.

    Raises:
      UserError: the run cannot start, continue or save, or its loss is not finite.
    """
    with contextlib.closing(iter_pretraining(config, workdir)) as events:
        for event in events:
            for callback in callbacks:
                callback(event)
    return Path(workdir)


def iter_pretraining(config: Config, workdir: str | Path) -> Generator[TrainingEvent, None, None]:
    """Runs or continues a pre-training run as an iterator of events, for a loop of your own.

    Closing the iterator early saves a checkpoint; the same call continues from there. `contextlib.closing` closes it
    however the loop ends, and lets an error of that save propagate. A step is yielded when its metrics are known, up to
    two steps after it was dispatched; the steps in between are logged and saved, but not yielded. Only for runs of one
    process.

    >>> import contextlib
    >>> config = bertjax.load_config("configs/quickstart.py", corpus="data/books")
    >>> with contextlib.closing(bertjax.iter_pretraining(config, "runs/books")) as events:
    ...     for event in events:
    ...         if event.metrics.get("train/loss", 10) < 5:
    ...             break

    Args:
      config: a pre-training config.
      workdir: the folder of the run.

    Yields:
      `TrainingEvent(step, total_steps, metrics)` for every logged step and every evaluation.

    Raises:
      UserError: the run cannot start, continue or save, or its loss is not finite.
    """
    config = checked_config(config, Config, "iter_pretraining")
    return pretraining.train_events(config, local_path(workdir, "workdir").absolute())


def run_finetuning(
    config: FinetuneConfig, workdir: str | Path, *, callbacks: tuple[Callable[[FinetuningEvent], None], ...] = ()
) -> SweepResults | None:
    """Runs or continues a fine-tuning sweep; the workdir keeps the best run on the first dev split.

    >>> config = bertjax.load_config(
    ...     "configs/classify.py",
    ...     {"table.train": "train.csv", "table.dev": "dev.csv"},
    ...     init_from="runs/books",
    ...     data_dir="data/mail",
    ... )
    >>> results = bertjax.run_finetuning(config, "runs/mail")
    >>> bertjax.load_model("runs/mail").classify("You have won! Call now.")["label"]
    'spam'

    Args:
      config: a fine-tuning config.
      workdir: the folder of the sweep.
      callbacks: each is called with every `FinetuningEvent`: the metrics of a logged step, or dev scores. An exception
        from a callback ends the sweep.

    Returns:
      The contents of `results.json`: the best run and the scores of all; None if Ctrl-C stopped the sweep.

    Raises:
      UserError: bad data, a workdir of another sweep, or a loss that is not finite.
    """
    config = checked_config(config, FinetuneConfig, "run_finetuning")
    if config.task == "glue/all":
        names = ", ".join(name for name in glue.TASKS if name != "ax")
        raise UserError(f"run_finetuning: config.task is glue/all; call it once per task, glue/ and one of {names}")

    def call(event: FinetuningEvent) -> None:
        for callback in callbacks:
            callback(event)

    return finetuning.finetune(config, local_path(workdir, "workdir").absolute(), callback=call)
