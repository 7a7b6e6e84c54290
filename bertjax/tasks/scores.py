"""Scores in percent, as scikit-learn, scipy and seqeval define them.

The functions take the right values and the predicted ones in the same order, and return scores by name.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np

from bertjax.errors import UserError
from bertjax.tasks.examples import ChoiceExample, Example, TextExample, WordsExample

T = TypeVar("T")
RightT = TypeVar("RightT")
PredictedT = TypeVar("PredictedT")

_ZERO: Any = 0  # value of `zero_division`, which the annotations of sklearn and seqeval restrict to "warn"

# (right values, or examples that contain them; predicted values) → scores by name
Score: TypeAlias = Callable[[Sequence[RightT], Sequence[PredictedT]], dict[str, float]]


def label_score(score: Score) -> Score[TextExample | ChoiceExample, PredictedT]:
    """Turns a score of (labels, predictions) into one of (examples, predictions), which reads the examples' `label`."""

    def scored(examples: Sequence[TextExample | ChoiceExample], predictions: Sequence[PredictedT]) -> dict[str, float]:
        return score(check_labels([example.label for example in examples], examples, predictions), predictions)

    return scored


def in_label_order(score: Score[int, int], order: Sequence[str], labels: Sequence[str]) -> Score[int, int]:
    """Adapts a score of classes numbered as in `labels` to classes numbered as in `order`; F1 depends on the class."""
    indices = [labels.index(label) for label in order]
    if indices == sorted(indices):
        return score
    return lambda right, predicted: score([indices[i] for i in right], [indices[i] for i in predicted])


def check_labels(labels: Sequence[T | None], examples: Sequence[Example], predictions: Sequence[object]) -> list[T]:
    """Returns `labels`, which belong to `examples`, if none is missing.

    Raises:
      UserError: an example has no label.
      ValueError: the numbers of examples and predictions differ.
    """
    if len(examples) != len(predictions):
        raise ValueError(f"{len(predictions)} predictions for {len(examples)} examples")
    checked = []
    for label, example in zip(labels, examples, strict=True):
        if label is None:
            raise UserError(f"{example.where}: no label to score against; only predict this file, or add labels")
        checked.append(label)
    return checked


def ranks(examples: Sequence[object], predictions: Sequence[int]) -> dict[str, float]:
    """Mean reciprocal rank, and recall at 1, 5 and 10; the predictions are the ranks of the right texts, from 1."""
    values = np.asarray(predictions, np.float64)
    recalls = {f"recall@{k}": 100.0 * float(np.mean(values <= k)) for k in (1, 5, 10)}
    return {"mrr": 100.0 * float(np.mean(1 / values))} | recalls


def accuracy(right: Sequence[int], predicted: Sequence[int]) -> dict[str, float]:
    """Accuracy."""
    from sklearn.metrics import accuracy_score

    return {"accuracy": 100.0 * float(accuracy_score(right, predicted))}


def matthews(right: Sequence[int], predicted: Sequence[int]) -> dict[str, float]:
    """Matthews correlation coefficient (0 for constant predictions), and accuracy."""
    from sklearn.metrics import matthews_corrcoef

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        coefficient = 100.0 * float(matthews_corrcoef(right, predicted))
    return {"matthews": coefficient} | accuracy(right, predicted)


def accuracy_and_f1(right: Sequence[int], predicted: Sequence[int]) -> dict[str, float]:
    """For two classes: accuracy, F1 of class 1, and `score`, GLUE's mean of the two."""
    from sklearn.metrics import f1_score

    f1 = 100.0 * float(f1_score(right, predicted, zero_division=_ZERO))
    scores = accuracy(right, predicted) | {"f1": f1}
    return scores | {"score": (scores["accuracy"] + f1) / 2}


def accuracy_and_macro_f1(right: Sequence[int], predicted: Sequence[int]) -> dict[str, float]:
    """Accuracy, and the mean of the classes' F1."""
    from sklearn.metrics import f1_score

    f1 = f1_score(right, predicted, average="macro", zero_division=_ZERO)
    return accuracy(right, predicted) | {"f1_macro": 100.0 * float(f1)}


def correlations(right: Sequence[float], predicted: Sequence[float]) -> dict[str, float]:
    """Pearson's and Spearman's coefficients, and `score`, their mean; NaN for constant predictions."""
    from scipy.stats import pearsonr, spearmanr

    if len(right) < 2:
        return dict.fromkeys(("pearson", "spearman", "score"), float("nan"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about constant predictions
        pearson, spearman = (100.0 * float(np.asarray(score(right, predicted)[0])) for score in (pearsonr, spearmanr))
    return {"pearson": pearson, "spearman": spearman, "score": (pearson + spearman) / 2}


def label_sets(count: int) -> Score[tuple[int, ...], tuple[int, ...]]:
    """Returns the score of label sets over `count` classes: micro and macro F1, and `accuracy` over whole sets."""

    def score(right: Sequence[tuple[int, ...]], predicted: Sequence[tuple[int, ...]]) -> dict[str, float]:
        from sklearn.metrics import f1_score
        from sklearn.preprocessing import MultiLabelBinarizer

        binarizer = MultiLabelBinarizer(classes=range(count))
        matrices = [binarizer.fit_transform(sets) for sets in (right, predicted)]
        f1 = {
            f"f1_{average}": 100.0 * float(f1_score(*matrices, average=average, zero_division=_ZERO))
            for average in ("micro", "macro")
        }
        return f1 | {"accuracy": 100.0 * float(np.mean(np.all(matrices[0] == matrices[1], axis=1)))}

    return score


def word_labels(labels: Sequence[str], entities: bool) -> Score[WordsExample, Sequence[int]]:
    """Returns the score of (examples, predictions) with a label per word.

    The scores are accuracy over words and, with `entities` (IOB2 labels), micro F1 over entities as in conlleval and
    seqeval's default mode: an I- label without a B- label before it begins an entity.
    """

    def score(examples: Sequence[WordsExample], predictions: Sequence[Sequence[int]]) -> dict[str, float]:
        right = check_labels([example.labels for example in examples], examples, predictions)
        for sentence, predicted, example in zip(right, predictions, examples, strict=True):
            if len(sentence) != len(predicted):
                raise ValueError(f"{example.where}: {len(predicted)} predictions for {len(sentence)} words")
        flat = accuracy(
            *([label for sentence in sentences for label in sentence] for sentences in (right, predictions))
        )
        return (_entities(_names(right, labels), _names(predictions, labels)) | flat) if entities else flat

    return score


def _names(sentences: Sequence[Sequence[int]], labels: Sequence[str]) -> list[list[str]]:
    return [[labels[label] for label in sentence] for sentence in sentences]


def _entities(right: list[list[str]], predicted: list[list[str]]) -> dict[str, float]:
    from seqeval.metrics.sequence_labeling import precision_recall_fscore_support

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = precision_recall_fscore_support(right, predicted, average="micro", zero_division=_ZERO)
    precision, recall, f1 = (100.0 * float(np.asarray(score)) for score in scores[:3])
    return {"f1": f1, "precision": precision, "recall": recall}
