"""SQuAD's official scores: those of evaluate-v1.1.py and evaluate-v2.0.py, value by value.

The two scripts differ: an empty answer to a question without one has F1 0 in v1.1 and 1 in v2.0, v2.0 disregards right
answers of which normalisation leaves nothing, and a missing prediction scores 0 in v1.1 and is left out in v2.0 (of the
best scores, only where there is an answer).
"""

import collections
import re
import string
from collections.abc import Sequence

from bertjax.tasks import scores
from bertjax.tasks.examples import Answer, QuestionExample

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)  # ASCII only


def normalize(text: str) -> str:
    """Lower case, without punctuation, articles and repeated white space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_WITHOUT_PUNCTUATION)).split())


def score_v1(examples: Sequence[QuestionExample], predictions: Sequence[Answer | None]) -> dict[str, float]:
    """Exact match and F1 in per cent; the best over a question's right answers. None is a missing prediction: 0."""
    gold = scores.known([example.answers for example in examples], examples, predictions)
    pairs = [(answer.text if answer else None, right) for answer, right in zip(predictions, gold, strict=True)]
    exact = [0 if text is None else max(_exact(text, answer) for answer in right) for text, right in pairs]
    f1 = [0 if text is None else max(_f1(text, answer, empty=0) for answer in right) for text, right in pairs]
    return {"exact_match": 100.0 * sum(exact) / len(examples), "f1": 100.0 * sum(f1) / len(examples)}


def score_v2(
    examples: Sequence[QuestionExample], predictions: Sequence[Answer | None], threshold: float | None = None
) -> dict[str, float]:
    """Exact match and F1, of all and of questions with (HasAns) and without an answer (NoAns), best thresholds.

    Above `threshold`, `null_odds` mean that there is no answer; by default it is `best_f1_thresh` of these
    predictions. The figures are per cent except `…total`, numbers of questions, and `…thresh`, in units of
    `null_odds`. Questions without a prediction (None) are left out, except that the best scores count those that have
    no answer as right, as the official script's do: with many of them a best score is above 100.
    """
    gold = scores.known([example.answers for example in examples], examples, predictions)
    answered = [(answer, right) for answer, right in zip(predictions, gold, strict=True) if answer is not None]
    if not answered:
        raise ValueError("there are no predictions to score")
    raw = {"exact": [_best(*pair, _exact) for pair in answered], "f1": [_best(*pair, _f1) for pair in answered]}
    best: dict[str, float] = {}
    for name, values in raw.items():
        best[f"best_{name}"], best[f"best_{name}_thresh"] = _best_threshold(answered, values, gold)
    if threshold is None:
        threshold = best["best_f1_thresh"]
    decided = {
        name: [
            float(not right) if answer.null_odds > threshold else value
            for (answer, right), value in zip(answered, values, strict=True)
        ]
        for name, values in raw.items()
    }
    result = _means(decided, range(len(answered)), "")
    for prefix, wanted in (("HasAns_", True), ("NoAns_", False)):
        chosen = [place for place, (_, right) in enumerate(answered) if bool(right) == wanted]
        result |= _means(decided, chosen, prefix) if chosen else {}
    return result | best


def decide(answer: Answer, threshold: float) -> str:
    """The text that is answered at a threshold; "" means that there is no answer."""
    return "" if answer.null_odds > threshold else answer.text


def _means(values: dict[str, list[float]], chosen: Sequence[int], prefix: str) -> dict[str, float]:
    means = {f"{prefix}{name}": 100.0 * sum(of[place] for place in chosen) / len(chosen) for name, of in values.items()}
    return means | {f"{prefix}total": len(chosen)}


def _best(answer: Answer, right: Sequence[str], score: "scores.Score") -> float:
    meaningful = [text for text in right if normalize(text)] or [""]
    return max(score(answer.text, text) for text in meaningful)


def _best_threshold(
    answered: Sequence[tuple[Answer, Sequence[str]]], values: Sequence[float], gold: Sequence[Sequence[str]]
) -> tuple[float, float]:
    """(score in per cent, threshold): begins with no answer to any question and takes the surest ones first.

    The right answers are those of all questions, `gold`; the per cent are of the `answered` ones.
    """
    score = best = sum(not right for right in gold)
    threshold = 0.0
    for place in sorted(range(len(answered)), key=lambda place: answered[place][0].null_odds):
        answer, right = answered[place]
        score += values[place] if right else -bool(answer.text)
        if score > best:
            best, threshold = score, answer.null_odds
    return 100.0 * best / len(answered), threshold


def _exact(prediction: str, right: str) -> int:
    return int(normalize(prediction) == normalize(right))


def _f1(prediction: str, right: str, empty: int = 1) -> float:
    """Of words; where normalisation leaves nothing of both, `empty`."""
    predicted, wanted = normalize(prediction).split(), normalize(right).split()
    if not predicted and not wanted:
        return empty
    common = sum((collections.Counter(predicted) & collections.Counter(wanted)).values())
    if not common:
        return 0
    precision, recall = common / len(predicted), common / len(wanted)
    return 2 * precision * recall / (precision + recall)
