"""From a model's scores to predictions, as `bertjax.tasks.task` defines them for each kind."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bertjax.finetuning.inputs import Limits, Row
from bertjax.tasks.task import Answer

_ASKED = 1024  # texts that are compared with all others at once
_BEST = 20  # beginnings and ends of answers that are looked at in each window, and answers that are kept


@dataclass(frozen=True)
class Prediction:
    """What is predicted for an example, and how sure the model is."""

    value: Any  # as task.py says for the kind
    probabilities: Any = None  # of the classes [labels], the choices, or each word's class [words, labels]
    best: tuple[tuple[str, float], ...] = ()  # span: the likeliest answers with their probabilities; "": no answer


def predictions(
    kind: str, examples: Sequence[Any], rows: Sequence[Row], scores: Sequence[np.ndarray], limits: Limits
) -> list[Prediction]:
    """A prediction for each example.

    `scores` are the model's logits of each row: [outputs], or [length, outputs] for tagging and span.
    """
    of_example: list[list[tuple[Row, np.ndarray]]] = [[] for _ in examples]
    for row, score in zip(rows, scores, strict=True):
        of_example[row.example].append((row, np.asarray(score, np.float64)))
    decide = _DECIDERS[kind]
    return [decide(example, found, limits) for example, found in zip(examples, of_example, strict=True)]


Found = Sequence[tuple[Row, np.ndarray]]


def _class(example: Any, found: Found, limits: Limits) -> Prediction:
    (_, logits), *_ = found
    return Prediction(int(np.argmax(logits)), softmax(logits))


def _any_labels(example: Any, found: Found, limits: Limits) -> Prediction:
    (_, logits), *_ = found
    return Prediction(tuple(np.flatnonzero(logits > 0).tolist()), 1 / (1 + np.exp(-logits)))


def _number(example: Any, found: Found, limits: Limits) -> Prediction:
    return Prediction(float(found[0][1][0]))


def _choice(example: Any, found: Found, limits: Limits) -> Prediction:
    logits = np.array([score[0] for _, score in found])
    return Prediction(int(np.argmax(logits)), softmax(logits))


def _word_labels(example: Any, found: Found, limits: Limits) -> Prediction:
    logits = np.concatenate([score[list(row.places)] for row, score in found])
    return Prediction(tuple(np.argmax(logits, axis=-1).tolist()), softmax(logits))


def _span(example: Any, found: Found, limits: Limits) -> Prediction:
    """The best pairs of a first and a last token of any window, and no answer, which [CLS] stands for.

    That nothing answers is as likely as where it is least likely: one window with an answer is enough.
    """
    nothing = min(float(score[0].sum()) for _, score in found)
    candidates = sorted(
        (one for row, score in found for one in _spans(example, row, score, limits)), key=lambda one: -one[0]
    )
    texts: dict[str, float] = {}
    for score, text in candidates:
        texts.setdefault(text, score)
    texts = dict(list(texts.items())[:_BEST])
    if not texts:  # the passage has no token
        return Prediction(Answer("", 0.0), best=(("", 1.0),))
    likeliest, score = next(iter(texts.items()))
    ranked = sorted([*texts.items(), ("", nothing)], key=lambda one: -one[1])
    probabilities = softmax(np.array([score for _, score in ranked]))
    best = tuple((text, float(value)) for (text, _), value in zip(ranked, probabilities, strict=True))
    return Prediction(Answer(likeliest, nothing - score), best=best)


def _spans(example: Any, row: Row, score: np.ndarray, limits: Limits) -> list[tuple[float, str]]:
    """(score, text) of the best answers within one window."""
    start, end = score[list(row.places)].T if row.places else np.zeros((2, 0))
    owned = np.arange(*row.own)
    begins = owned[np.argsort(-start[owned], kind="stable")[:_BEST]]
    ends = np.argsort(-end, kind="stable")[:_BEST]
    found = [
        # A piece may hold the white space before its word, or nothing else, which is no answer.
        (float(start[first] + end[last]), example.passage[row.sources[first][0] : row.sources[last][1]].strip())
        for first in begins
        for last in ends
        if first <= last < first + limits.answer_length
    ]
    return [(score, text) for score, text in found if text]


def ranked(vectors: np.ndarray) -> list[Prediction]:
    """At which rank, from 1, each example's first text finds its second one among all texts that are no first ones.

    vectors: [examples, texts, hidden]. By the cosine; what is as near as the right one does not stand before it.
    """
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    vectors = vectors / np.maximum(lengths, 1e-12)
    others = vectors[:, 1:].reshape(-1, vectors.shape[-1])
    found = []
    for begin in range(0, len(vectors), _ASKED):
        scores = vectors[begin : begin + _ASKED, 0] @ others.T
        right = (begin + np.arange(len(scores))) * (vectors.shape[1] - 1)
        nearer = (scores > scores[np.arange(len(scores)), right][:, None]).sum(axis=1)
        found += [Prediction(int(rank) + 1) for rank in nearer]
    return found


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


_DECIDERS: dict[str, Callable[[Any, Found, Limits], Prediction]] = {
    "classification": _class,
    "multi_label": _any_labels,
    "regression": _number,
    "choice": _choice,
    "tagging": _word_labels,
    "span": _span,
    "similarity": _number,
    "comparison": _class,
}
