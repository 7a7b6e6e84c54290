"""The Markdown pages of the repository, and the code in them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.commands import ROOT

SITE = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *SITE.rglob("*.md")])
_FENCE = re.compile(r"^(?P<fence>`{3,}|:{3,})(?P<language>.*?)\n(?P<text>.*?)^(?P=fence)$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, with the number of its first line of code."""

    path: Path
    line: int
    language: str
    text: str

    @property
    def where(self) -> str:
        """As messages name it."""
        return f"{name(self.path)}:{self.line}"


def name(path: Path) -> str:
    """The path within the repository."""
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    content = path.read_text()
    for match in _FENCE.finditer(content):
        line = content[: match.start("text")].count("\n") + 1
        yield Block(path, line, match["language"].strip(), match["text"])


def prose(path: Path) -> str:
    """A page whose fenced blocks are blanked, line by line."""
    return _FENCE.sub(lambda match: "\n" * match[0].count("\n"), path.read_text())
