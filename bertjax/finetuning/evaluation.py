"""Scores and predictions of a fine-tuned model on the splits of its task."""

import dataclasses
import functools
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import jax

from bertjax.arrays.types import Params
from bertjax.checkpoints.pretrained import Pretrained
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


def open_scoring(model: Pretrained, config: FinetuneConfig, length: int | None) -> TaskModel:
    """Opens the data of a task for a fine-tuned model.

    Args:
      model: the fine-tuned model; its limits, features and labels replace those of `config`.
      config: names the task (default: the task of the model), its data, the batch size, the mesh and the layout.
      length: tokens per row; None: as the model was fine-tuned, or else as many as it can read.

    Raises:
      UserError: the model is not fine-tuned, or is fine-tuned for another kind of task or other labels.
    """
    if model.task is None:
        raise UserError(f"{model.path}: the model is not fine-tuned; run python -m bertjax.finetune first")
    name = config.task or model.task.name
    if not name:
        raise UserError(f"{model.path}: the model does not name its task; give --task")
    task = open_task(name, config.data_dir, config.table, labels=model.task.labels or None)
    kind, metadata = kind_named(model.task.kind), model.task.sentence or SentenceMetadata()
    if task.kind.name != (kind.data_kind or kind.name):
        raise UserError(
            f"{model.path}: the model is fine-tuned for {kind.name}, but {name} is {task.kind.name}; "
            "choose another model or task"
        )
    if model.task.threshold is not None:  # use the threshold of the checkpoint, not one tuned on these examples
        task = dataclasses.replace(task, score=functools.partial(score_v2, threshold=model.task.threshold))
    limits = dataclasses.asdict(model_limits(model))
    limits["length"] = length or limits["length"]
    sentence = SentenceConfig(
        kind.bi_encoder, metadata.pooling, metadata.normalize, lowest=metadata.lowest, highest=metadata.highest
    )
    config = dataclasses.replace(config, features=model.task.features, sentence=sentence, **limits)
    return make_task_model(config, task, model.config.model, model.tokenizer)


def predict_all(
    task_model: TaskModel,
    params: Params,
    dev: Sequence[Split],
    output: Path | None,
    threshold: float | None = None,
    known: Mapping[str, Sequence[Prediction]] = MappingProxyType({}),
) -> dict[str, dict[str, float]]:
    """Predicts the dev splits and those test splits whose files exist.

    Args:
      task_model: the task and the model.
      params: the parameters, on the host.
      dev: the dev splits.
      output: the folder for predictions/, for confusion-SPLIT.png of classifications, and for the submission/ of GLUE
        tasks; None: only the dev splits are predicted, and nothing is written.
      threshold: the null odds above which a question has no answer; None: the best one of each dev split.
      known: predictions of dev splits that need not be computed again.

    Returns:
      The scores of each dev split, in percent.

    Raises:
      UserError: a score is not finite.
    """
    task = task_model.task
    params = jax.device_put(params, state_shardings(params, task_model.mesh))
    scores: dict[str, dict[str, float]] = {}
    for split in dev:
        predictions = known.get(split.name) or task_model.predictions(params, split)
        scores[split.name] = task_model.scores(split, predictions)
        if output is None:
            continue
        null_odds = scores[split.name].get("best_f1_thresh", math.inf) if threshold is None else threshold
        report.write_predictions(task, split, predictions, output / "predictions", null_odds)
        if task.kind.confusion_matrix:
            report.draw_confusion(task, split, predictions, output / f"confusion-{split.name}.png")
    if output is not None:
        _predict_test(task_model, params, output)
    return scores


def _predict_test(task_model: TaskModel, params: Params, output: Path) -> None:
    """Writes the predictions of the test splits whose files exist, and the submission files of GLUE tasks."""
    task = task_model.task
    for name in task.test:
        try:
            split = task_model.split(name)
        except MissingFileError as error:
            _LOG.info(f"skipping the predictions of {name}: {error}")
            continue
        predictions = task_model.predictions(params, split)
        report.write_predictions(task, split, predictions, output / "predictions", math.inf)
        if (task.name, name) in glue.COLUMNS:
            values = [prediction.value for prediction in predictions]
            submission.write(task, name, split.examples, values, output / "submission")


def predict_diagnostics(mnli: Path, config: FinetuneConfig, workdir: Path) -> None:
    """Predicts the diagnostic examples of GLUE (AX) with the model that was fine-tuned on MNLI."""
    model = load_model(mnli)
    task_model = open_scoring(model, dataclasses.replace(config, task="glue/ax"), None)
    predict_all(task_model, model.params, [], workdir)


def collect_submissions(workdir: Path) -> None:
    """Copies the submission files of all task folders into the submission/ of `workdir`."""
    (workdir / "submission").mkdir(exist_ok=True)
    for path in sorted(workdir.glob("*/submission/*.tsv")):
        write_text(workdir / "submission" / path.name, path.read_text(encoding="utf-8"))
