"""Splits documents into sentences.

sentencex (rules for some 240 languages, in Rust) finds sentence boundaries. It is by far the fastest of the libraries
compared in `benchmarks/sentences.py`, and handles most abbreviations, quotes and decimals correctly. This module adds
unwrapping of wrapped lines before it and a length limit after it.
"""

import itertools
import re
from collections.abc import Sequence

import sentencex

# Longer "sentences" are tables, lists or code. 4,000 characters are some 1,000 tokens, twice the longest input.
MAX_CHARACTERS = 4_000

_BLANK_LINES = re.compile(r"\n[^\S\n]*\n\s*")
_LIST_MARKS = ("-", "*", "+", "•", "·", "#", "|", ">>>")
# In blocks of any other width each line is a paragraph: lists, verse, or lines that were never wrapped.
_PAGE_WIDTHS = range(50, 121)


def split(document: str, language: str = "en") -> list[str]:
    """Splits a document into sentences.

    A blank line always ends a sentence. A line end does too, unless the lines are wrapped (see `unwrap`). Each run of
    white space becomes one space. All other characters of the document are kept, in order.

    Args:
      document: the text.
      language: ISO 639 code, for abbreviations and quotes; languages without rules use the English ones.

    Returns:
      Non-empty sentences of at most `MAX_CHARACTERS` characters, without white space at their ends.
    """
    blocks = (unwrap(block.split("\n")) for block in _BLANK_LINES.split(document))
    paragraphs = (_single_spaced(paragraph) for block in blocks for paragraph in block)
    # One call for all paragraphs: a call costs as much as a short paragraph, and no sentence crosses a blank line.
    text = "\n\n".join(filter(None, paragraphs))
    segments = sentencex.segment(language, text)  # pyright: ignore[reportAttributeAccessIssue]  # native module
    sentences = [sentence.strip() for sentence in segments]
    if max(map(len, sentences), default=0) > MAX_CHARACTERS:
        sentences = [piece for sentence in sentences for piece in _split_at_spaces(sentence)]
    return list(filter(None, sentences))


def spaced(sentences: Sequence[str]) -> list[str]:
    """Returns a document's sentences as in running text: all but the first with a leading space.

    In byte-level BPE a word includes the space before it. Without the space, the first word of a sentence would
    continue the last word of the sentence before. Other tokenizers ignore the space.
    """
    return [*sentences[:1], *(" " + sentence for sentence in sentences[1:])]


def unwrap(lines: list[str]) -> list[str]:
    """Joins lines that were wrapped at a page width; other lines remain separate paragraphs.

    A line is full if the first word of the next line would not fit into the width of the block. If most lines are
    full and the width is that of a page, the text is wrapped, and full lines are joined with the next line.
    """
    if len(lines) == 1:
        return lines
    lines = [line.rstrip() for line in lines]
    width = max(map(len, lines))
    if width not in _PAGE_WIDTHS:
        return lines
    full = [
        # For most pairs the cheap first comparison shows that even the whole next line would fit.
        len(line) + len(next_line) >= width and _is_full(line, next_line, width)
        for line, next_line in itertools.pairwise(lines)
    ]
    if 2 * sum(full) <= len(full):
        return lines
    paragraphs = [[lines[0]]]
    for joined, line in zip(full, lines[1:], strict=True):
        if joined:
            paragraphs[-1].append(line)
        else:
            paragraphs.append([line])
    return ["\n".join(paragraph) for paragraph in paragraphs]


def _is_full(line: str, next_line: str, width: int) -> bool:
    words = next_line.split(None, 1)
    return bool(words) and len(line) + 1 + len(words[0]) > width and not words[0].startswith(_LIST_MARKS)


def _single_spaced(paragraph: str) -> str:
    """Strips a paragraph and replaces each run of white space by one space."""
    paragraph = paragraph.strip()
    # The space is the only printable white space; this test is several times as fast as splitting.
    if paragraph.isprintable() and "  " not in paragraph:
        return paragraph
    return " ".join(paragraph.split())


def _split_at_spaces(sentence: str) -> list[str]:
    """Splits a text into pieces of at most `MAX_CHARACTERS`, at spaces, or anywhere if it has none."""
    pieces, start = [], 0
    while start < len(sentence):
        end = start + MAX_CHARACTERS
        if end < len(sentence):
            space = sentence.rfind(" ", start, end)
            end = space if space > start else end
        pieces.append(sentence[start:end].strip())
        start = end
    return pieces
