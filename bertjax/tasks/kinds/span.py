"""Extractive question answering: a span of a passage answers a question."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bertjax.arrays.types import Batch
from bertjax.data.batch import HostBatch
from bertjax.errors import UserError
from bertjax.tasks.encoding import EncodedExample, ExampleEncoder
from bertjax.tasks.examples import Answer, QuestionExample
from bertjax.tasks.kinds.base import Prediction, ScoredSequences, TaskKind, UnitIndex, softmax
from bertjax.tasks.metadata import TaskMetadata, TokenLimits
from bertjax.tasks.squad_scores import decide
from bertjax.tasks.user_io import check_pair, checked_text, convert_input, rounded

_MAX_ANSWERS = 20  # per prediction
_MAX_CANDIDATES = 100  # per window; several may have the same text


@dataclass(frozen=True)
class _Question:
    """An input; `context` is SQuAD's name for the passage."""

    question: str
    passage: str | None = None
    context: str | None = None


class Span(TaskKind[QuestionExample]):
    """Predicts an `Answer`; `labels` are int [units, 2], the positions of the answer's first and last token."""

    name = "span"
    predict_mode = "answer"
    length_limit = "question_length"  # passages are split into windows
    dropout_before_head = False
    head_size = 2  # scores of being the first token and the last token of the answer
    transformers_class = "ForQuestionAnswering"
    transformers_head = "qa_outputs"

    def encode(self, index: int, example: QuestionExample, encoder: ExampleEncoder) -> list[EncodedExample]:
        """Returns a sequence per window of the passage, each with the question before it.

        In the overlap of two windows, an answer may begin only in the window that has more context around it.
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
                f"{example.where}: with a question of {len(question)} tokens, length {limits.length} leaves {room} "
                f"tokens for the passage, which must exceed stride ({limits.stride}); raise length or lower stride"
            )
        begins = list(range(0, max(len(ids) - limits.stride, 1), step))
        sequences = []
        for window, begin in enumerate(begins):
            end = min(begin + room, len(ids))
            shift = len(head) - begin
            first = begin if window == 0 else (begin + begins[window - 1] + room) // 2
            last = end if window == len(begins) - 1 else (begins[window + 1] + end) // 2
            sequences.append(
                EncodedExample(
                    index,
                    [*head, *ids[begin:end], tokenizer.sep_id],
                    segment_b=begin + shift,
                    label=None if example.answers is None else _label(example, offsets, range(begin, end), shift),
                    token_positions=tuple(range(begin + shift, end + shift)),
                    char_spans=tuple(offsets[begin:end]),
                    answer_range=(first - begin, last - begin),
                    truncated=len(question) < len(whole_question),
                )
            )
        return sequences

    def label_shape(self, labels: int) -> tuple[int, ...]:
        """Returns [2], the first and the last token."""
        return (2,)

    def write_target(self, targets: HostBatch, sequence: EncodedExample, unit: UnitIndex, begin: int) -> None:
        """Writes the positions counted from the start of the row."""
        targets["labels"][unit], targets["weights"][unit] = np.asarray(sequence.label) + begin, 1

    def class_logits(self, logits: jax.Array, batch: Batch) -> jax.Array:
        """Turns [rows, length, 2] into [rows, 2, length], packed [rows, slots, 2, length], masked outside the unit."""
        logits, mask = logits.swapaxes(1, 2), batch["attention_mask"][:, None]
        if batch["labels"].ndim == 2:
            own = mask > 0
        else:
            numbers = 1 + jnp.arange(batch["labels"].shape[1])
            logits, own = logits[:, None], mask[:, None] == numbers[:, None, None]
        return jnp.where(own, logits, jnp.finfo(jnp.float32).min)

    def losses(self, outputs: Batch, batch: Batch) -> jax.Array:
        """Returns the cross-entropy, averaged over the first and the last token."""
        return jnp.mean(super().losses(outputs, batch), axis=-1)

    def soft_losses(self, student: jax.Array, teacher: jax.Array, batch: Batch, temperature: float) -> jax.Array:
        """Returns the divergence, averaged over the first and the last token."""
        return jnp.mean(super().soft_losses(student, teacher, batch, temperature), axis=-1)

    def decide(self, example: QuestionExample, scored: ScoredSequences, limits: TokenLimits) -> Prediction[Answer]:
        """Predicts the pair of first and last token with the highest score in any window.

        The score of [CLS] stands for no answer. Its minimum over the windows counts, because an answer in one window is
        enough.
        """
        no_answer = min(float(score[0].sum()) for _, score in scored)
        candidates = sorted(
            (candidate for sequence, score in scored for candidate in _candidates(example, sequence, score, limits)),
            key=lambda candidate: -candidate[0],
        )
        texts: dict[str, float] = {}
        for score, text in candidates:
            texts.setdefault(text, score)
        texts = dict(list(texts.items())[:_MAX_ANSWERS])
        if not texts:  # the passage has no tokens
            return Prediction(Answer("", 0.0), best=(("", 1.0),))
        likeliest, score = next(iter(texts.items()))
        ranked = sorted([*texts.items(), ("", no_answer)], key=lambda candidate: -candidate[1])
        probabilities = softmax(np.array([score for _, score in ranked]))
        best = tuple((text, float(value)) for (text, _), value in zip(ranked, probabilities, strict=True))
        return Prediction(Answer(likeliest, no_answer - score), best=best)

    def describe(
        self, example: QuestionExample, prediction: Prediction[Answer], labels: tuple[str, ...], threshold: float
    ) -> dict[str, object]:
        """Returns the answer at the threshold, the right answers, and the likeliest answers."""
        best = [{"text": text, "probability": round(value, 6)} for text, value in prediction.best[:5]]
        return {
            "id": example.id,
            "prediction": decide(prediction.value, threshold),
            "answers": example.answers,
            "best": best,
            "null_odds": round(prediction.value.null_odds, 4),
        }

    def score_files(
        self, examples: Sequence[QuestionExample], predictions: Sequence[Prediction[Answer]]
    ) -> Mapping[str, Mapping[str, object]]:
        """Returns the two inputs of SQuAD's official script.

        The script applies a threshold to the odds itself, so the answers are those without a threshold.
        """
        pairs = list(zip(examples, predictions, strict=True))
        answers = {example.id: prediction.value.text for example, prediction in pairs}
        odds = {example.id: prediction.value.null_odds for example, prediction in pairs}
        return {"json": answers, "null_odds.json": odds}

    def read_input(self, value: object, where: str) -> QuestionExample:
        """Reads a question and a passage."""
        expected = 'a tuple of two texts (question, passage), or an object {"question": …, "passage": …}'
        check_pair(value, where, expected)
        typed: tuple[str, str] | _Question = convert_input(value, tuple[str, str] | _Question, where, expected)
        if isinstance(typed, _Question):
            passage = typed.context if typed.passage is None else typed.passage
            typed = convert_input((typed.question, passage), tuple[str, str], where, expected)
        question, passage = typed
        return QuestionExample(where, where, checked_text(question, where), checked_text(passage, where))

    def record(self, prediction: Prediction[Answer], task: TaskMetadata, top: int) -> dict[str, object]:
        """Returns the answer, and the likeliest answers."""
        # Without a tuned threshold, SQuAD v2.0 uses 0; for other tasks every question has an answer, as in v1.1.
        default = 0.0 if task.name == "squad/v2.0" else math.inf
        answer = decide(prediction.value, default if task.threshold is None else task.threshold)
        best = [{"answer": text, "probability": rounded(value)} for text, value in prediction.best[:top]]
        return {"answer": answer, "probability": rounded(dict(prediction.best)[answer]), "best": best}

    def transformers_logits(self, outputs: Any) -> np.ndarray:  # noqa: ANN401
        """Returns [rows, length, 2]."""
        return np.stack([outputs.start_logits.numpy(), outputs.end_logits.numpy()], axis=-1)


def _label(example: QuestionExample, offsets: Sequence[tuple[int, int]], window: range, shift: int) -> tuple[int, int]:
    """Returns the positions of the first answer's first and last token; [CLS] unless the window holds all of it."""
    if not example.answers:
        return 0, 0
    start = example.starts[0]
    stop = start + len(example.answers[0])
    inside = [token for token in window if offsets[token][0] < stop and offsets[token][1] > start]
    whole = inside and offsets[inside[0]][0] <= start and offsets[inside[-1]][1] >= stop
    return (inside[0] + shift, inside[-1] + shift) if whole else (0, 0)


def _candidates(
    example: QuestionExample, sequence: EncodedExample, score: np.ndarray, limits: TokenLimits
) -> list[tuple[float, str]]:
    """Returns (score, text) of the best answers within one window."""
    start, end = score[list(sequence.token_positions)].T if sequence.token_positions else np.zeros((2, 0))
    begin, stop = sequence.answer_range
    firsts, lengths = np.indices((stop - begin, limits.answer_length)).reshape(2, -1)
    firsts = firsts + begin
    lasts = firsts + lengths
    firsts, lasts = firsts[lasts < len(end)], lasts[lasts < len(end)]
    sums = start[firsts] + end[lasts]
    candidates = [
        # A token may include the white space before its word, or be only white space, which is not an answer.
        (float(sums[i]), example.passage[sequence.char_spans[firsts[i]][0] : sequence.char_spans[lasts[i]][1]].strip())
        for i in np.argsort(-sums, kind="stable")[:_MAX_CANDIDATES]
    ]
    return [(score, text) for score, text in candidates if text]
