"""From a model's scores to predictions, as `bertjax.tasks.examples` defines them for each kind."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bertjax.tasks.examples import Answer, ChoiceExample
from bertjax.tasks.inputs import Row
from bertjax.tasks.metadata import TokenLimits

_ASKED = 1024  # texts that are compared with all others at once
_BEST = 20  # answers that are kept
_LOOKED_AT = 100  # stretches of each window, of which several may be the same text


@dataclass(frozen=True)
class Prediction:
    """What is predicted for an example, and how sure the model is."""

    value: Any  # as task.py says for the kind
    probabilities: Any = None  # of the classes [labels], the choices, or each word's class [words, labels]
    best: tuple[tuple[str, float], ...] = ()  # span: the likeliest answers with their probabilities; "": no answer


def predictions(
    kind: str, examples: Sequence[Any], rows: Sequence[Row], scores: Sequence[np.ndarray], limits: TokenLimits
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


def _class(example: Any, found: Found, limits: TokenLimits) -> Prediction:
    (_, logits), *_ = found
    return Prediction(int(np.argmax(logits)), softmax(logits))


def _any_labels(example: Any, found: Found, limits: TokenLimits) -> Prediction:
    (_, logits), *_ = found
    return Prediction(tuple(np.flatnonzero(logits > 0).tolist()), 1 / (1 + np.exp(-logits)))


def _number(example: Any, found: Found, limits: TokenLimits) -> Prediction:
    return Prediction(float(found[0][1][0]))


def _choice(example: Any, found: Found, limits: TokenLimits) -> Prediction:
    logits = np.array([score[0] for _, score in found])
    return Prediction(int(np.argmax(logits)), softmax(logits))


def _word_labels(example: Any, found: Found, limits: TokenLimits) -> Prediction:
    logits = np.concatenate([score[list(row.places)] for row, score in found])
    return Prediction(tuple(np.argmax(logits, axis=-1).tolist()), softmax(logits))


def _span(example: Any, found: Found, limits: TokenLimits) -> Prediction:
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


def _spans(example: Any, row: Row, score: np.ndarray, limits: TokenLimits) -> list[tuple[float, str]]:
    """(score, text) of the best answers within one window."""
    start, end = score[list(row.places)].T if row.places else np.zeros((2, 0))
    begin, stop = row.own
    firsts, more = np.indices((stop - begin, limits.answer_length)).reshape(2, -1)
    firsts = firsts + begin
    lasts = firsts + more
    firsts, lasts = firsts[lasts < len(end)], lasts[lasts < len(end)]
    sums = start[firsts] + end[lasts]
    found = [
        # A piece may hold the white space before its word, or nothing else, which is no answer.
        (float(sums[i]), example.passage[row.sources[firsts[i]][0] : row.sources[lasts[i]][1]].strip())
        for i in np.argsort(-sums, kind="stable")[:_LOOKED_AT]
    ]
    return [(score, text) for score, text in found if text]


def ranked(vectors: np.ndarray, examples: Sequence[ChoiceExample]) -> list[Prediction]:
    """At which rank, from 1, each example's text finds the first of its choices among the choices of all examples.

    vectors: [examples, 1 + choices, hidden]. By the cosine. The same text elsewhere is as right; another one that is
    as near stands before it, so that vectors that are all alike find nothing.
    """
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    vectors = vectors / np.maximum(lengths, 1e-12)
    others = vectors[:, 1:].reshape(-1, vectors.shape[-1])
    first: dict[str, int] = {}  # where each text comes first
    choices = (text for example in examples for text in example.choices)
    texts = np.array([first.setdefault(text, place) for place, text in enumerate(choices)])
    found = []
    for begin in range(0, len(vectors), _ASKED):
        scores = vectors[begin : begin + _ASKED, 0] @ others.T
        right = (begin + np.arange(len(scores))) * (vectors.shape[1] - 1)
        near = scores >= scores[np.arange(len(scores)), right][:, None]
        before = (near & (texts != texts[right][:, None])).sum(axis=1)
        found += [Prediction(int(rank) + 1) for rank in before]
    return found


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


_DECIDERS: dict[str, Callable[[Any, Found, TokenLimits], Prediction]] = {
    "classification": _class,
    "multi_label": _any_labels,
    "regression": _number,
    "choice": _choice,
    "tagging": _word_labels,
    "span": _span,
    "similarity": _number,
    "comparison": _class,
}
