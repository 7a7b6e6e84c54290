"""A document to its sentences.

sentencex (rules for some 240 languages, in Rust) finds the ends of sentences. Of the libraries that
`benchmarks/sentences.py` compares it is the fastest by far and finds most boundaries right, abbreviations, quotes and
decimals included.
Here stands what comes before and after it: which line ends are only line wrapping, and how long a sentence may get.
"""

import itertools
import re
from collections.abc import Sequence

import sentencex

# A longer sentence is a table, a list or a listing. 4,000 characters are some 1,000 tokens, twice the longest input.
MAX_CHARACTERS = 4_000

_BLANK_LINES = re.compile(r"\n[^\S\n]*\n\s*")
_LIST_MARKS = ("-", "*", "+", "•", "·", "#", "|", ">>>")
# Paragraphs of a narrower or wider page are taken to be one line each: lists, verses, or lines never wrapped.
_PAGE_WIDTHS = range(50, 121)


def split(document: str, language: str = "en") -> list[str]:
    """Splits a document into sentences.

    A blank line always ends a sentence. So does a line end, unless the lines are wrapped (see `unwrap`). White space
    of any kind and number becomes one space. Nothing else is dropped: the characters of the sentences are those
    of the document, in order.

    Args:
      document: the text.
      language: ISO 639 code, for abbreviations and quotes; a language without rules gets English ones.

    Returns:
      Sentences, never empty, without white space at their ends, of at most `MAX_CHARACTERS` characters.
    """
    blocks = (unwrap(block.split("\n")) for block in _BLANK_LINES.split(document))
    paragraphs = (_single_spaced(paragraph) for block in blocks for paragraph in block)
    # One call for all, as a call costs as much as a short paragraph: sentencex never joins what a blank line parts.
    text = "\n\n".join(filter(None, paragraphs))
    found = [sentence.strip() for sentence in sentencex.segment(language, text)]
    if max(map(len, found), default=0) > MAX_CHARACTERS:
        found = [piece for sentence in found for piece in _cut(sentence)]
    return list(filter(None, found))


def spaced(sentences: Sequence[str]) -> list[str]:
    """The sentences of a document as they stand in running text: all but the first with the space before them.

    To byte-level BPE a word is one with its space: without it, a sentence's first word would be the end of the last
    word before it. Other tokenizers see no difference.
    """
    return [*sentences[:1], *(" " + sentence for sentence in sentences[1:])]


def unwrap(lines: list[str]) -> list[str]:
    """Joins lines that were wrapped at a page's width; other lines stay paragraphs of their own.

    A line is full when the first word of the next one would not have fitted into the width of the block. Where
    most lines are full, and the width is that of a page, the text is wrapped, and full lines are joined.
    """
    if len(lines) == 1:
        return lines
    lines = [line.rstrip() for line in lines]
    width = max(map(len, lines))
    if width not in _PAGE_WIDTHS:
        return lines
    full = [
        # Of most lines the first comparison is enough to know that even all of the next one would have fitted.
        len(line) + len(after) >= width and _is_full(line, after, width)
        for line, after in itertools.pairwise(lines)
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


def _is_full(line: str, after: str, width: int) -> bool:
    words = after.split(None, 1)
    return bool(words) and len(line) + 1 + len(words[0]) > width and not words[0].startswith(_LIST_MARKS)


def _single_spaced(paragraph: str) -> str:
    """Without white space at its ends, and within it single spaces."""
    paragraph = paragraph.strip()
    # The space is the only white space that is printable; looking is several times as fast as splitting.
    if paragraph.isprintable() and "  " not in paragraph:
        return paragraph
    return " ".join(paragraph.split())


def _cut(sentence: str) -> list[str]:
    """Cuts a text that is too long for a sentence at spaces, or anywhere when it has none."""
    pieces, start = [], 0
    while start < len(sentence):
        end = start + MAX_CHARACTERS
        if end < len(sentence):
            space = sentence.rfind(" ", start, end)
            end = space if space > start else end
        pieces.append(sentence[start:end].strip())
        start = end
    return pieces
