"""Adversarial predictions for SQuAD, and what the official scripts say of them.

`cases()` is the same each time. `squad_official.json` holds what SQuAD's evaluate-v1.1.py and evaluate-v2.0.py, as
huggingface/datasets carries them, gave for them: question by question ([exact match, F1]) and in total; of v2.0, whose
script ends in a KeyError where predictions are missing, on the questions that have one, at several thresholds. Write it
anew with the scripts where cases change.
"""

import itertools
import zlib
from dataclasses import dataclass

# Right answers of a question: several, equal after normalisation, nothing but punctuation or articles, other scripts.
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
    """What could be predicted; None: nothing was."""
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
    """A question and what was predicted for it."""

    id: str
    answers: tuple[str, ...]
    prediction: str | None
    null_odds: float  # also in ties and below 0


def cases() -> list[Case]:
    found = []
    for number, answers in enumerate([*GOLD, *[[]] * UNANSWERABLE]):
        for change, prediction in enumerate(_changes(answers or GOLD[number % len(GOLD)])):
            name = f"q{number}-{change}"
            found.append(Case(name, tuple(answers), prediction, zlib.crc32(name.encode()) % 101 / 10 - 3))
    return found


def dataset(chosen: list[Case]) -> list[dict]:
    """The questions as SQuAD's files hold them, a few to a paragraph."""
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
