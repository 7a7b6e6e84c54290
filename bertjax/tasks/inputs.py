"""From examples to rows of ids, as BERT wants them: [CLS] A [SEP], or [CLS] A [SEP] B [SEP] (RoBERTa: two [SEP]).

A row is what the model reads at once. Most examples are one row; one of choices has a row a choice, and a long passage
or sentence is cut into several windows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bertjax.data.batch import MODEL_INPUTS
from bertjax.errors import UserError
from bertjax.tasks.examples import APART, ChoiceExample, QuestionExample, TextExample, WordsExample
from bertjax.tasks.metadata import TokenLimits
from bertjax.text.tokenizer import Tokenizer

# A text of more characters is a mistake of its file, such as a quotation mark that is never closed.
MOST_CHARACTERS = 200_000


@dataclass(frozen=True)
class Row:
    """One row of a batch.

    `places` are positions of the row and `sources` what stands there: for tagging the first piece of each word and the
    word's number; for span the tokens that may be answered with, and the characters of the passage they stand for.
    """

    example: int  # its place among the examples
    input_ids: list[int]
    second: int  # where the second segment begins; the length where there is none
    label: Any = None  # of the kind's shape in objectives/finetuning.py; for tagging one for each of `places`
    places: tuple[int, ...] = ()
    sources: tuple[Any, ...] = ()
    own: tuple[int, int] = (0, 0)  # span: [first, last + 1) of `places` where an answer of this window may begin

    def write(self, inputs: dict[str, np.ndarray], line: int, begin: int = 0, number: int = 1) -> None:
        """Writes the row into `inputs` of `empty_inputs`; `number` is what `attention_mask` holds of it."""
        end = begin + len(self.input_ids)
        inputs["input_ids"][line, begin:end] = self.input_ids
        inputs["token_type_ids"][line, begin + self.second : end] = 1
        inputs["attention_mask"][line, begin:end] = number


def empty_inputs(shape: tuple[int, int], pad_id: int) -> dict[str, np.ndarray]:
    """A model's inputs [rows, length], nothing but padding."""
    inputs = {array.name: np.zeros(shape, array.dtype) for array in MODEL_INPUTS}
    inputs["input_ids"][:] = pad_id
    return inputs


def rows(kind: str, examples: Sequence[Any], tokenizer: Tokenizer, limits: TokenLimits, labels: int) -> list[Row]:
    """The rows of all examples, in order; `labels` is how many classes there are.

    Raises:
      UserError: a text that is far too long, with its file and row.
    """
    check(examples)
    make = _MAKERS[kind]
    return [row for place, example in enumerate(examples) for row in make(place, example, tokenizer, limits, labels)]


def check(examples: Sequence[Any]) -> None:
    """Refuses texts that are far too long to be meant.

    Raises:
      UserError: there is one, with its file and row.
    """
    for example in examples:
        for value in vars(example).values():
            texts = [value] if isinstance(value, str) else value if isinstance(value, tuple) else ()
            size = sum(len(text) for text in texts if isinstance(text, str))
            if size > MOST_CHARACTERS:
                raise UserError(
                    f"{example.where}: the text has {size:,} characters, at most {MOST_CHARACTERS:,} make sense for "
                    "one example; is a quotation mark not closed? Else cut it"
                )


def _texts(place: int, example: TextExample, tokenizer: Tokenizer, limits: TokenLimits, labels: int) -> list[Row]:
    first = tokenizer.encode(example.text)
    second = None if example.second is None else tokenizer.encode(example.second)
    label = example.label
    if isinstance(label, tuple):
        label = tuple(int(number in label) for number in range(labels))
    return [_joined(place, first, second, tokenizer, limits.length, label)]


def _choices(place: int, example: ChoiceExample, tokenizer: Tokenizer, limits: TokenLimits, labels: int) -> list[Row]:
    first = tokenizer.encode(example.text)
    seconds = [tokenizer.encode(choice) for choice in example.choices]
    return [_joined(place, first, second, tokenizer, limits.length, example.label) for second in seconds]


def _apart(place: int, example: Any, tokenizer: Tokenizer, limits: TokenLimits, labels: int) -> list[Row]:
    """A row for each text of an example, all with its label."""
    if isinstance(example, TextExample) and example.second is None:
        raise UserError(
            f"{example.where}: there is one text only, and config.sentence.apart compares two; leave it out"
        )
    others = example.choices if isinstance(example, ChoiceExample) else (example.second,)
    texts = [tokenizer.encode(text) for text in (example.text, *others)]
    return [_joined(place, text, None, tokenizer, limits.length, example.label) for text in texts]


