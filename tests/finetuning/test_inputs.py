"""Encoding of examples as rows, and decoding of scores as predictions and answers."""

import numpy as np
import pytest

from bertjax.errors import UserError
from bertjax.tasks.encoding import ExampleEncoder, count_texts
from bertjax.tasks.examples import ChoiceExample, QuestionExample, TextExample, WordsExample
from bertjax.tasks.kinds.catalog import kind_named
from bertjax.tasks.metadata import TokenLimits
from bertjax.text import tokenizer_training
from bertjax.text.text_counts import TextCounts
from bertjax.text.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def tokenizer(corpus):
    return load_tokenizer(corpus / "tokenizer")


def encode(kind, examples, tokenizer, labels=2, **limits):
    return kind_named(kind).encode_all(examples, ExampleEncoder(tokenizer, TokenLimits(**limits), labels))


def test_pairs_are_joined_and_the_longer_text_is_truncated(tokenizer):
    first, second = "the list " * 30, "a value"
    long, short = tokenizer.encode(first), tokenizer.encode(second)
    for a, b, texts in ((first, second, (long, short)), (second, first, (short, long))):
        (row,) = encode("classification", [TextExample("0", "", a, b, 1)], tokenizer, length=32)
        assert len(row.input_ids) == 32 and row.label == 1
        assert row.input_ids[0] == tokenizer.cls_id and row.input_ids[-1] == tokenizer.sep_id
        parts = row.input_ids[1 : row.segment_b - 1], row.input_ids[row.segment_b : -1]
        assert row.input_ids[row.segment_b - 1] == tokenizer.sep_id
        for part, whole in zip(parts, texts, strict=True):
            assert part == whole[: len(part)] and len(part) == min(len(whole), 29 - len(short))
    (row,) = encode("regression", [TextExample("0", "", second, None, 2.5)], tokenizer, length=32)
    assert row.input_ids == [tokenizer.cls_id, *short, tokenizer.sep_id]
    assert row.segment_b == len(row.input_ids) and row.label == 2.5


def test_rows_of_byte_level_models_match_transformers(tmp_path):
    """RoBERTa has two separators between texts, and its words keep their leading space."""
    transformers = pytest.importorskip("transformers")
    text = ["It is a list.", " The list of a dictionary is a list."] * 50
    tokenizer = tokenizer_training.train_tokenizer("new:bpe:400", text, tmp_path)
    reference = transformers.AutoTokenizer.from_pretrained(tmp_path)
    (row,) = encode("classification", [TextExample("0", "", "The list is", "a dictionary.", 1)], tokenizer)
    assert row.input_ids == reference("The list is", "a dictionary.")["input_ids"]
    assert row.input_ids[row.segment_b - 3 : row.segment_b].count(tokenizer.sep_id) == 2
    passage = "A list of a dictionary."
    (row,) = encode("span", [QuestionExample("0", "", "What is a list?", passage, ("list",), (2,))], tokenizer)
    assert row.input_ids == reference("What is a list?", passage)["input_ids"]
    assert row.char_spans[row.label[0] - row.segment_b][0] <= 2 < row.char_spans[row.label[1] - row.segment_b][1]
    words = ("The", "list", "is", "a", "dictionary")
    (row,) = encode("tagging", [WordsExample("0", "", words, (0, 1, 0, 1, 0))], tokenizer)
    assert row.input_ids == reference(" " + " ".join(words))["input_ids"]


def test_each_choice_is_a_row_and_multiple_labels_are_a_vector(tokenizer):
    encoded = encode("choice", [ChoiceExample("0", "", "the list", ("is", "has", "a value"), 2)], tokenizer)
    assert [row.input_ids[row.segment_b : -1] for row in encoded] == [
        tokenizer.encode(t) for t in ("is", "has", "a value")
    ]
    (row,) = encode("multi_label", [TextExample("0", "", "the", None, (0, 3))], tokenizer, labels=4)
    assert row.label == (1, 0, 0, 1)


