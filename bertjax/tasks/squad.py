"""SQuAD v1.1 (arXiv:1606.05250) and v2.0 (arXiv:1806.03822): their files."""

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bertjax.errors import UserError
from bertjax.tasks import line_formats, squad_scores, tfds
from bertjax.tasks.examples import QuestionExample
from bertjax.tasks.kinds.span import Span
from bertjax.tasks.task_examples import TaskExamples
from bertjax.text import readers

_LOG = logging.getLogger(__name__)


def open_squad(name: str, data_dir: str) -> TaskExamples:
    """Binds squad/v1.1 or squad/v2.0 to its folder, or to TFDS.

    The score of v2.0 tunes the threshold of no answer on the examples that it scores;
    `squad_scores.score_v2` takes one that was tuned on others.
    """
    version = name.partition("/")[2]
    unanswerable = version == "v2.0"

    def read(split: str) -> list[QuestionExample]:
        if tfds.named(data_dir):
            records, place = tfds.read(f"squad/{version}", split, data_dir)
            found = [_from_tfds(record, place) for record in records]
        else:
            found = list(_questions(line_formats.find([Path(data_dir)], [f"{split}-{version}.json"])))
        kept = _checked(found, unanswerable, split == "train")
        if not kept:
            raise UserError(f"{data_dir}: there are no questions for {split}; get the file again")
        return kept

    return TaskExamples(
        name=name,
        kind=Span(),
        labels=(),
        read=read,
        score=squad_scores.score_v2 if unanswerable else squad_scores.score_v1,
        metric="f1",
        test=(),
    )


def _questions(path: Path) -> Iterator[QuestionExample]:
    with readers.opened(path) as file:
        content = file.read()
    try:
        for article in json.loads(content.decode("utf-8-sig"))["data"]:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    yield _question(path, paragraph["context"], question)
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); get the file again") from error
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: not in SQuAD's format ({error!r}); is this SQuAD's own file?") from error


def _question(place: Path | str, passage: str, question: Mapping[str, Any]) -> QuestionExample:
    answers = question.get("answers")
    return QuestionExample(
        id=question["id"],
        where=f"{place}, question {question['id']}",
        question=question["question"],
        passage=passage,
        answers=None if answers is None else tuple(answer["text"] for answer in answers),
        starts=tuple(int(answer["answer_start"]) for answer in answers or ()),
    )


def _from_tfds(record: Mapping[str, Any], place: str) -> QuestionExample:
    answers = zip(record["answers"]["text"], record["answers"]["answer_start"], strict=True)
    question = {
        "id": record["id"].decode(),
        "question": record["question"].decode(),
        "answers": [{"text": text.decode(), "answer_start": start} for text, start in answers],
    }
    return _question(place, record["context"].decode(), question)


def _checked(questions: list[QuestionExample], unanswerable: bool, training: bool) -> list[QuestionExample]:
    """Those that can be used: to train on an answer, it must stand where the file says."""
    kept = []
    for question in questions:
        if question.answers is None:
            raise UserError(f"{question.where}: it has no `answers`, without which nothing can be scored; add them")
        if question.answers == () and not unanswerable:
            raise UserError(f"{question.where}: there is no answer; take squad/v2.0, whose questions may have none")
        placed = all(
            question.passage.startswith(answer, start)
            for answer, start in zip(question.answers, question.starts, strict=True)
        )
        if placed or not training:
            kept.append(question)
    if len(kept) < len(questions):
        _LOG.info(f"left out {len(questions) - len(kept)} questions whose answers do not stand where the file says")
    return kept
