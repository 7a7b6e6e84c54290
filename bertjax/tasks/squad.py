"""Readers of SQuAD v1.1 (arXiv:1606.05250) and v2.0 (arXiv:1806.03822)."""

import codecs
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from bertjax import decoding
from bertjax.decoding import ShortText
from bertjax.errors import UserError
from bertjax.tasks import line_formats, squad_scores, tfds
from bertjax.tasks.examples import QuestionExample
from bertjax.tasks.kinds.span import Span
from bertjax.tasks.task_examples import TaskExamples
from bertjax.text import readers

_LOG = logging.getLogger(__name__)

_REMEDY = "download SQuAD's original file again, or restore it from a copy"
_MAX_BYTES = 2**28  # the original files have up to 42 MB


# gc=False: tracking the structs in the garbage collector would take longer than reading them.


class _Answer(msgspec.Struct, frozen=True, gc=False):
    text: str
    answer_start: Annotated[int, msgspec.Meta(ge=-1, lt=2**31)]  # in characters; -1 in some unofficial files: unknown


class _Question(msgspec.Struct, frozen=True, gc=False):
    id: ShortText
    question: str
    answers: tuple[_Answer, ...] | None = None


class _Paragraph(msgspec.Struct, frozen=True, gc=False):
    context: str
    qas: tuple[_Question, ...]


class _Article(msgspec.Struct, frozen=True, gc=False):
    paragraphs: tuple[_Paragraph, ...]


class _File(msgspec.Struct, frozen=True, gc=False):
    data: tuple[_Article, ...]


def open_squad(name: str, data_dir: str) -> TaskExamples[QuestionExample]:
    """Binds squad/v1.1 or squad/v2.0 to its folder or to TFDS.

    The score of v2.0 tunes the no-answer threshold on the examples that it scores; `squad_scores.score_v2` also accepts
    a threshold tuned on other examples.
    """
    version = name.partition("/")[2]
    unanswerable = version == "v2.0"

    def read(split: str) -> list[QuestionExample]:
        if tfds.is_tfds(data_dir):
            records, place = tfds.read(f"squad/{version}", split, data_dir)
            questions = [_from_tfds(record, place) for record in records]
        else:
            questions = list(_questions(line_formats.find_file([Path(data_dir)], [f"{split}-{version}.json"])))
        questions = _usable(questions, unanswerable, split == "train")
        if not questions:
            raise UserError(f"{data_dir}: no questions for {split}; download the file again, or restore it from a copy")
        return questions

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
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise UserError(f"{path}: larger than {_MAX_BYTES:,} bytes; {_REMEDY}")
    decoded = decoding.decode(content.removeprefix(codecs.BOM_UTF8), _File, path, _REMEDY)
    place = str(path)
    for article in decoded.data:
        for paragraph in article.paragraphs:
            for question in paragraph.qas:
                yield _example(place, paragraph.context, question)


def _example(place: str, passage: str, question: _Question) -> QuestionExample:
    answers = question.answers
    return QuestionExample(
        id=question.id,
        where=f"{place}, question {' '.join(question.id.split())}",
        question=question.question,
        passage=passage,
        answers=None if answers is None else tuple(answer.text for answer in answers),
        starts=tuple(answer.answer_start for answer in answers or ()),
    )


def _from_tfds(record: Mapping[str, Any], place: str) -> QuestionExample:
    answers = zip(record["answers"]["text"], record["answers"]["answer_start"], strict=True)
    question = _Question(
        record["id"].decode(),
        record["question"].decode(),
        tuple(_Answer(text.decode(), int(start)) for text, start in answers),
    )
    return _example(place, record["context"].decode(), question)


def _usable(questions: list[QuestionExample], unanswerable: bool, training: bool) -> list[QuestionExample]:
    """Checks questions; for training drops those with answers that are not at their offsets in the passage."""
    usable = []
    for question in questions:
        if question.answers is None:
            raise UserError(f"{question.where}: no `answers`, so it cannot be scored; add them")
        if question.answers == () and not unanswerable:
            raise UserError(f"{question.where}: no answer; use squad/v2.0, which has unanswerable questions")
        placed = all(
            start >= 0 and question.passage.startswith(answer, start)
            for answer, start in zip(question.answers, question.starts, strict=True)
        )
        if placed or not training:
            usable.append(question)
    if len(usable) < len(questions):
        _LOG.info(f"skipped {len(questions) - len(usable)} questions with answers that are not at their answer_start")
    return usable
