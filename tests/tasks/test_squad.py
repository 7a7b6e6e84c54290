import json
from pathlib import Path

import pytest

from bertjax.errors import UserError
from bertjax.tasks import squad_scores
from bertjax.tasks.examples import Answer
from bertjax.tasks.registry import open_task
from tests.support.squad_cases import cases, dataset

OFFICIAL = json.loads(Path(__file__).with_name("squad_official.json").read_text())


def write(folder: Path, version: str, data: list[dict], split: str = "dev") -> None:
    (folder / f"{split}-{version}.json").write_text(json.dumps({"version": version, "data": data}))


@pytest.fixture(scope="module")
def adversarial(tmp_path_factory):
    """Returns, by version, the task, its examples as read from a file, and predictions."""
    folder = tmp_path_factory.mktemp("squad")
    by_version = {}
    for version in ("v1.1", "v2.0"):
        chosen = [case for case in cases() if case.answers or version == "v2.0"]
        write(folder, version, dataset(chosen))
        task = open_task(f"squad/{version}", str(folder))
        predictions = [None if case.prediction is None else Answer(case.prediction, case.null_odds) for case in chosen]
        by_version[version] = task, task.read("dev"), predictions
    return by_version


def test_v1_scores_equal_the_official_ones_per_question_and_in_total(adversarial):
    task, examples, predictions = adversarial["v1.1"]
    assert len(examples) >= 200
    per_question = {
        example.id: list(task.score([example], [answer]).values())
        for example, answer in zip(examples, predictions, strict=True)
    }
    assert per_question == OFFICIAL["v1.1 each"]
    assert task.score(examples, predictions) == OFFICIAL["v1.1"]


def test_v2_scores_equal_the_official_ones_per_question_and_in_total(adversarial):
    task, examples, predictions = adversarial["v2.0"]
    per_question = {}
    for example, answer in zip(examples, predictions, strict=True):
        if answer is not None:
            scores = squad_scores.score_v2([example], [answer], threshold=1e9)
            per_question[example.id] = [scores["exact"], scores["f1"]]
    assert per_question == OFFICIAL["v2.0 each"]
    # The official totals are those of the questions that have a prediction.
    predicted = [(example, answer) for example, answer in zip(examples, predictions, strict=True) if answer is not None]
    for threshold, official in OFFICIAL["v2.0"].items():
        if threshold != "tuned":
            assert squad_scores.score_v2(*zip(*predicted, strict=True), float(threshold)) == official
    assert task.score(*zip(*predicted, strict=True)) == OFFICIAL["v2.0"]["tuned"]
    all_questions = task.score(examples, predictions)
    assert {name for name, value in all_questions.items() if value != OFFICIAL["v2.0"]["tuned"][name]} == {
        "best_exact",
        "best_f1",
    }


def test_best_scores_count_unanswerable_questions_without_a_prediction(tmp_path):
    """The official search starts from the number of all questions without an answer, and divides by the predictions.

    Three questions are unanswerable: 3. "Paris" at -2.0 is right: 4, the best. "Rome" at 1.0 answers an unanswerable
    question: 3. "Nile" at 2.0 is wrong by exact match: 3; its F1 is 1/2 (precision 1, recall 1/3): 3.5. There are three
    predictions.
    """
    answers = {"a": ["Paris"], "b": [], "c": [], "d": ["Oslo"], "e": ["Nile river delta"], "f": []}
    context = "Paris, Oslo, Rome, Nile river delta"
    questions = [
        {
            "id": name,
            "question": "?",
            "answers": [{"text": text, "answer_start": context.index(text)} for text in right],
        }
        for name, right in answers.items()
    ]
    write(tmp_path, "v2.0", [{"paragraphs": [{"context": context, "qas": questions}]}])
    task = open_task("squad/v2.0", str(tmp_path))
    predictions = [Answer("Paris", -2.0), None, Answer("Rome", 1.0), None, Answer("Nile", 2.0), None]
    scores = task.score(task.read("dev"), predictions)
    assert scores == pytest.approx(
        {
            "exact": 200 / 3,  # at -2.0: Paris, and no answer to "c"
            "f1": 200 / 3,
            "total": 3,
            "HasAns_exact": 50.0,
            "HasAns_f1": 50.0,
            "HasAns_total": 2,
            "NoAns_exact": 100.0,
            "NoAns_f1": 100.0,
            "NoAns_total": 1,
            "best_exact": 400 / 3,
            "best_exact_thresh": -2.0,
            "best_f1": 400 / 3,
            "best_f1_thresh": -2.0,
        }
    )


def test_a_tuned_threshold_applies_to_later_predictions(adversarial):
    _, examples, predictions = adversarial["v2.0"]
    threshold = squad_scores.score_v2(examples, predictions)["best_f1_thresh"]
    assert threshold == OFFICIAL["v2.0"]["tuned"]["best_f1_thresh"]
    assert squad_scores.decide(Answer("here", threshold), threshold) == "here"
    assert squad_scores.decide(Answer("here", threshold + 0.1), threshold) == ""


def test_questions_keep_passage_answers_and_starts(tmp_path, messages):
    context = "Die Hauptstadt ist São Paulo, nicht Rio. \u2028 Ende"
    answers = [{"text": "São Paulo", "answer_start": context.index("São")}]
    wrong = [{"text": "Rio", "answer_start": 0}]
    questions = [
        {"id": "a", "question": "Was?", "answers": answers},
        {"id": "b", "question": "Was nicht?", "answers": wrong},
    ]
    for split in ("train", "dev"):
        write(tmp_path, "v1.1", [{"title": "t", "paragraphs": [{"context": context, "qas": questions}]}], split)
    messages.clear()
    task = open_task("squad/v1.1", str(tmp_path))
    [example] = task.read("train")  # the other answer is misplaced and would train a wrong span
    assert (example.id, example.passage, example.answers) == ("a", context, ("São Paulo",))
    assert example.passage[example.starts[0] :].startswith("São Paulo, nicht")
    assert messages == ["skipped 1 questions with answers that are not at their answer_start"]
    assert [question.id for question in task.read("dev")] == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        (
            '{"data": [{"title": ""}]}',
            r"data\[0\]: Object missing .*`paragraphs`.*download SQuAD's original file",
        ),
        (
            json.dumps(
                {"data": [{"paragraphs": [{"context": "c", "qas": [{"id": "7", "question": "?", "answers": []}]}]}]}
            ),
            "question 7: no answer; use squad/v2.0",
        ),
        ('{"data": []}', "no questions"),
        (
            '{"data": [{"paragraphs": [{"context": "c", "qas": [{"id": "7", "question": "?"}]}]}]}',
            "question 7: no `answers`",
        ),
    ],
)
def test_other_files_are_rejected(tmp_path, content, message):
    (tmp_path / "dev-v1.1.json").write_text(content)
    with pytest.raises(UserError, match=message):
        open_task("squad/v1.1", str(tmp_path)).read("dev")
