"""Scores a checkpoint: a pre-trained one on held-out text, a fine-tuned one on its task.

python -m bertjax.evaluate --checkpoint=DIR [--corpus=DIR] [--length=128] [--batch=32]
python -m bertjax.evaluate --checkpoint=DIR --data_dir=DIR [--task=glue/sst2] [--output=DIR] [--length=128] [--batch=32]

Prints one JSON object. Pre-trained: masked-LM loss (nats per masked token), perplexity and accuracy, next-sentence
accuracy, and the entropy of a unigram model for comparison. Fine-tuned: the task's official scores on each split, in
percent; --output receives predictions and submission files. For your own files, --dev is the file to score, and
--text, --second, --negative and --label are its columns if they differ from those in training.
"""

import contextlib
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from bertjax import cli
from bertjax.errors import UserError

_LOG = logging.getLogger(__name__)

if TYPE_CHECKING:
    from bertjax.checkpoints.pretrained import Pretrained

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Workdir, one of its checkpoints, or Hugging Face folder.")
_CORPUS = flags.DEFINE_string("corpus", None, "Folder of a prepared corpus; default: the corpus of the run.")
_LENGTH = flags.DEFINE_integer("length", None, "Tokens per sequence; default: as in training.", lower_bound=8)
_BATCH = flags.DEFINE_integer("batch", 32, "Sequences per step.", lower_bound=1)
_TASK = flags.DEFINE_string(
    "task", "", "Another task of the same task kind and with the same labels; default: the model's own task."
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", "", "Folder with the files of the task, or the word `tfds` for TensorFlow Datasets."
)
_OUTPUT = flags.DEFINE_string("output", None, "Folder for the predictions of dev and test splits.")
_DEV = flags.DEFINE_string("dev", "", "File to score (tasks table/…).")
_COLUMNS = {  # of bertjax.tasks.table.Table
    name: flags.DEFINE_string(name, None, f"Column of the {content}; default: as in training.")
    for name, content in {
        "text": "text (tasks table/…)",
        "second": "second text (tasks table/…)",
        "negative": "hard negative (table/retrieval)",
        "label": "label (tasks table/…)",
    }.items()
}


def main(args: list[str]) -> None:
    """Scores the checkpoint and prints the scores."""
    from bertjax.storage.files import check_room, local_path

    if args or _CHECKPOINT.value is None:
        usage = "python -m bertjax.evaluate --checkpoint=DIR [--corpus=DIR | --data_dir=DIR]"
        raise cli.usage_error(args, {"--checkpoint": _CHECKPOINT.value}, usage)
    from bertjax.interop.loading import load_model

    output = local_path(_OUTPUT.value, "--output") if _OUTPUT.value else None
    if output:
        check_room(output, "--output")
    model = load_model(_CHECKPOINT.value)
    if model.task is None and not _TASK.value:
        _score_pretrained(model)
    else:
        _score_finetuned(model, output)


def _score_pretrained(model: "Pretrained") -> None:
    from bertjax.pretraining import evaluation

    corpus = _CORPUS.value or model.config.corpus
    if not corpus:
        raise UserError(f"{model.path}: its training corpus is unknown; give --corpus=DIR")
    length = _LENGTH.value or model.config.phases[-1].length
    scores = evaluation.score(model, corpus, length, _BATCH.value)
    _LOG.info(f"step {model.step} of {model.path}: {evaluation.describe_scores(scores)}")
    print(json.dumps({"checkpoint": str(model.path), "step": model.step} | scores))


def _score_finetuned(model: "Pretrained", output: Path | None) -> None:
    from bertjax.config.finetuning import FinetuneConfig, TableConfig
    from bertjax.finetuning import evaluation
    from bertjax.storage.files import writable_folder
    from bertjax.text.text_counts import log_counts

    columns = dict(model.task.columns) if model.task else {}
    columns |= {name: flag.value for name, flag in _COLUMNS.items() if flag.value is not None}
    table = TableConfig(dev=_DEV.value, **columns)
    config = FinetuneConfig(task=_TASK.value, data_dir=_DATA_DIR.value, table=table, batch=_BATCH.value)
    task_model = evaluation.open_scoring(model, config, _LENGTH.value)
    splits = [task_model.split(name) for name in task_model.task.dev]
    limit = task_model.task.kind.length_limit
    remedy = "raise --length, or shorten the texts" if limit == "length" else "shorten the questions"
    log_counts(_LOG, "dev", task_model.counts(splits), remedy)
    threshold = model.task.threshold if model.task else None
    with writable_folder(output) if output else contextlib.nullcontext():
        scores = evaluation.predict_all(task_model, model.params, splits, output, threshold)
    print(json.dumps({"checkpoint": str(model.path), "task": task_model.task.name} | scores))


if __name__ == "__main__":
    cli.run(main, keep_freed_memory=True)
