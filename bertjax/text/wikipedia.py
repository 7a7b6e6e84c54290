"""Wikipedia: what WikiExtractor writes, and MediaWiki's own XML dumps.

A dump is streamed page by page; only articles (namespace 0) that are no redirects count. mwparserfromhell parses their
wikitext; templates, tables, references, media and category links are dropped, link texts and headings stay.
"""

import contextlib
import html
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from bertjax.errors import UserError
from bertjax.text import readers

_OPENING = re.compile(r"<doc\b[^>]*>\s*")
# Raw documents of a dump begin with this, so that `clean` can tell them from WikiExtractor's.
_WIKITEXT = "\x02wikitext\n"
_DROPPED_TAGS = {
    "ref",
    "references",
    "table",
    "gallery",
    "math",
    "timeline",
    "score",
    "syntaxhighlight",
    "imagemap",
}
# Codes of languages are in small letters; [[CSI: Miami]] is an article.
_DROPPED_LINKS = re.compile(r"\s*((?i:file|image|category|media)|[a-z]{2,3}(-[a-z]+)*)\s*:")
_HALF_PAIRS = re.compile("[\ud800-\udfff]")  # what an entity such as &#xD800; stands for, which is no character
_LIST_MARKS = re.compile(r"^\s*[*#:;]+")
_MAGIC_WORDS = re.compile(r"__[A-Z]+__")


def read(path: Path, argument: str = "") -> Iterator[str]:
    """Raw articles, titles first.

    Raises:
      UserError: the file is neither WikiExtractor output nor a dump, or breaks off.
    """
    with readers.opened(path) as file:
        start = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith(b"<doc"):
        yield from _extracted(path)
    elif start.startswith((b"<mediawiki", b"<?xml")):
        yield from _dump(path)
    else:
        advice = "for WikiExtractor --json use jsonl:" if start.startswith(b"{") else "for plain text use text:"
        raise UserError(f"{path}: neither WikiExtractor output (<doc …>) nor a MediaWiki dump; {advice}")


def clean(raw: str) -> str:
    """The text of an article."""
    if raw.startswith(_WIKITEXT):
        return _strip_wikitext(raw.removeprefix(_WIKITEXT))
    return html.unescape(raw) if "&" in raw else raw


def _extracted(path: Path) -> Iterator[str]:
    """The text of each <doc …> … </doc> block."""
    rest, opened = "", False
    for block in readers.decoded_blocks(path):
        *whole, rest = (rest + block).split("</doc>")
        for article in whole:
            opening = _OPENING.search(article)
            if not opening:
                raise UserError(f"{path}: </doc> without <doc …>; extract the file again")
            yield from readers.bounded(article[opening.end() :])
        opened = bool(_OPENING.search(rest))
        if opened and len(rest) > 64 * readers.MAX_CHARACTERS:
            break
    if opened or rest.strip():
        raise UserError(f"{path}: the last <doc …> block does not end (</doc> is missing); extract the file again")


def _dump(path: Path) -> Iterator[str]:
    with readers.opened(path) as file:
        events = ElementTree.iterparse(file, events=("start", "end"))
        try:
            _, root = next(events)
            if _local(root) != "mediawiki":
                raise UserError(f"{path}: XML, but no MediaWiki dump (<{_local(root)}>); give a pages-articles dump")
            for event, element in events:
                if event == "end" and _local(element) == "page":
                    article = _page(element)
                    if article:
                        yield article
                    root.clear()
        except ElementTree.ParseError as error:
            raise UserError(f"{path}: broken XML ({error}); get the dump again") from error


def _page(page: ElementTree.Element) -> str:
    """Title and wikitext of an article; "" for anything else. Old dumps name no namespace: all their pages count."""
    title = page.findtext("{*}title")
    fields = {_local(element): element for element in page.iter()}
    if not title or page.findtext("{*}ns", "0") != "0" or "redirect" in fields or "text" not in fields:
        return ""
    if "model" in fields and fields["model"].text != "wikitext":
        return ""
    content = fields["text"].text or ""
    return f"{_WIKITEXT}{title}\n\n{content}" if content.strip() else ""


def _local(element: ElementTree.Element) -> str:
    """A tag without its namespace, which differs between versions of the dump format."""
    return element.tag.rpartition("}")[2]


def _strip_wikitext(raw: str) -> str:
    import mwparserfromhell
    from mwparserfromhell.nodes import Tag, Wikilink

    code = mwparserfromhell.parse(raw, skip_style_tags=True)
    for node in code.filter(recursive=True, forcetype=(Tag, Wikilink)):
        if isinstance(node, Tag):
            dropped = str(node.tag).strip().lower() in _DROPPED_TAGS
        else:
            dropped = _DROPPED_LINKS.match(str(node.title))
        if dropped:
            with contextlib.suppress(ValueError):  # it lay inside a node that is already gone
                code.remove(node)
    text = code.strip_code(normalize=True, collapse=True)
    lines = (_LIST_MARKS.sub("", line).replace("'''", "").replace("''", "").strip() for line in text.split("\n"))
    return _HALF_PAIRS.sub("\ufffd", _MAGIC_WORDS.sub("", "\n".join(lines)).strip())
