"""From examples to rows and back: nothing is lost, and answers are found where they stand."""

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


def rows(kind, examples, tokenizer, labels=2, **limits):
    return kind_named(kind).encode_all(examples, ExampleEncoder(tokenizer, TokenLimits(**limits), labels))


def test_pairs_are_joined_and_the_longer_text_gives_way(tokenizer):
    first, second = "the list " * 30, "a value"
    long, short = tokenizer.encode(first), tokenizer.encode(second)
    for a, b, kept in ((first, second, (long, short)), (second, first, (short, long))):
        (row,) = rows("classification", [TextExample("0", "", a, b, 1)], tokenizer, length=32)
        assert len(row.input_ids) == 32 and row.label == 1
        assert row.input_ids[0] == tokenizer.cls_id and row.input_ids[-1] == tokenizer.sep_id
        parts = row.input_ids[1 : row.segment_b - 1], row.input_ids[row.segment_b : -1]
        assert row.input_ids[row.segment_b - 1] == tokenizer.sep_id
        for part, whole in zip(parts, kept, strict=True):
            assert part == whole[: len(part)] and len(part) == min(len(whole), 29 - len(short))
    (row,) = rows("regression", [TextExample("0", "", second, None, 2.5)], tokenizer, length=32)
    assert row.input_ids == [tokenizer.cls_id, *short, tokenizer.sep_id]
    assert row.segment_b == len(row.input_ids) and row.label == 2.5


