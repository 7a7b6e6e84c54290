"""Predictions from Python.

from bertjax.inference.predictor import load_predictor
predict = load_predictor("runs/sst2")
predict(["a fine film", "a dull film"])

A fine-tuned model predicts the answers of its task, and a pre-trained model fills in masks;
`load_predictor(…, "embed")` embeds texts. Pass many inputs at once: inputs of similar length are computed together, and
the predictions are in the order of the inputs.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from bertjax.checkpoints.pretrained import Pretrained
from bertjax.errors import UserError
from bertjax.inference.embedding import Embedder
from bertjax.inference.fill_mask import FillMask
from bertjax.inference.input_counts import ALL_CALLS, InputCounts
from bertjax.inference.inputs import Record
from bertjax.inference.modes import MODES
from bertjax.inference.retrieval import Searcher
from bertjax.inference.runner import PredictOptions
from bertjax.inference.task_predictor import TaskPredictor
from bertjax.interop.loading import load_model
from bertjax.tasks.kinds.catalog import kind_named


class Predictor(Protocol):
    """A function from inputs to predictions.

    Attributes:
      counts: unknown tokens and truncated inputs of all calls; a share above 1 % is logged once as a warning.
    """

    counts: InputCounts

    def __call__(self, inputs: Sequence[object], where: Sequence[str] | None = None) -> list[Record]:
        """Predicts each input.

        Args:
          inputs: texts; dicts, as the JSON objects of the `predict` command; tuples (text, second) or (question,
            passage) for tasks with two texts; lists of words for tagging.
          where: the locations of the inputs, for error messages.

        Returns:
          A dict for each input, with the input and the prediction, serializable by `json.dumps`.

        Raises:
          UserError: an input is invalid.
        """
        ...


def load_predictor(path: str | Path, mode: str = "", **options: Any) -> Predictor:  # noqa: ANN401
    """Loads the model in a folder, as `load_model` does, and returns its predictor.

    Args:
      path: the folder.
      mode: one of MODES; default: that of the task for a fine-tuned model, or else fill-mask.
      **options: the fields of `PredictOptions`.

    Raises:
      UserError: the model, the mode or an option does not exist, or the model does not support the mode.
    """
    names = [field.name for field in dataclasses.fields(PredictOptions)]
    if unknown := sorted(options.keys() - set(names)):
        raise UserError(f"{', '.join(unknown)}: unknown option; choose from {', '.join(names)}")
    checked_options = PredictOptions(**options)  # before loading the model, which takes longer
    predictor = make_predictor(load_model(path), mode, checked_options)
    predictor.counts.scope = ALL_CALLS
    return predictor


def make_predictor(source: Pretrained, mode: str = "", options: PredictOptions | None = None) -> Predictor:
    """Returns the predictor of a loaded model; arguments and errors as for `load_predictor`."""
    options = options or PredictOptions()
    default = "fill-mask" if source.task is None else kind_named(source.task.kind).predict_mode
    mode = mode or default
    if mode not in MODES:
        raise UserError(f"{mode!r} is not a mode; choose from {', '.join(MODES)}")
    supported = dict.fromkeys((default, "embed", "search"))
    if mode not in supported:
        if source.lacks_masked_lm_head:
            del supported[default]
        training = f"fine-tuned for {source.task.kind}" if source.task else "not fine-tuned"
        raise UserError(
            f"{source.path}: the model is {training} and supports {', '.join(supported)}, but not {mode}; "
            "choose another mode or model"
        )
    predictors = {"embed": Embedder, "search": Searcher, "fill-mask": FillMask}
    return predictors.get(mode, TaskPredictor)(source, options)
