"""Adversarial predictions for SQuAD, to compare scores with those of the official scripts.

`cases()` is deterministic. `squad_official.json` contains the scores of SQuAD's evaluate-v1.1.py and evaluate-v2.0.py
(from huggingface/datasets) for these cases: [exact match, F1] per question and in total. For v2.0, whose script raises
KeyError for missing predictions, it covers the questions with a prediction, at several thresholds. Regenerate it with
the scripts after changing cases.
"""

import itertools
import zlib
from dataclasses import dataclass

# Gold answers: several, equal after normalization, only punctuation or articles, other scripts.
GOLD = [
    ["Denver Broncos", "the Denver Broncos", "Denver"],
    ["the U.S. Army", "U.S. Army", "Army"],
    ["a", "the letter A"],
    ["The The", "the band The The"],
    ["Zürich"],
    ["25 %", "25%", "twenty-five per cent"],
    ["São Paulo", "Sao Paulo"],
    ["“quoted” words — here", "quoted words"],
    ["x-ray", "X ray"],
    ["O'Neill's an answer", "O’Neill’s answer"],
    ["one two two three"],
    ["ＦＵＬＬ width 東京"],
    ["İstanbul"],
    ["...", "the"],
]
UNANSWERABLE = 4  # questions without an answer, in v2.0 only


def _changes(answers: list[str]) -> list[str | None]:
    """Predictions derived from the gold answers; None: no prediction."""
    first, last = answers[0], answers[-1]
    words = first.split()
    return [
        first,
        f"  The {first.upper()}!?  ",
        f"an {last}, a {first}",
        " ".join(reversed(words)),
        words[0],
        f"{first} {first}",
        first.replace(" ", "\u00a0"),
        first.replace(" ", ""),
        first.replace(" ", "-"),
        "".join(character for character in first if character.isascii()),
        "theatre anthem another",
        "",
        "the",
        "!?.",
        None,
        f"\t{last}\n",
    ]


@dataclass(frozen=True)
class Case:
    """A question and its prediction."""

    id: str
    answers: tuple[str, ...]
    prediction: str | None
    null_odds: float  # with ties and negative values


def cases() -> list[Case]:
    result = []
    for number, answers in enumerate([*GOLD, *[[]] * UNANSWERABLE]):
        for change, prediction in enumerate(_changes(answers or GOLD[number % len(GOLD)])):
            name = f"q{number}-{change}"
            result.append(Case(name, tuple(answers), prediction, zlib.crc32(name.encode()) % 101 / 10 - 3))
    return result


def dataset(chosen: list[Case]) -> list[dict]:
    """The questions in SQuAD's format, a few per paragraph."""
    paragraphs = []
    for _, group in itertools.groupby(chosen, key=lambda case: case.id.split("-")[0]):
        group = list(group)
        context = " | ".join(group[0].answers) or "Nothing is here."
        questions = [
            {
                "id": case.id,
                "question": f"What of {case.id}?",
                "answers": [{"text": text, "answer_start": context.index(text)} for text in case.answers],
                "is_impossible": not case.answers,
            }
            for case in group
        ]
        paragraphs.append({"context": context, "qas": questions})
    return [{"title": "Cases", "paragraphs": paragraphs}]