def test_rows_of_byte_level_models_are_those_of_transformers(tmp_path):
    """RoBERTa: two separators between texts, and words that keep their spaces."""
    transformers = pytest.importorskip("transformers")
    text = ["It is a list.", " The list of a dictionary is a list."] * 50
    tokenizer = tokenizer_training.train("new:bpe:400", text, tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    (row,) = rows("classification", [TextExample("0", "", "The list is", "a dictionary.", 1)], tokenizer)
    assert row.input_ids == theirs("The list is", "a dictionary.")["input_ids"]
    assert row.input_ids[row.segment_b - 3 : row.segment_b].count(tokenizer.sep_id) == 2
    passage = "A list of a dictionary."
    (row,) = rows("span", [QuestionExample("0", "", "What is a list?", passage, ("list",), (2,))], tokenizer)
    assert row.input_ids == theirs("What is a list?", passage)["input_ids"]
    assert row.char_spans[row.label[0] - row.segment_b][0] <= 2 < row.char_spans[row.label[1] - row.segment_b][1]
    words = ("The", "list", "is", "a", "dictionary")
    (row,) = rows("tagging", [WordsExample("0", "", words, (0, 1, 0, 1, 0))], tokenizer)
    assert row.input_ids == theirs(" " + " ".join(words))["input_ids"]


def test_each_choice_is_a_row_and_labels_of_several_become_a_vector(tokenizer):
    made = rows("choice", [ChoiceExample("0", "", "the list", ("is", "has", "a value"), 2)], tokenizer)
    assert [row.input_ids[row.segment_b : -1] for row in made] == [
        tokenizer.encode(t) for t in ("is", "has", "a value")
    ]
    (row,) = rows("multi_label", [TextExample("0", "", "the", None, (0, 3))], tokenizer, labels=4)
    assert row.label == (1, 0, 0, 1)


def test_a_long_sentence_is_cut_between_words_and_rejoined(tokenizer):
    words = ("the", "interpreter", "returns", "a", "dictionary", "of", "classes", "\u200b", "specified") * 7
    labels = tuple(range(len(words)))
    made = rows("tagging", [WordsExample("0", "", words, labels)], tokenizer, labels=len(words), length=24)
    assert len(made) > 3 and max(len(row.input_ids) for row in made) <= 24
    read = [word for row in made for word in row.words]
    assert read == list(range(len(words)))  # each word once, in order, also one of which the tokenizer leaves nothing
    scores = []
    for row in made:
        score = np.zeros((len(row.input_ids), len(words)))
        score[list(row.token_positions), list(row.label)] = 5
        scores.append(score)
    (found,) = kind_named("tagging").predictions([None], made, scores, TokenLimits(length=24))
    assert found.value == labels


def test_tokens_that_are_unknown_and_texts_that_lose_some_are_counted(tokenizer):
    """Special tokens are no text, and text that looks like them is."""

    def counts(kind, *examples, **limits):
        return count_texts(rows(kind, examples, tokenizer, **limits), tokenizer)

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
    # An example counts once, however many rows of it lose their end.
    choices = ChoiceExample("0", "", "the list", (long, long, "is"), 0)
    assert (found := counts("choice", choices, length=24)).truncated == found.examples == 1
    assert counts("choice", choices).truncated == 0
    assert counts("retrieval", choices, length=24) == TextCounts(2 * 22 + size("the list", "is"), 0, 1, 1)


def test_what_is_read_in_windows_is_not_truncated(tokenizer):
    """A question that is cut is, and so is a word that no window holds."""

    def counts(kind, example):
        encoded = rows(kind, [example], tokenizer, length=24, stride=4, question_length=8)
        return len(encoded), count_texts(encoded, tokenizer)

    passage = "the list of a value " * 20
    windows, found = counts("span", QuestionExample("0", "", "a list?", passage))
    assert windows > 5 and (found.examples, found.truncated) == (1, 0)
    assert counts("span", QuestionExample("0", "", "a list " * 20, passage))[1].truncated == 1
    windows, found = counts("tagging", WordsExample("0", "", (*passage.split(), "☃")))
    assert windows > 3 and found == TextCounts(len(tokenizer.encode(passage)) + 1, 1, 1, 0)
    assert counts("tagging", WordsExample("0", "", ("a", "x" * 60, "list")))[1].truncated == 1


PASSAGE = "The method returns a list. " * 40 + "Its name is Ézéchiel."


def question(answers, starts):
    return QuestionExample("q", "dev.json, question q", "What is its name?", PASSAGE, answers, starts)


def test_a_passage_longer_than_the_window_finds_its_answer_at_its_end(tokenizer):
    limits = {"length": 64, "stride": 20}
    example = question(("Ézéchiel",), (PASSAGE.index("Ézéchiel"),))
    made = rows("span", [example], tokenizer, **limits)
    assert len(made) > 5 and all(len(row.input_ids) <= 64 for row in made)
    with_answer = [row for row in made if row.label != (0, 0)]
    assert with_answer and with_answer[-1] is made[-1]
    for row in with_answer:
        first, last = (row.token_positions.index(place) for place in row.label)
        assert PASSAGE[row.char_spans[first][0] : row.char_spans[last][1]] == "Ézéchiel"
    # A model that knows the answer, and one that knows that there is none.
    scores = [np.zeros((len(row.input_ids), 2)) for row in made]
    for row, score in zip(made, scores, strict=True):
        score[row.label[0], 0] += 9
        score[row.label[1], 1] += 9
    (found,) = kind_named("span").predictions([example], made, scores, TokenLimits(**limits))
    assert found.value.text == "Ézéchiel" and found.best[0][0] == "Ézéchiel"
    assert found.value.null_odds == pytest.approx(-18)  # other windows say that nothing answers, but one is enough
    for score in scores:
        score[:] = 0
        score[0] = 9
    (found,) = kind_named("span").predictions([example], made, scores, TokenLimits(**limits))
    assert found.value.null_odds == pytest.approx(18) and found.best[0][0] == ""


@pytest.mark.parametrize("seed", range(3))
def test_the_answer_is_the_best_stretch_of_any(tokenizer, seed):
    """Also where no likely beginning stands before a likely end."""
    example = question((), ())
    made = rows("span", [example], tokenizer, length=64, stride=20)
    rng = np.random.default_rng(seed)
    scores = [rng.normal(size=(len(row.input_ids), 2)) for row in made]
    if seed == 0:
        for score in scores:
            score[:, 0], score[:, 1] = np.arange(len(score)), -np.arange(len(score))
    (found,) = kind_named("span").predictions([example], made, scores, TokenLimits(64, 20, answer_length=5))
    best = max(
        score[row.token_positions[first], 0] + score[row.token_positions[last], 1]
        for row, score in zip(made, scores, strict=True)
        for first in range(*row.answer_range)
        for last in range(first, min(first + 5, len(row.token_positions)))
    )
    nothing = min(score[0].sum() for score in scores)
    assert found.value.text and found.value.null_odds == pytest.approx(nothing - best)


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_answers_are_without_the_spaces_that_pieces_hold(kind, text_file, tmp_path):
    tokenizer = tokenizer_training.train(f"new:{kind}:400", text_file.read_text().splitlines(), tmp_path)
    passage = "It is the list  of zzz lists."
    example = QuestionExample("0", "", "What is it?", passage)
    made = rows("span", [example], tokenizer)
    scores = [np.random.default_rng(0).normal(size=(len(row.input_ids), 2)) for row in made]
    (found,) = kind_named("span").predictions([example], made, scores, TokenLimits())
    texts = [answer for answer, _ in found.best if answer]
    assert len(texts) > 5 and found.value.text
    assert all(answer == answer.strip() and answer in passage for answer in texts)


def test_every_token_of_a_passage_belongs_to_one_window(tokenizer):
    made = rows("span", [question((), ())], tokenizer, length=64, stride=20)
    owned = [row.char_spans[place] for row in made for place in range(*row.answer_range)]
    assert owned == tokenizer.encode_with_offsets(PASSAGE)[1]
    assert all(row.label == (0, 0) for row in made)


def test_an_answer_is_not_longer_than_allowed(tokenizer):
    made = rows("span", [question((), ())], tokenizer, length=64, stride=20)
    scores = [np.zeros((len(row.input_ids), 2)) for row in made]
    scores[0][made[0].token_positions[2], 0] = scores[0][made[0].token_positions[30], 1] = 5
    (found,) = kind_named("span").predictions(
        [question((), ())], made, scores, TokenLimits(64, 20, 64, answer_length=4)
    )
    assert len(tokenizer.encode(found.value.text)) <= 4


def test_what_cannot_be_one_example_is_refused_with_its_row(tokenizer):
    example = TextExample("0", "train.csv, row 7", "word " * 100_000, None, 0)
    with pytest.raises(UserError, match=r"train\.csv, row 7: .*500,000 characters"):
        rows("classification", [example], tokenizer)
    with pytest.raises(UserError, match=r"question q: .*stride"):
        rows("span", [question((), ())], tokenizer, length=32, stride=30)
