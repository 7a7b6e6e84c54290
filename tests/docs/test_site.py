"""The site builds without warnings, and its reference contains what the code defines."""

import dataclasses
import html
import re
import subprocess
import sys
from pathlib import Path

import pytest

import bertjax
from bertjax.config.fields import setting_of
from bertjax.config.finetuning import FinetuneConfig
from bertjax.config.pretraining import Config
from tests.support.commands import ROOT


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """The built site."""
    output = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "docs", output / "html"]
    result = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return output / "html"


def ids(page: Path) -> set[str]:
    """The anchors of a page."""
    return set(re.findall(r'\bid="([^"]+)"', page.read_text()))


def keys(cls: type, path: str = ""):
    """Every key of a config with its field, sections included."""
    for field in dataclasses.fields(cls):
        yield path + field.name, field
        for kind in getattr(field.type, "__args__", [field.type]):
            if dataclasses.is_dataclass(kind):
                yield from keys(kind, f"{path}{field.name}.")


@pytest.mark.parametrize(
    "page, prefix, cls", [("pretraining-config", "train", Config), ("finetuning-config", "finetune", FinetuneConfig)]
)
def test_every_setting_is_documented(site, page, prefix, cls):
    path = site / "reference" / f"{page}.html"
    text = html.unescape(re.sub(r"<[^>]+>", "", path.read_text()))
    anchors = ids(path)
    for key, field in keys(cls):
        anchor = f"{prefix}-{key}".replace(".", "-")
        assert {anchor, anchor.replace("_", "-")} & anchors, key
        meaning = setting_of(field).meaning
        assert " ".join(meaning.split()) in " ".join(text.split()), meaning


def test_every_flag_is_documented(site):
    anchors = ids(site / "reference" / "commands.html")
    for path in (ROOT / "bertjax").glob("*.py"):
        source = path.read_text()
        if "\n    cli.run(main" in source:
            assert path.stem in anchors
            for flag in re.findall(r'flags\.DEFINE_\w+\(\s*"(\w+)"', source):
                assert f"{path.stem}-{flag}".replace("_", "-") in anchors, (path, flag)


def test_the_reference_of_functions_is_there(site):
    text = (site / "reference" / "api.html").read_text()
    for name in bertjax._MODULES:
        assert f'id="bertjax.{name}"' in text


def test_the_picture_of_the_imports_is_drawn(site):
    text = (site / "explanation" / "architecture.html").read_text()
    assert "config imports errors in" in text
    assert "errors imports" not in text
