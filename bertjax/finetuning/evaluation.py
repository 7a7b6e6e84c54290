"""A fine-tuned model on the splits of its task, without training."""

import dataclasses
import functools
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax

from bertjax.checkpoints import pretrained
from bertjax.config.finetuning import FinetuneConfig, SentenceConfig
from bertjax.errors import UserError
from bertjax.finetuning import report
from bertjax.finetuning.task_model import Split, TaskModel, make_task_model
from bertjax.inference.runner import model_limits
from bertjax.interop.loading import load_model
from bertjax.model.partitioning import state_shardings
from bertjax.storage.files import write_text
from bertjax.tasks import glue, submission
from bertjax.tasks.kinds.base import Prediction
from bertjax.tasks.kinds.catalog import kind_named
from bertjax.tasks.line_formats import MissingFileError
from bertjax.tasks.metadata import SentenceMetadata
from bertjax.tasks.registry import open_task
from bertjax.tasks.squad_scores import score_v2

_LOG = logging.getLogger(__name__)


def open_scoring(model: pretrained.Pretrained, config: FinetuneConfig, length: int | None) -> TaskModel:
    """A fine-tuned model on data.

    Of `config` count the task, by default the one that the model was fine-tuned for, the data, the batch and the
    machine. `length`: tokens a row, by default as the model was fine-tuned, else all that it reads.

    Raises:
      UserError: the model is not fine-tuned, or for another kind of task or other labels.
    """
    if model.task is None:
        raise UserError(f"{model.path} is not fine-tuned; use python -m bertjax.finetune first")
    name = config.task or model.task.name
    if not name:
        raise UserError(f"{model.path} does not say which task it is for; give --task")
    opened = open_task(name, config.data_dir, config.table, labels=model.task.labels or None)
    kind, told = kind_named(model.task.kind), model.task.sentence or SentenceMetadata()
    if opened.kind.name != (kind.data_kind or kind.name):
        raise UserError(f"{model.path} is fine-tuned for {kind.name}, but {name} is {opened.kind.name}")
    if model.task.threshold is not None:  # not one that is tuned on the data to score
        opened = dataclasses.replace(opened, score=functools.partial(score_v2, threshold=model.task.threshold))
    limits = dataclasses.asdict(model_limits(model))
    limits["length"] = length or limits["length"]
    sentence = SentenceConfig(kind.bi_encoder, told.pooling, told.normalize, lowest=told.lowest, highest=told.highest)
    config = dataclasses.replace(config, features=model.task.features, sentence=sentence, **limits)
    return make_task_model(config, opened, model.config.model, model.tokenizer)


def predict_all(
    task_model: TaskModel,
    params: Any,
    dev: Sequence[Split],
    output: Path | None,
    threshold: float | None = None,
    predicted: Mapping[str, Sequence[Prediction]] = MappingProxyType({}),
) -> dict[str, dict[str, float]]:
    """Predicts the dev splits, and the test splits whose files are there; the scores of the former.

    Into `output` go predictions/, for classifications confusion-SPLIT.png, for GLUE submission/; without it only the
    dev splits are predicted. `threshold`: of no answer to a question, by default the best one of the split.
    `predicted`: predictions of dev splits that are there already.

    Raises:
      UserError: scores that are not finite.
    """
    task = task_model.task
    params = jax.device_put(params, state_shardings(params, task_model.mesh))
    scores = {}
    for split in dev:
        found = predicted.get(split.name) or task_model.predictions(params, split)
        scores[split.name] = task_model.scores(split, found)
        if output is None:
            continue
        above = scores[split.name].get("best_f1_thresh", math.inf) if threshold is None else threshold
        report.write_predictions(task, split, found, output / "predictions", above)
        if task.kind.confusion_matrix:
            report.draw_confusion(task, split, found, output / f"confusion-{split.name}.png")
    for name in task.test if output else ():
        try:
            split = task_model.split(name)
        except MissingFileError as error:
            _LOG.info(f"no predictions of {name}: {error}")
            continue
        found = task_model.predictions(params, split)
        report.write_predictions(task, split, found, output / "predictions", math.inf)
        if (task.name, name) in glue.COLUMNS:
            values = [prediction.value for prediction in found]
            submission.write(task, name, split.examples, values, output / "submission")
    return scores


def predict_diagnostics(mnli: Path, config: FinetuneConfig, workdir: Path) -> None:
    """Predicts GLUE's diagnostic examples (AX) with the model that was fine-tuned on MNLI."""
    model = load_model(mnli)
    task_model = open_scoring(model, dataclasses.replace(config, task="glue/ax"), None)
    predict_all(task_model, model.params, [], workdir)


def gather_submissions(workdir: Path) -> None:
    """Copies the submission files of all tasks' folders into the one of `workdir`."""
    (workdir / "submission").mkdir(exist_ok=True)
    for path in sorted(workdir.glob("*/submission/*.tsv")):
        write_text(workdir / "submission" / path.name, path.read_text(encoding="utf-8"))
