"""Scores in per cent, as scikit-learn, scipy and seqeval define them.

Each function takes what is right and what was predicted, in the same order, and returns scores by name.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bertjax.errors import UserError

Score = Callable[[Sequence[Any], Sequence[Any]], dict[str, float]]


def of_labels(score: Score) -> Score:
    """The same score of (examples, predictions): what is right is the examples' `label`."""

    def scored(examples: Sequence[Any], predictions: Sequence[Any]) -> dict[str, float]:
        return score(known([example.label for example in examples], examples, predictions), predictions)

    return scored


def in_order(score: Score, order: Sequence[str], labels: Sequence[str]) -> Score:
    """The same score of classes that are numbered by `order` and not by `labels`: F1 is that of a certain class."""
    places = [labels.index(label) for label in order]
    if places == sorted(places):
        return score
    return lambda gold, predicted: score([places[i] for i in gold], [places[i] for i in predicted])


def known(gold: list[Any], examples: Sequence[Any], predictions: Sequence[Any]) -> list[Any]:
    """`gold`, if there is something right for each example, and a prediction.

    Raises:
      UserError: an example has no label.
    """
    if len(examples) != len(predictions):
        raise ValueError(f"{len(predictions)} predictions of {len(examples)} examples")
    for label, example in zip(gold, examples, strict=True):
        if label is None:
            raise UserError(f"{example.where}: there is no label to score against; predict this file, or add labels")
    return gold


def ranks(examples: Sequence[Any], predictions: Sequence[int]) -> dict[str, float]:
    """Of the ranks, from 1, of the right texts: the mean of their reciprocals, and recall at 1, 5 and 10."""
    found = np.asarray(predictions, np.float64)
    recalls = {f"recall@{k}": 100.0 * float(np.mean(found <= k)) for k in (1, 5, 10)}
    return {"mrr": 100.0 * float(np.mean(1 / found))} | recalls


def accuracy(gold: Sequence[int], predicted: Sequence[int]) -> dict[str, float]:
    """How many are right."""
    from sklearn.metrics import accuracy_score

    return {"accuracy": 100.0 * float(accuracy_score(gold, predicted))}


def matthews(gold: Sequence[int], predicted: Sequence[int]) -> dict[str, float]:
    """Matthews' correlation coefficient (0 where the predictions are constant), and accuracy."""
    from sklearn.metrics import matthews_corrcoef

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        coefficient = 100.0 * float(matthews_corrcoef(gold, predicted))
    return {"matthews": coefficient} | accuracy(gold, predicted)


def accuracy_and_f1(gold: Sequence[int], predicted: Sequence[int]) -> dict[str, float]:
    """Two classes: accuracy, F1 of class 1, and `score`, GLUE's mean of the two."""
    from sklearn.metrics import f1_score

    f1 = 100.0 * float(f1_score(gold, predicted, zero_division=0))
    scores = accuracy(gold, predicted) | {"f1": f1}
    return scores | {"score": (scores["accuracy"] + f1) / 2}


def accuracy_and_macro_f1(gold: Sequence[int], predicted: Sequence[int]) -> dict[str, float]:
    """Accuracy, and the mean of the classes' F1."""
    from sklearn.metrics import f1_score

    f1 = f1_score(gold, predicted, average="macro", zero_division=0)
    return accuracy(gold, predicted) | {"f1_macro": 100.0 * float(f1)}


def correlations(gold: Sequence[float], predicted: Sequence[float]) -> dict[str, float]:
    """Pearson's and Spearman's coefficients and `score`, their mean; NaN where the predictions are constant."""
    from scipy.stats import pearsonr, spearmanr

    if len(gold) < 2:
        return dict.fromkeys(("pearson", "spearman", "score"), float("nan"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the predictions are constant
        pearson, spearman = (100.0 * float(score(gold, predicted).statistic) for score in (pearsonr, spearmanr))
    return {"pearson": pearson, "spearman": spearman, "score": (pearson + spearman) / 2}


def label_sets(count: int) -> Score:
    """Of several labels at a time, out of `count`: micro and macro F1, and `accuracy`, how many sets are right."""

    def score(gold: Sequence[tuple[int, ...]], predicted: Sequence[tuple[int, ...]]) -> dict[str, float]:
        from sklearn.metrics import f1_score
        from sklearn.preprocessing import MultiLabelBinarizer

        binarizer = MultiLabelBinarizer(classes=range(count))
        matrices = [binarizer.fit_transform(sets) for sets in (gold, predicted)]
        f1 = {
            f"f1_{average}": 100.0 * float(f1_score(*matrices, average=average, zero_division=0))
            for average in ("micro", "macro")
        }
        return f1 | {"accuracy": 100.0 * float(np.mean(np.all(matrices[0] == matrices[1], axis=1)))}

    return score


def word_labels(labels: Sequence[str], entities: bool) -> Score:
    """Of (examples, predictions) with a label a word: accuracy over words and, for IOB2, micro F1 over entities.

    Entities are those of conlleval, which is seqeval's default mode: an I- without a B- begins one.
    """

    def score(examples: Sequence[Any], predictions: Sequence[Any]) -> dict[str, float]:
        gold = known([example.labels for example in examples], examples, predictions)
        for right, predicted, example in zip(gold, predictions, examples, strict=True):
            if len(right) != len(predicted):
                raise ValueError(f"{example.where}: {len(predicted)} predictions of {len(right)} words")
        flat = accuracy(*([label for sentence in sentences for label in sentence] for sentences in (gold, predictions)))
        return (_entities(_names(gold, labels), _names(predictions, labels)) | flat) if entities else flat

    return score


def _names(sentences: Sequence[Sequence[int]], labels: Sequence[str]) -> list[list[str]]:
    return [[labels[label] for label in sentence] for sentence in sentences]


def _entities(gold: list[list[str]], predicted: list[list[str]]) -> dict[str, float]:
    from seqeval.metrics.sequence_labeling import precision_recall_fscore_support

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        precision, recall, f1, _ = precision_recall_fscore_support(gold, predicted, average="micro", zero_division=0)
    return {"f1": 100.0 * float(f1), "precision": 100.0 * float(precision), "recall": 100.0 * float(recall)}
