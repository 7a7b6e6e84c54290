"""Scores a checkpoint without training: a pre-trained one on held-out text, a fine-tuned one on its task.

python -m bertjax.evaluate --checkpoint=DIR [--corpus=DIR] [--length=128] [--batch=32]
python -m bertjax.evaluate --checkpoint=DIR --data_dir=DIR [--task=glue/sst2] [--output=DIR] [--length=128] [--batch=32]

Prints one JSON object. Of a pre-trained model: masked-LM loss (nats), perplexity and accuracy, next-sentence accuracy,
and the unigram entropy that word counts alone reach. Of a fine-tuned one: the task's official scores on each split, in
per cent; --output is where its predictions go, and files to submit. The user's own files are named by --dev, --text,
--second, --negative and --label.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from bertjax import command
from bertjax.errors import UserError

if TYPE_CHECKING:
    from bertjax.pretrained import Pretrained

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "A workdir, one of its checkpoints, or a Hugging Face folder.")
_CORPUS = flags.DEFINE_string("corpus", None, "A prepared corpus; by default the one that the run was trained on.")
_LENGTH = flags.DEFINE_integer("length", None, "Tokens a sequence; by default as the model was trained.", lower_bound=8)
_BATCH = flags.DEFINE_integer("batch", 32, "Sequences a step.", lower_bound=1)
_TASK = flags.DEFINE_string("task", "", "A task of the kind that the model is fine-tuned for; by default that one.")
_DATA_DIR = flags.DEFINE_string("data_dir", "", "The folder with the task's files, or tfds.")
_OUTPUT = flags.DEFINE_string("output", None, "A folder for predictions of dev and test splits.")
_DEV = flags.DEFINE_string("dev", "", "Tasks table/…: the file to score.")
_TEXT = flags.DEFINE_string("text", "text", "Tasks table/…: the column of the text.")
_SECOND = flags.DEFINE_string("second", "", "Tasks table/…: the column of the second text, if there is one.")
_NEGATIVE = flags.DEFINE_string("negative", "", "table/retrieval: the column of a text that is not to be found.")
_LABEL = flags.DEFINE_string("label", "label", "Tasks table/…: the column of the label.")


def main(args: list[str]) -> None:
    """Restores the checkpoint, scores it and prints the scores."""
    command.keep_memory()
    if args or _CHECKPOINT.value is None:
        raise UserError("usage: python -m bertjax.evaluate --checkpoint=DIR [--corpus=DIR | --data_dir=DIR]")
    from bertjax import pretrained

    model = pretrained.load(_CHECKPOINT.value, command.say)
    if model.task is None and not _TASK.value:
        _score_pretrained(model)
    else:
        _score_finetuned(model)


def _score_pretrained(model: "Pretrained") -> None:
    from bertjax import held_out

    corpus = _CORPUS.value or model.config.corpus
    if not corpus:
        raise UserError(f"{model.path} does not say what it was trained on; give --corpus=DIR")
    length = _LENGTH.value or model.config.phases[-1].length
    scores = held_out.score(model, corpus, length, _BATCH.value, command.say)
    command.say(f"step {model.step} of {model.path}: {held_out.describe_scores(scores)}")
    print(json.dumps({"checkpoint": str(model.path), "step": model.step} | scores))


def _score_finetuned(model: "Pretrained") -> None:
    import jax

    from bertjax import sharding
    from bertjax.finetuning import scoring
    from bertjax.finetuning.config import FinetuneConfig
    from bertjax.tasks.table import Table

    table = Table(dev=_DEV.value, text=_TEXT.value, second=_SECOND.value, negative=_NEGATIVE.value, label=_LABEL.value)
    config = FinetuneConfig(task=_TASK.value, data_dir=_DATA_DIR.value, table=table, batch=_BATCH.value)
    setup = scoring.open_scoring(model, config, _LENGTH.value, command.say)
    splits = [setup.split(name) for name in setup.task.dev]
    if _OUTPUT.value:
        threshold = (model.task or {}).get("threshold")
        scores = scoring.predict_all(setup, model.params, splits, Path(_OUTPUT.value), command.say, threshold)
    else:
        params = jax.device_put(model.params, sharding.of_state(model.params, setup.mesh))
        scores = {split.name: setup.scores(split, setup.predictions(params, split)) for split in splits}
    print(json.dumps({"checkpoint": str(model.path), "task": setup.task.name} | scores))


if __name__ == "__main__":
    command.run(main)
