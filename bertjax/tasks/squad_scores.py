"""SQuAD's official scores, identical to evaluate-v1.1.py and evaluate-v2.0.py.

The two scripts differ: an empty answer to an unanswerable question has F1 0 in v1.1 and 1 in v2.0; v2.0 ignores right
answers that normalization leaves empty; a missing prediction scores 0 in v1.1 and is left out in v2.0 (in the best
scores, only if the question has an answer).
"""

import collections
import re
import string
from collections.abc import Callable, Sequence

from bertjax.tasks import scores
from bertjax.tasks.examples import Answer, QuestionExample

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)  # ASCII only


def normalize(text: str) -> str:
    """Returns the text in lower case, without punctuation, articles and repeated white space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_WITHOUT_PUNCTUATION)).split())


def score_v1(examples: Sequence[QuestionExample], predictions: Sequence[Answer | None]) -> dict[str, float]:
    """Exact match and F1 in percent, each the best over the right answers; a missing prediction (None) scores 0."""
    right_answers = scores.check_labels([example.answers for example in examples], examples, predictions)
    pairs = [(answer.text if answer else None, right) for answer, right in zip(predictions, right_answers, strict=True)]
    exact = [0 if text is None else max(_exact(text, answer) for answer in right) for text, right in pairs]
    f1 = [0 if text is None else max(_f1(text, answer, empty=0) for answer in right) for text, right in pairs]
    return {"exact_match": 100.0 * sum(exact) / len(examples), "f1": 100.0 * sum(f1) / len(examples)}


def score_v2(
    examples: Sequence[QuestionExample], predictions: Sequence[Answer | None], threshold: float | None = None
) -> dict[str, float]:
    """Exact match and F1 of all questions, of answerable (HasAns) and unanswerable ones (NoAns), and best thresholds.

    The scores are in percent except `…total`, numbers of questions, and `…thresh`, in units of `null_odds`. Questions
    without a prediction (None) are left out, except that the best scores count unanswerable ones as right, as the
    official script does: with many of them a best score exceeds 100.

    Args:
      examples: the questions.
      predictions: their answers.
      threshold: `null_odds` above it mean no answer; default: `best_f1_thresh` of these predictions.
    """
    right_answers = scores.check_labels([example.answers for example in examples], examples, predictions)
    answered = [(answer, right) for answer, right in zip(predictions, right_answers, strict=True) if answer is not None]
    if not answered:
        raise ValueError("there are no predictions to score")
    raw = {"exact": [_best(*pair, _exact) for pair in answered], "f1": [_best(*pair, _f1) for pair in answered]}
    best: dict[str, float] = {}
    for name, values in raw.items():
        best[f"best_{name}"], best[f"best_{name}_thresh"] = _best_threshold(answered, values, right_answers)
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
    for prefix, answerable in (("HasAns_", True), ("NoAns_", False)):
        chosen = [index for index, (_, right) in enumerate(answered) if bool(right) == answerable]
        result |= _means(decided, chosen, prefix) if chosen else {}
    return result | best


def decide(answer: Answer, threshold: float) -> str:
    """Returns the answer at a threshold; "" means no answer."""
    return "" if answer.null_odds > threshold else answer.text


def _means(scores_by_name: dict[str, list[float]], chosen: Sequence[int], prefix: str) -> dict[str, float]:
    means = {
        f"{prefix}{name}": 100.0 * sum(values[index] for index in chosen) / len(chosen)
        for name, values in scores_by_name.items()
    }
    return means | {f"{prefix}total": len(chosen)}


def _best(answer: Answer, right: Sequence[str], score: Callable[[str, str], float]) -> float:
    meaningful = [text for text in right if normalize(text)] or [""]
    return max(score(answer.text, text) for text in meaningful)


def _best_threshold(
    answered: Sequence[tuple[Answer, Sequence[str]]], values: Sequence[float], right_answers: Sequence[Sequence[str]]
) -> tuple[float, float]:
    """Returns (score in percent, threshold): starts with no answer to any question and adds the surest answers first.

    The start counts the unanswerable questions in `right_answers`, of all questions; the percentage is of `answered`.
    """
    score = best = sum(not right for right in right_answers)
    threshold = 0.0
    for index in sorted(range(len(answered)), key=lambda index: answered[index][0].null_odds):
        answer, right = answered[index]
        score += values[index] if right else -bool(answer.text)
        if score > best:
            best, threshold = score, answer.null_odds
    return 100.0 * best / len(answered), threshold


def _exact(prediction: str, right: str) -> int:
    return int(normalize(prediction) == normalize(right))


def _f1(prediction: str, right: str, empty: int = 1) -> float:
    """Returns F1 over words; `empty` if normalization leaves both texts empty."""
    predicted, wanted = normalize(prediction).split(), normalize(right).split()
    if not predicted and not wanted:
        return empty
    common = sum((collections.Counter(predicted) & collections.Counter(wanted)).values())
    if not common:
        return 0
    precision, recall = common / len(predicted), common / len(wanted)
    return 2 * precision * recall / (precision + recall)
