"""Lets autodoc read bertjax's docstrings, which are plain Markdown with Google's sections.

Single backticks mark code, fences mark blocks of it, lists need no blank line before them, and `*`, `|` and `_` mean
themselves.
"""

import re
import textwrap
from typing import Any

_CODE = re.compile(r"(`+)(?=\S)((?:(?!\n\s*\n).)+?)\1", re.DOTALL)  # may go over two lines
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_DOCTEST = re.compile(r"^ *>>> .*\n(?: *\S.*\n)*", re.MULTILINE)
_ITEM = re.compile(r" *(?:[-*]|\d+\.) ")


def setup(app: Any) -> dict[str, bool]:
    """Converts docstrings before napoleon reads their sections."""
    app.connect("autodoc-process-docstring", _process, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Rewrites a docstring's lines in place."""
    lines[:] = restructured("\n".join(lines)).split("\n")


def restructured(text: str) -> str:
    """A docstring as reStructuredText."""
    parts, end = [], 0
    for match in _FENCE.finditer(text):
        indent, language, code = match.groups()
        block = textwrap.indent(textwrap.dedent(code), f"{indent}    ")
        parts += [_text(text[end : match.start()]), f"\n{indent}.. code-block:: {language or 'text'}\n\n{block}\n"]
        end = match.end()
    return "".join([*parts, _text(text[end:])])


def _text(text: str) -> str:
    """Text without fences; examples with `>>>` stay as they are."""
    parts, end = [], 0
    for match in _DOCTEST.finditer(text):
        parts += [_prose(text[end : match.start()]), match[0]]
        end = match.end()
    return "".join([*parts, _prose(text[end:])])


def _prose(text: str) -> str:
    """Text without examples, with blank lines around lists."""
    lines: list[str] = []
    lists: list[int] = []  # the indentation of the lists that a line is in
    for line in text.split("\n"):
        indent, is_item, before = len(line) - len(line.lstrip()), bool(_ITEM.match(line)), len(lists)
        while line.strip() and lists and indent < lists[-1] + (not is_item):
            lists.pop()
        if is_item and indent not in lists:
            lists.append(indent)
        if line.strip() and len(lists) != before and lines and lines[-1].strip():
            lines.append("")
        lines.append(line)
    return _with_code("\n".join(lines))


def _with_code(text: str) -> str:
    parts, end = [], 0
    for match in _CODE.finditer(text):
        code = " ".join(match[2].split())
        follows = "\\ " if text[match.end() : match.end() + 1].isalnum() else ""  # as in `row`s
        parts += [_escaped(text[end : match.start()]), f"``{code}``{follows}"]
        end = match.end()
    return "".join([*parts, _escaped(text[end:])])


def _escaped(text: str) -> str:
    """Characters that mean something in reStructuredText, but for those that begin an item of a list."""
    escaped = re.sub(r"([*|\\])|(?<=\w)_(?=\W|$)", lambda match: "\\" + match[0], text)
    return re.sub(r"^( *)\\\* ", r"\1* ", escaped, flags=re.MULTILINE)
