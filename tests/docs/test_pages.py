"""Links, names of files and the shape of the pages."""

import re

from tests.support import pages
from tests.support.commands import ROOT

LINK = re.compile(r"!?\[[^\]\n]*(?:\n[^\]\n]*)?\]\(([^)\s]+)\)")
FOLDERS = ("benchmarks", "bertjax", "configs", "docs", "launch", "tests")
FILE = re.compile(rf"(?<![\w/.:-])((?:{'|'.join(FOLDERS)})/[\w./-]*\w|[\w-]+\.(?:toml|md|sh))(?![\w*])")
# Names of files that do not exist in the repository, with the reason.
ELSEWHERE = {
    "tests/docs": "a folder",
}
WIDTH = 100


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub and MyST make it."""
    text = re.sub(r"[`*]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchors(path) -> set[str]:
    """The anchors of a page's headings, and explicit ones."""
    text = pages.prose(path)
    headings = {slug(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
    return headings | set(re.findall(r"\{#([\w-]+)\}", text)) | set(re.findall(r"^\(([\w-]+)\)=$", text, re.MULTILINE))


def test_links_lead_to_files_and_headings():
    broken = []
    for path in pages.PAGES:
        for target in LINK.findall(pages.prose(path)):
            file, _, anchor = target.partition("#")
            if re.match(r"\w+:", target) or (not file and re.match(r"(train|finetune|prepare|predict)-", anchor)):
                continue  # anchors of generated keys and flags: the build of the site checks them
            there = path if not file else (path.parent / file).resolve()
            if not there.exists():
                broken.append(f"{pages.name(path)}: {target}")
            elif anchor and there.suffix == ".md" and anchor not in anchors(there):
                generated = "{generate}" in there.read_text()
                broken += [] if generated else [f"{pages.name(path)}: {target}"]
    assert not broken


def test_files_that_pages_name_exist():
    missing = []
    for path in pages.PAGES:
        if path.name == "CHANGELOG.md":
            continue
        for code in re.findall(r"`([^`\n]+)`", path.read_text()):
            for name in FILE.findall(code):
                if "/" in name and not (ROOT / name).exists() and not written_by_commands(code, name):
                    missing.append(f"{pages.name(path)}: {name}")
    assert not missing


def written_by_commands(code: str, name: str) -> bool:
    """Whether a name in code is that of a user's file, or a short form that a package completes."""
    return name in ELSEWHERE or "=" in code


def test_pages_that_code_names_exist():
    missing = []
    suffixes = (".py", ".sh")
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.*"):
            if path.suffix in suffixes and path.name != "test_pages.py":
                names = set(re.findall(r"\bdocs/[\w/-]+\.md\b", path.read_text()))
                missing += [f"{pages.name(path)}: {name}" for name in names if not (ROOT / name).exists()]
    assert not missing


def test_prose_is_wrapped():
    long = []
    for path in pages.SITE.rglob("*.md"):
        for number, line in enumerate(pages.prose(path).splitlines(), 1):
            # Tables cannot be wrapped; links and code must not be.
            if len(line) > WIDTH and not line.startswith(("|", "![", "<!--")):
                long.append(f"{pages.name(path)}:{number}: {len(line)}")
    assert not long


def test_every_page_has_one_title_and_is_reachable():
    for path in pages.SITE.rglob("*.md"):
        titles = re.findall(r"^# .*$", pages.prose(path), re.MULTILINE)
        assert len(titles) == 1, path
