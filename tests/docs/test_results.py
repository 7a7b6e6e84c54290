"""The pages of results are those that the script makes of the measurements, and measurements are complete."""

import importlib.util
import json
import re

import pytest

from tests.support.commands import ROOT

RESULTS = ROOT / "benchmarks" / "results"
PAGES = ROOT / "docs" / "results"
FORMS = {"date": r"\d{4}-\d\d-\d\d", "commit": r"[0-9a-f]{7,40}(, [0-9a-f]{7,40})*"}
FIELDS = {"title", "command", "hardware", "date", "commit", "versions"}


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    """The pages as the script makes them."""
    spec = importlib.util.spec_from_file_location("results_pages", ROOT / "benchmarks" / "results_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.pages()


def test_pages_are_those_of_the_script(made):
    assert {path.name for path in PAGES.glob("*.md")} == set(made)
    for name, text in made.items():
        assert (PAGES / name).read_text() == text, f"{name}: run python benchmarks/results_pages.py"


def test_measurements_are_complete():
    for path in RESULTS.glob("*.json"):
        page = json.loads(path.read_text())
        assert {"title", "finding", "about", "measurements"} == set(page), path
        for measurement in page["measurements"]:
            assert set(measurement) >= FIELDS, (path, measurement["title"])
            assert all(measurement[field] for field in FIELDS), (path, measurement["title"])
            for field, form in FORMS.items():
                value = measurement[field]
                assert value == "not recorded" or re.fullmatch(form, value), (path, value)
            if "raw" in measurement:
                assert (RESULTS / measurement["raw"]).is_file()
            else:
                assert {len(row) for row in measurement["rows"]} == {len(measurement["columns"])}, path


def test_every_raw_file_is_on_a_page():
    measurements = [one for path in RESULTS.glob("*.json") for one in json.loads(path.read_text())["measurements"]]
    used = {measurement["raw"] for measurement in measurements if "raw" in measurement}
    assert {path.name for path in RESULTS.glob("*.jsonl")} == used
