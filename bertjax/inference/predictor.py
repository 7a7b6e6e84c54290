"""Predictions of a model, from Python in three lines.

from bertjax.inference.predictor import load
predict = load("runs/sst2")
predict(["a fine film", "a dull film"])

A fine-tuned model predicts what its task asks. `load(…, "embed")` turns texts into vectors; a pre-trained model fills
in masks. Any number of inputs can be given at once: those of about the same length are computed together, and the
answers come in the order of the inputs.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from bertjax.checkpoints.pretrained import Pretrained
from bertjax.errors import UserError
from bertjax.inference.embedding import Embedder
from bertjax.inference.fill_mask import FillMask
from bertjax.inference.input_counts import InputCounts
from bertjax.inference.modes import MODES
from bertjax.inference.retrieval import Searcher
from bertjax.inference.runner import Options
from bertjax.inference.task_predictor import TaskPredictor
from bertjax.interop.loading import load_model
from bertjax.tasks.kinds.catalog import kind_named


class Predictor(Protocol):
    """Answers inputs.

    Attributes:
      counts: unknown tokens and truncated inputs of all calls; a share above 1 % is logged once as a warning.
    """

    counts: InputCounts

    def __call__(self, inputs: Sequence[Any], where: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """A dict an input, of what was asked and what is predicted, that `json.dumps` takes.

        Inputs are texts, dicts as the command `predict` reads them as JSON, pairs (text, second) or (question, passage)
        where the task has two texts, and lists of words for a model that tags. `where` names them in messages.

        Raises:
          UserError: an input that the model cannot read, with its place.
        """


def load(path: str | Path, mode: str = "", **options: Any) -> Predictor:
    """The predictor of the model in a folder, any that `load_model` takes.

    mode: one of MODES; by default what the model is fine-tuned for, else fill-mask. options: those of `Options`.

    Raises:
      UserError: no such model, mode or option, or the model cannot do what `mode` says.
    """
    known = [field.name for field in dataclasses.fields(Options)]
    if unknown := sorted(options.keys() - set(known)):
        raise UserError(f"{', '.join(unknown)}: no such option; there are {', '.join(known)}")
    checked = Options(**options)  # before the model is read, which takes longer
    return make(load_model(path), mode, checked)


def make(source: Pretrained, mode: str = "", options: Options | None = None) -> Predictor:
    """The same of a loaded model."""
    options = options or Options()
    own = "fill-mask" if source.task is None else kind_named(source.task.kind).predict_mode
    mode = mode or own
    if mode not in MODES:
        raise UserError(f"{mode!r} is not a mode; choose one of {', '.join(MODES)}")
    if mode not in (own, "embed", "search"):
        tuned = f"fine-tuned for {source.task.kind}" if source.task else "not fine-tuned"
        able = ", ".join(dict.fromkeys((own, "embed", "search")))
        raise UserError(f"{source.path} is {tuned}: it can {able}, but not {mode}; give another model")
    predictors = {"embed": Embedder, "search": Searcher, "fill-mask": FillMask}
    return predictors.get(mode, TaskPredictor)(source, options)
