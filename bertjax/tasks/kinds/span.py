"""A stretch of a passage answers a question."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bertjax.errors import UserError
from bertjax.tasks.encoding import EncodedExample, ExampleEncoder
from bertjax.tasks.examples import Answer, QuestionExample
from bertjax.tasks.kinds.base import Arrays, Prediction, Scored, TaskKind, softmax
from bertjax.tasks.metadata import TaskMetadata, TokenLimits
from bertjax.tasks.squad_scores import decide
from bertjax.tasks.user_io import rounded, string, typed

_BEST = 20  # answers that are kept
_STRETCHES = 100  # of each window that are looked at, of which several may be the same text


@dataclass(frozen=True)
class _Question:
    """What a user types; `context` is SQuAD's name of the passage."""

    question: str
    passage: str | None = None
    context: str | None = None


class Span(TaskKind):
    """Predicts an Answer; a batch's labels are int [units, 2], positions of the answer's first and last token."""

    name = "span"
    predict_mode = "answer"
    length_limit = "question_length"  # a passage is read in windows
    dropout_before_head = False
    scores_per_label = 2  # of where an answer begins and of where it ends
    transformers_class = "ForQuestionAnswering"
    transformers_head = "qa_outputs"

    def encode(self, number: int, example: QuestionExample, encoder: ExampleEncoder) -> list[EncodedExample]:
        """Windows over the passage, each after the question.

        What two windows share belongs half to each, by what stands around it.
        """
        tokenizer, limits = encoder.tokenizer, encoder.limits
        whole_question = tokenizer.encode(example.question)
        question = whole_question[: limits.question_length]
        ids, offsets = tokenizer.encode_with_offsets(example.passage)
        head = [tokenizer.cls_id, *question, *[tokenizer.sep_id] * tokenizer.pair_separators]
        room = limits.length - len(head) - 1
        step = room - limits.stride
        if step < 1:
            raise UserError(
                f"{example.where}: beside a question of {len(question)} tokens, length {limits.length} leaves {room} "
                f"for the passage, which must be more than stride ({limits.stride}); raise length or lower stride"
            )
        begins = list(range(0, max(len(ids) - limits.stride, 1), step))
        rows = []
        for window, begin in enumerate(begins):
            end = min(begin + room, len(ids))
            shift = len(head) - begin
            first = begin if window == 0 else (begin + begins[window - 1] + room) // 2
            last = end if window == len(begins) - 1 else (begins[window + 1] + end) // 2
            rows.append(
                EncodedExample(
                    number,
                    [*head, *ids[begin:end], tokenizer.sep_id],
                    segment_b=begin + shift,
                    label=None if example.answers is None else _answer(example, offsets, range(begin, end), shift),
                    token_positions=tuple(range(begin + shift, end + shift)),
                    char_spans=tuple(offsets[begin:end]),
                    answer_range=(first - begin, last - begin),
                    truncated=len(question) < len(whole_question),
                )
            )
        return rows

    def label_shape(self, labels: int) -> tuple[int, ...]:
        """Two positions."""
        return (2,)

    def write_target(self, targets: dict[str, np.ndarray], row: EncodedExample, unit: Any, begin: int) -> None:
        """As positions in the whole row of the batch."""
        targets["labels"][unit], targets["weights"][unit] = np.add(row.label, begin), 1

    def class_logits(self, logits: jax.Array, batch: Arrays) -> jax.Array:
        """[rows, length, 2] as [rows, 2, length], packed [rows, slots, 2, length]; none outside of the unit."""
        logits, mask = logits.swapaxes(1, 2), batch["attention_mask"][:, None]
        if batch["labels"].ndim == 2:
            own = mask > 0
        else:
            numbers = 1 + jnp.arange(batch["labels"].shape[1])
            logits, own = logits[:, None], mask[:, None] == numbers[:, None, None]
        return jnp.where(own, logits, jnp.finfo(jnp.float32).min)

    def losses(self, outputs: Arrays, batch: Arrays) -> jax.Array:
        """The mean of those of the first and the last token."""
        return jnp.mean(super().losses(outputs, batch), axis=-1)

    def soft_losses(self, student: jax.Array, teacher: jax.Array, batch: Arrays, temperature: float) -> jax.Array:
        """The mean of those of the first and the last token."""
        return jnp.mean(super().soft_losses(student, teacher, batch, temperature), axis=-1)

    def decide(self, example: QuestionExample, scored: Scored, limits: TokenLimits) -> Prediction:
        """The best pairs of a first and a last token of any window, and no answer, which [CLS] stands for.

        That nothing answers is as likely as where it is least likely: one window with an answer is enough.
        """
        nothing = min(float(score[0].sum()) for _, score in scored)
        candidates = sorted(
            (candidate for row, score in scored for candidate in _stretches(example, row, score, limits)),
            key=lambda candidate: -candidate[0],
        )
        texts: dict[str, float] = {}
        for score, text in candidates:
            texts.setdefault(text, score)
        texts = dict(list(texts.items())[:_BEST])
        if not texts:  # the passage has no token
            return Prediction(Answer("", 0.0), best=(("", 1.0),))
        likeliest, score = next(iter(texts.items()))
        ranked = sorted([*texts.items(), ("", nothing)], key=lambda candidate: -candidate[1])
        probabilities = softmax(np.array([score for _, score in ranked]))
        best = tuple((text, float(value)) for (text, _), value in zip(ranked, probabilities, strict=True))
        return Prediction(Answer(likeliest, nothing - score), best=best)

    def describe(
        self, example: QuestionExample, prediction: Prediction, labels: tuple[str, ...], threshold: float
    ) -> dict:
        """The answer at the threshold, the right ones, and the likeliest."""
        best = [{"text": text, "probability": round(value, 6)} for text, value in prediction.best[:5]]
        return {
            "id": example.id,
            "prediction": decide(prediction.value, threshold),
            "answers": example.answers,
            "best": best,
            "null_odds": round(prediction.value.null_odds, 4),
        }

    def score_files(self, examples: Sequence[Any], predictions: Sequence[Prediction]) -> dict[str, dict[str, Any]]:
        """As SQuAD's official script takes them.

        It compares the odds with a threshold of its own, so the answers are those before any is applied.
        """
        answers = {example.id: one.value.text for example, one in zip(examples, predictions, strict=True)}
        odds = {example.id: one.value.null_odds for example, one in zip(examples, predictions, strict=True)}
        return {"json": answers, "null_odds.json": odds}

    def read_input(self, value: Any, where: str) -> QuestionExample:
        """A question and a passage."""
        expected = 'a question and a passage, or an object {"question": …, "passage": …}'
        asked = typed(value, tuple[str, str] | _Question, where, expected)
        if isinstance(asked, _Question):
            passage = asked.context if asked.passage is None else asked.passage
            asked = typed((asked.question, passage), tuple[str, str], where, expected)
        question, passage = asked
        return QuestionExample(where, where, string(question, where), string(passage, where))

    def record(self, prediction: Prediction, task: TaskMetadata, top: int) -> dict[str, Any]:
        """The answer, and the likeliest ones."""
        # By how much no answer must be likelier than any to be given; SQuAD v1.1 has an answer to everything.
        unknown = 0.0 if task.name == "squad/v2.0" else math.inf
        answer = decide(prediction.value, unknown if task.threshold is None else task.threshold)
        best = [{"answer": text, "probability": rounded(value)} for text, value in prediction.best[:top]]
        return {"answer": answer, "probability": rounded(dict(prediction.best)[answer]), "best": best}

    def transformers_logits(self, outputs: Any) -> np.ndarray:
        """Two scores per token."""
        return np.stack([outputs.start_logits.numpy(), outputs.end_logits.numpy()], axis=-1)