def test_a_long_sentence_is_split_between_words_and_rejoined(tokenizer):
    words = ("the", "interpreter", "returns", "a", "dictionary", "of", "classes", "\u200b", "specified") * 7
    labels = tuple(range(len(words)))
    encoded = encode("tagging", [WordsExample("0", "", words, labels)], tokenizer, labels=len(words), length=24)
    assert len(encoded) > 3 and max(len(row.input_ids) for row in encoded) <= 24
    word_numbers = [word for row in encoded for word in row.words]
    assert word_numbers == list(range(len(words)))  # each word once, in order, even a word without tokens
    scores = []
    for row in encoded:
        score = np.zeros((len(row.input_ids), len(words)))
        score[list(row.token_positions), list(row.label)] = 5
        scores.append(score)
    (prediction,) = kind_named("tagging").predictions([None], encoded, scores, TokenLimits(length=24))
    assert prediction.value == labels


def test_unknown_tokens_and_truncated_texts_are_counted(tokenizer):
    """Special tokens are not counted, but text that looks like one is."""

    def counts(kind, *examples, **limits):
        return count_texts(encode(kind, examples, tokenizer, **limits), tokenizer)

    def size(*texts):
        return sum(len(tokenizer.encode(text)) for text in texts)

    unread, pair, long = "the ☃ of a ☃☃ list [UNK]", ("a list", "the [PAD] value"), "a value " * 20
    texts = [
        TextExample("0", "", unread),
        TextExample("1", "", *pair),
        TextExample("2", "", long),
    ]
    read = size(unread, *pair)
    assert tokenizer.encode(unread).count(tokenizer.unk_id) == 2
    assert counts("classification", *texts) == TextCounts(read + size(long), 2, 3, 0)
    assert counts("classification", *texts, length=24) == TextCounts(read + 22, 2, 3, 1)
    fits = " ".join(["a"] * 22)
    assert counts("classification", TextExample("0", "", fits), length=24).truncated == 0
    assert counts("classification", TextExample("0", "", fits + " a"), length=24).truncated == 1
    assert counts("classification", TextExample("0", "", fits, "a"), length=26).truncated == 0
    assert counts("classification", TextExample("0", "", fits, "a a"), length=26).truncated == 1
    # An example counts once, however many of its rows are truncated.
    choices = ChoiceExample("0", "", "the list", (long, long, "is"), 0)
    assert (total := counts("choice", choices, length=24)).truncated == total.examples == 1
    assert counts("choice", choices).truncated == 0
    assert counts("retrieval", choices, length=24) == TextCounts(2 * 22 + size("the list", "is"), 0, 1, 1)


def test_windows_do_not_truncate(tokenizer):
    """Only long questions and words longer than a window are truncated."""

    def counts(kind, example):
        encoded = encode(kind, [example], tokenizer, length=24, stride=4, question_length=8)
        return len(encoded), count_texts(encoded, tokenizer)

    passage = "the list of a value " * 20
    windows, total = counts("span", QuestionExample("0", "", "a list?", passage))
    assert windows > 5 and (total.examples, total.truncated) == (1, 0)
    assert counts("span", QuestionExample("0", "", "a list " * 20, passage))[1].truncated == 1
    windows, total = counts("tagging", WordsExample("0", "", (*passage.split(), "☃")))
    assert windows > 3 and total == TextCounts(len(tokenizer.encode(passage)) + 1, 1, 1, 0)
    assert counts("tagging", WordsExample("0", "", ("a", "x" * 60, "list")))[1].truncated == 1


PASSAGE = "The method returns a list. " * 40 + "Its name is Ézéchiel."


def question(answers, starts):
    return QuestionExample("q", "dev.json, question q", "What is its name?", PASSAGE, answers, starts)


