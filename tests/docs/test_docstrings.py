"""Docstrings are Markdown; the site reads them as reStructuredText."""

import sys

import pytest

from tests.support.commands import ROOT

sys.path.append(str(ROOT / "docs" / "_ext"))
from markdown_docstrings import restructured


@pytest.mark.parametrize(
    "markdown, expected",
    [
        ("`a` and `b`s of *args", "``a`` and ``b``\\ s of \\*args"),
        ("over `two\nlines` a|b name_", "over ``two lines`` a\\|b name\\_"),
        ("``double`` stays", "``double`` stays"),
        ("list:\n- a\n  more\n- b", "list:\n\n- a\n  more\n- b"),
        ("- a\n  - b\n  more\ntext", "- a\n\n  - b\n\n  more\n\ntext"),
        ("Load *it*:\n\n>>> f(*x, `y`)\n1\n\nb", "Load \\*it\\*:\n\n>>> f(*x, `y`)\n1\n\nb"),
        ("* a\n* b", "* a\n* b"),
        ("a\n```python\nf(*x)\n```\nb", "a\n\n.. code-block:: python\n\n    f(*x)\n\n\nb"),
        ("[batch, length] of a_b and x.y", "[batch, length] of a_b and x.y"),
    ],
)
def test_markdown_becomes_restructured_text(markdown, expected):
    assert restructured(markdown) == expected
