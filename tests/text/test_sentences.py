import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertjax.text import sentences


@pytest.mark.parametrize(
    "expected",
    [
        ["Dr. Smith paid $3.50 to Mr. Jones on Jan. 3.", "He was glad."],
        ["The U.S. economy grew 2.5 percent, e.g. in Q3.", "See Fig. 4."],
        ["J. R. R. Tolkien wrote it.", "He was born in 1892."],
        ['"Was it enough?" he asked.', '"No!" she said.'],
        ["He arrived at 5 p.m.", "Then he left."],
        ["Version 3.11.7 is out.", "Visit www.example.com.", "It works."],
    ],
)
def test_abbreviations_quotes_and_decimals(expected):
    assert sentences.split(" ".join(expected)) == expected


@given(st.text(st.sampled_from(list("aB1. \n\t!?\"'“”()…。\u2028\x1c\x85\xa0é汉\u0301"))) | st.text())
@settings(max_examples=300, deadline=None)
def test_no_text_is_lost_and_no_sentence_is_empty(document):
    result = sentences.split(document)
    assert "".join("".join(result).split()) == "".join(document.split())
    assert all(sentence == " ".join(sentence.split()) and sentence for sentence in result)


@pytest.mark.parametrize("unit", ["word ", "x", "a, b; "])
def test_overlong_sentences_are_split_without_loss(unit):
    document = unit * 20_000
    result = sentences.split(document)
    assert max(map(len, result)) <= sentences.MAX_CHARACTERS
    assert "".join("".join(result).split()) == "".join(document.split())
    if " " in unit:
        assert {word for sentence in result for word in sentence.split()} == set(document.split())


def test_wrapped_lines_are_joined():
    document = (
        "The quick brown fox jumps over the lazy dog, and then it goes on to jump\n"
        "over another one, because it can and nobody is there to keep it from\n"
        "doing so. It rests.\n"
    )
    assert [len(sentence.split()) for sentence in sentences.split(document)] == [32, 2]


def test_unwrapped_lines_are_separate_sentences():
    assert sentences.split("Heading\nA list:\n- one\n- two") == ["Heading", "A list:", "- one", "- two"]
    one_per_line = ["It was a dark and stormy night and nobody slept at all", "The rain fell", "It was late, he said"]
    assert sentences.split("\n".join(one_per_line)) == one_per_line
    assert sentences.split("First paragraph\n \nsecond paragraph") == ["First paragraph", "second paragraph"]


def test_abbreviations_depend_on_the_language():
    text = "Das kostet z. B. 3,50 Euro. Es ist teuer."
    assert sentences.split(text, "de") == ["Das kostet z. B. 3,50 Euro.", "Es ist teuer."]


PARAGRAPHS = st.text(st.sampled_from(list("aB1. \t!?\"'“”()…。\u2028\x1c\x85\xa0é汉\u0301")), max_size=30)


@given(st.lists(PARAGRAPHS, max_size=5))
@settings(max_examples=300, deadline=None)
def test_paragraphs_are_split_independently(paragraphs):
    separately = [sentence for paragraph in paragraphs for sentence in sentences.split(paragraph)]
    assert sentences.split("\n\n".join(paragraphs)) == separately
