"""Scores a checkpoint without training: a pre-trained one on held-out text, a fine-tuned one on its task.

python -m bertjax.evaluate --checkpoint=DIR [--corpus=DIR] [--length=128] [--batch=32]
python -m bertjax.evaluate --checkpoint=DIR --data_dir=DIR [--task=glue/sst2] [--output=DIR] [--length=128] [--batch=32]

Prints one JSON object. Of a pre-trained model: masked-LM loss (nats), perplexity and accuracy, next-sentence accuracy,
and the unigram entropy that word counts alone reach. Of a fine-tuned one: the task's official scores on each split, in
per cent; --output is where its predictions go, and files to submit. Of the user's own files --dev names the one to
score, and --text, --second, --negative and --label its columns, where they are not those of the training.
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

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "A workdir, one of its checkpoints, or a Hugging Face folder.")
_CORPUS = flags.DEFINE_string("corpus", None, "A prepared corpus; by default the one that the run was trained on.")
_LENGTH = flags.DEFINE_integer("length", None, "Tokens a sequence; by default as the model was trained.", lower_bound=8)
_BATCH = flags.DEFINE_integer("batch", 32, "Sequences a step.", lower_bound=1)
_TASK = flags.DEFINE_string("task", "", "A task of the kind that the model is fine-tuned for; by default that one.")
_DATA_DIR = flags.DEFINE_string("data_dir", "", "The folder with the task's files, or tfds.")
_OUTPUT = flags.DEFINE_string("output", None, "A folder for predictions of dev and test splits.")
_DEV = flags.DEFINE_string("dev", "", "Tasks table/…: the file to score.")
_COLUMNS = {  # as bertjax.tasks.table.Table describes them
    name: flags.DEFINE_string(name, None, f"Tasks table/…: the column of the {what}; by default as in training.")
    for name, what in {
        "text": "text",
        "second": "second text",
        "negative": "text that is not to be found (retrieval)",
        "label": "label",
    }.items()
}


def main(args: list[str]) -> None:
    """Restores the checkpoint, scores it and prints the scores."""
    from bertjax.storage.files import check_room, local_path

    cli.keep_memory()
    if args or _CHECKPOINT.value is None:
        raise UserError("usage: python -m bertjax.evaluate --checkpoint=DIR [--corpus=DIR | --data_dir=DIR]")
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
        raise UserError(f"{model.path} does not say what it was trained on; give --corpus=DIR")
    length = _LENGTH.value or model.config.phases[-1].length
    scores = evaluation.score(model, corpus, length, _BATCH.value)
    _LOG.info(f"step {model.step} of {model.path}: {evaluation.describe_scores(scores)}")
    print(json.dumps({"checkpoint": str(model.path), "step": model.step} | scores))


def _score_finetuned(model: "Pretrained", output: Path | None) -> None:
    from bertjax.config.finetuning import FinetuneConfig, Table
    from bertjax.finetuning import evaluation
    from bertjax.storage.files import writing
    from bertjax.text.text_counts import log_counts

    columns = {name: flag.value for name, flag in _COLUMNS.items() if flag.value is not None}
    table = Table(dev=_DEV.value, **(model.task.columns if model.task else {}) | columns)
    config = FinetuneConfig(task=_TASK.value, data_dir=_DATA_DIR.value, table=table, batch=_BATCH.value)
    task_model = evaluation.open_scoring(model, config, _LENGTH.value)
    splits = [task_model.split(name) for name in task_model.task.dev]
    limit = task_model.task.kind.length_limit
    remedy = "raise --length, or shorten the texts" if limit == "length" else "shorten the questions"
    log_counts(_LOG, "dev", task_model.counts(splits), remedy)
    with writing(output) if output else contextlib.nullcontext():
        scores = evaluation.predict_all(task_model, model.params, splits, output, model.task.threshold)
    print(json.dumps({"checkpoint": str(model.path), "task": task_model.task.name} | scores))


if __name__ == "__main__":
    cli.run(main)