def _words(place: int, example: WordsExample, tokenizer: Tokenizer, limits: TokenLimits, labels: int) -> list[Row]:
    """A sentence, cut between words into windows where it is too long."""
    room = limits.length - 2
    # A word of characters that the tokenizer drops still needs a place.
    pieces = [ids[:room] or [tokenizer.unk_id] for ids in tokenizer.encode_words(example.words)]
    made = []
    for window in _cut(pieces, room):
        ids, places = [tokenizer.cls_id], []
        for word in window:
            places.append(len(ids))
            ids += pieces[word]
        ids.append(tokenizer.sep_id)
        label = None if example.labels is None else tuple(example.labels[word] for word in window)
        made.append(Row(place, ids, len(ids), label, tuple(places), tuple(window)))
    return made


def _cut(pieces: Sequence[Sequence[int]], room: int) -> list[list[int]]:
    """The numbers of the words in windows of at most `room` pieces; no word has more."""
    windows: list[list[int]] = [[]]
    filled = 0
    for word, ids in enumerate(pieces):
        if windows[-1] and filled + len(ids) > room:
            windows.append([])
            filled = 0
        windows[-1].append(word)
        filled += len(ids)
    return windows


def _passage(place: int, example: QuestionExample, tokenizer: Tokenizer, limits: TokenLimits, labels: int) -> list[Row]:
    """Windows over the passage, each after the question; what two share belongs half to each, by what stands around."""
    question = tokenizer.encode(example.question)[: limits.question_length]
    ids, offsets = tokenizer.encode_with_offsets(example.passage)
    head = [tokenizer.cls_id, *question, *[tokenizer.sep_id] * tokenizer.pair_separators]
    room = limits.length - len(head) - 1
    step = room - limits.stride
    if step < 1:
        raise UserError(
            f"{example.where}: beside a question of {len(question)} tokens, length {limits.length} leaves {room} for "
            f"the passage, which must be more than stride ({limits.stride}); raise length or lower stride"
        )
    begins = list(range(0, max(len(ids) - limits.stride, 1), step))
    made = []
    for number, begin in enumerate(begins):
        end = min(begin + room, len(ids))
        row = [*head, *ids[begin:end], tokenizer.sep_id]
        shift = len(head) - begin
        first = begin if number == 0 else (begin + begins[number - 1] + room) // 2
        last = end if number == len(begins) - 1 else (begins[number + 1] + end) // 2
        label = None if example.answers is None else _answer(example, offsets, begin, end, shift)
        places = tuple(range(begin + shift, end + shift))
        made.append(
            Row(place, row, begin + shift, label, places, tuple(offsets[begin:end]), (first - begin, last - begin))
        )
    return made


def _answer(
    example: QuestionExample, offsets: Sequence[tuple[int, int]], begin: int, end: int, shift: int
) -> tuple[int, int]:
    """Positions of the first answer's first and last token; [CLS] where it does not lie in the window whole."""
    if not example.answers:
        return 0, 0
    start = example.starts[0]
    stop = start + len(example.answers[0])
    inside = [token for token in range(begin, end) if offsets[token][0] < stop and offsets[token][1] > start]
    whole = inside and offsets[inside[0]][0] <= start and offsets[inside[-1]][1] >= stop
    return (inside[0] + shift, inside[-1] + shift) if whole else (0, 0)


def _joined(
    place: int, first: list[int], second: list[int] | None, tokenizer: Tokenizer, length: int, label: Any
) -> Row:
    """One row; what is too long loses its end, of two texts the longer one first."""
    if second is None:
        ids = [tokenizer.cls_id, *first[: length - 2], tokenizer.sep_id]
        return Row(place, ids, len(ids), label)
    between = [tokenizer.sep_id] * tokenizer.pair_separators
    room = length - 2 - len(between)
    keep_second = min(len(second), max(room - len(first), room // 2))
    keep_first = min(len(first), room - keep_second)
    ids = [tokenizer.cls_id, *first[:keep_first], *between, *second[:keep_second], tokenizer.sep_id]
    return Row(place, ids, keep_first + 1 + len(between), label)


_MAKERS: dict[str, Callable[..., list[Row]]] = {
    "classification": _texts,
    "multi_label": _texts,
    "regression": _texts,
    "choice": _choices,
    "tagging": _words,
    **dict.fromkeys(APART, _apart),
    "span": _passage,
}
