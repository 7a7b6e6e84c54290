"""Reads Wikipedia: the output of WikiExtractor and MediaWiki XML dumps.

A dump is streamed page by page; only articles (namespace 0) that are not redirects are read. mwparserfromhell parses
their wikitext. Templates, tables, references, media and category links are dropped; link texts and headings are kept.
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
# Prefix of raw documents from a dump; `clean` distinguishes them from WikiExtractor's by it.
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
# Language codes are lower case; [[CSI: Miami]] is an article.
_DROPPED_LINKS = re.compile(r"\s*((?i:file|image|category|media)|[a-z]{2,3}(-[a-z]+)*)\s*:")
_SURROGATES = re.compile("[\ud800-\udfff]")  # from entities such as &#xD800;, which are not characters
_LIST_MARKS = re.compile(r"^\s*[*#:;]+")
_MAGIC_WORDS = re.compile(r"__[A-Z]+__")


def read(path: Path, argument: str = "") -> Iterator[str]:
    """Yields raw articles; each begins with its title.

    Raises:
      UserError: the file is neither WikiExtractor output nor a dump, or is truncated.
    """
    with readers.opened(path) as file:
        start = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith(b"<doc"):
        yield from _extracted(path)
    elif start.startswith((b"<mediawiki", b"<?xml")):
        yield from _dump(path)
    else:
        remedy = "for WikiExtractor --json use jsonl:" if start.startswith(b"{") else "for plain text use text:"
        raise UserError(f"{path}: neither WikiExtractor output (<doc …>) nor a MediaWiki dump; {remedy}")


def clean(raw: str) -> str:
    """Returns the text of a raw article."""
    if raw.startswith(_WIKITEXT):
        return _strip_wikitext(raw.removeprefix(_WIKITEXT))
    return html.unescape(raw) if "&" in raw else raw


def _extracted(path: Path) -> Iterator[str]:
    """Yields the text of each <doc …> … </doc> block."""
    rest, in_article = "", False
    for block in readers.decoded_blocks(path):
        *complete, rest = (rest + block).split("</doc>")
        for article in complete:
            opening = _OPENING.search(article)
            if not opening:
                raise UserError(f"{path}: </doc> without <doc …>; extract the file again")
            yield from readers.bounded(article[opening.end() :])
        in_article = bool(_OPENING.search(rest))
        if in_article and len(rest) > 64 * readers.MAX_CHARACTERS:
            break
    if in_article or rest.strip():
        raise UserError(f"{path}: the last <doc …> block has no </doc>; extract the file again")


def _dump(path: Path) -> Iterator[str]:
    with readers.opened(path) as file:
        events = ElementTree.iterparse(file, events=("start", "end"))
        try:
            _, root = next(events)
            if _local_name(root) != "mediawiki":
                raise UserError(
                    f"{path}: XML (<{_local_name(root)}>), but not a MediaWiki dump; use a pages-articles dump"
                )
            for event, element in events:
                if event == "end" and _local_name(element) == "page":
                    article = _page(element)
                    if article:
                        yield article
                    root.clear()
        except ElementTree.ParseError as error:
            raise UserError(f"{path}: invalid XML ({error}); download the dump again") from error


def _page(page: ElementTree.Element) -> str:
    """Returns title and wikitext of an article; "" for other pages. Pages of old dumps, without namespace, count."""
    title = page.findtext("{*}title")
    fields = {_local_name(element): element for element in page.iter()}
    if not title or page.findtext("{*}ns", "0") != "0" or "redirect" in fields or "text" not in fields:
        return ""
    if "model" in fields and fields["model"].text != "wikitext":
        return ""
    content = fields["text"].text or ""
    return f"{_WIKITEXT}{title}\n\n{content}" if content.strip() else ""


def _local_name(element: ElementTree.Element) -> str:
    """Returns a tag without its namespace, which differs between versions of the dump format."""
    return element.tag.rpartition("}")[2]


def _strip_wikitext(raw: str) -> str:
    import mwparserfromhell
    from mwparserfromhell.nodes import Tag, Wikilink

    code = mwparserfromhell.parse(raw, skip_style_tags=True)
    for node in code.filter(recursive=True):
        if isinstance(node, Tag):
            drop = str(node.tag).strip().lower() in _DROPPED_TAGS
        else:
            drop = isinstance(node, Wikilink) and _DROPPED_LINKS.match(str(node.title))
        if drop:
            with contextlib.suppress(ValueError):  # inside a node that was already removed
                code.remove(node)
    text = code.strip_code(normalize=True, collapse=True)
    lines = (_LIST_MARKS.sub("", line).replace("'''", "").replace("''", "").strip() for line in text.split("\n"))
    return _SURROGATES.sub("\ufffd", _MAGIC_WORDS.sub("", "\n".join(lines)).strip())