def test_an_answer_at_the_end_of_a_long_passage_is_found(tokenizer):
    limits = {"length": 64, "stride": 20}
    example = question(("Ézéchiel",), (PASSAGE.index("Ézéchiel"),))
    encoded = encode("span", [example], tokenizer, **limits)
    assert len(encoded) > 5 and all(len(row.input_ids) <= 64 for row in encoded)
    with_answer = [row for row in encoded if row.label != (0, 0)]
    assert with_answer and with_answer[-1] is encoded[-1]
    for row in with_answer:
        first, last = (row.token_positions.index(position) for position in row.label)
        assert PASSAGE[row.char_spans[first][0] : row.char_spans[last][1]] == "Ézéchiel"
    # Scores of the right answer, then scores of no answer.
    scores = [np.zeros((len(row.input_ids), 2)) for row in encoded]
    for row, score in zip(encoded, scores, strict=True):
        score[row.label[0], 0] += 9
        score[row.label[1], 1] += 9
    (prediction,) = kind_named("span").predictions([example], encoded, scores, TokenLimits(**limits))
    assert prediction.value.text == "Ézéchiel" and prediction.best[0][0] == "Ézéchiel"
    assert prediction.value.null_odds == pytest.approx(-18)  # windows without the answer do not outvote the one with it
    for score in scores:
        score[:] = 0
        score[0] = 9
    (prediction,) = kind_named("span").predictions([example], encoded, scores, TokenLimits(**limits))
    assert prediction.value.null_odds == pytest.approx(18) and prediction.best[0][0] == ""


@pytest.mark.parametrize("seed", range(3))
def test_the_answer_is_the_span_with_the_best_score(tokenizer, seed):
    """Even if no likely start comes before a likely end."""
    example = question((), ())
    encoded = encode("span", [example], tokenizer, length=64, stride=20)
    rng = np.random.default_rng(seed)
    scores = [rng.normal(size=(len(row.input_ids), 2)) for row in encoded]
    if seed == 0:
        for score in scores:
            score[:, 0], score[:, 1] = np.arange(len(score)), -np.arange(len(score))
    (prediction,) = kind_named("span").predictions([example], encoded, scores, TokenLimits(64, 20, answer_length=5))
    best = max(
        score[row.token_positions[first], 0] + score[row.token_positions[last], 1]
        for row, score in zip(encoded, scores, strict=True)
        for first in range(*row.answer_range)
        for last in range(first, min(first + 5, len(row.token_positions)))
    )
    no_answer = min(score[0].sum() for score in scores)
    assert prediction.value.text and prediction.value.null_odds == pytest.approx(no_answer - best)


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_answers_have_no_surrounding_spaces(kind, text_file, tmp_path):
    tokenizer = tokenizer_training.train_tokenizer(f"new:{kind}:400", text_file.read_text().splitlines(), tmp_path)
    passage = "It is the list  of zzz lists."
    example = QuestionExample("0", "", "What is it?", passage)
    encoded = encode("span", [example], tokenizer)
    scores = [np.random.default_rng(0).normal(size=(len(row.input_ids), 2)) for row in encoded]
    (prediction,) = kind_named("span").predictions([example], encoded, scores, TokenLimits())
    texts = [answer for answer, _ in prediction.best if answer]
    assert len(texts) > 5 and prediction.value.text
    assert all(answer == answer.strip() and answer in passage for answer in texts)


def test_every_token_of_a_passage_may_start_an_answer_in_one_window(tokenizer):
    encoded = encode("span", [question((), ())], tokenizer, length=64, stride=20)
    spans = [row.char_spans[position] for row in encoded for position in range(*row.answer_range)]
    assert spans == tokenizer.encode_with_offsets(PASSAGE)[1]
    assert all(row.label == (0, 0) for row in encoded)


def test_an_answer_is_not_longer_than_allowed(tokenizer):
    encoded = encode("span", [question((), ())], tokenizer, length=64, stride=20)
    scores = [np.zeros((len(row.input_ids), 2)) for row in encoded]
    scores[0][encoded[0].token_positions[2], 0] = scores[0][encoded[0].token_positions[30], 1] = 5
    (prediction,) = kind_named("span").predictions(
        [question((), ())], encoded, scores, TokenLimits(64, 20, 64, answer_length=4)
    )
    assert len(tokenizer.encode(prediction.value.text)) <= 4


def test_invalid_examples_are_refused_with_their_location(tokenizer):
    example = TextExample("0", "train.csv, row 7", "word " * 100_000, None, 0)
    with pytest.raises(UserError, match=r"train\.csv, row 7: .*500,000 characters"):
        encode("classification", [example], tokenizer)
    with pytest.raises(UserError, match=r"question q: .*stride"):
        encode("span", [question((), ())], tokenizer, length=32, stride=30)