def _answer(example: QuestionExample, offsets: Sequence[tuple[int, int]], window: range, shift: int) -> tuple[int, int]:
    """Positions of the first answer's first and last token; [CLS] where it does not lie in the window whole."""
    if not example.answers:
        return 0, 0
    start = example.starts[0]
    stop = start + len(example.answers[0])
    inside = [token for token in window if offsets[token][0] < stop and offsets[token][1] > start]
    whole = inside and offsets[inside[0]][0] <= start and offsets[inside[-1]][1] >= stop
    return (inside[0] + shift, inside[-1] + shift) if whole else (0, 0)


def _stretches(
    example: QuestionExample, row: EncodedExample, score: np.ndarray, limits: TokenLimits
) -> list[tuple[float, str]]:
    """(score, text) of the best answers within one window."""
    start, end = score[list(row.token_positions)].T if row.token_positions else np.zeros((2, 0))
    begin, stop = row.answer_range
    firsts, more = np.indices((stop - begin, limits.answer_length)).reshape(2, -1)
    firsts = firsts + begin
    lasts = firsts + more
    firsts, lasts = firsts[lasts < len(end)], lasts[lasts < len(end)]
    sums = start[firsts] + end[lasts]
    candidates = [
        # A piece may hold the white space before its word, or nothing else, which is no answer.
        (float(sums[i]), example.passage[row.char_spans[firsts[i]][0] : row.char_spans[lasts[i]][1]].strip())
        for i in np.argsort(-sums, kind="stable")[:_STRETCHES]
    ]
    return [(score, text) for score, text in candidates if text]
