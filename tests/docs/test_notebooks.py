"""The notebooks of the tutorials run from top to bottom, on small settings, with what they contain alone."""

import json
import os
import pydoc_data.topics
import re
import subprocess
import sys

import pytest

from tests.support.commands import ROOT

TUTORIALS = ROOT / "docs" / "tutorials"
NOTEBOOKS = sorted((TUTORIALS / "notebooks").glob("*.ipynb"))
# Values for names of the first code cell.
TINY = {
    "MODEL": {
        "model.hidden_size": 32,
        "model.num_attention_heads": 2,
        "model.intermediate_size": 64,
        "model.max_position_embeddings": 64,
    },
    "VOCABULARY": 600,
}
BASE = TINY | {"DOCUMENTS": 40, "BASE_STEPS": 2}
SMALL = {
    "first-pretraining": TINY
    | {"SOURCE": "text:topics.txt", "STEPS": 6, "STOP": 3, "LOGGING": {"log_every": 1, "eval_every": 3}},
    "finetune-on-a-csv": BASE | {"TRAIN": 40, "DEV": 20, "LEARNING_RATES": (1e-3,), "EPOCHS": 1},
    # These two start from the model of the fixture; their cells that make one are those of finetune-on-a-csv.
    "adapt-to-a-domain": {"DOCUMENTS": 12, "LICENSES": 8, "ADD_WORDS": 20, "ADAPT_STEPS": 1},
    "sentence-embeddings-and-search": {"TRAIN": 60, "DEV": 20, "EPOCHS": 1},
}
FROM_FIXTURE = ("adapt-to-a-domain", "sentence-embeddings-and-search")
SHELL = re.compile(r"^( *)!(.*)$", re.MULTILINE)


def cells(path) -> list[dict]:
    return json.loads(path.read_text())["cells"]


def code_cells(path) -> list[dict]:
    return [cell for cell in cells(path) if cell["cell_type"] == "code"]


def shell(command: str) -> None:
    """Runs a line that starts with `!`, as a notebook does with the Python of its kernel, and fails if it fails."""
    words = re.sub(r"^python\b", lambda match: sys.executable, command)
    result = subprocess.run(words, shell=True, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr


def python_of(source: str) -> str:
    """The source of a cell in which shell lines are calls of `shell`; {name} in them is the value of a variable."""
    return SHELL.sub(lambda match: f"{match[1]}_shell(f{match[2]!r})", source)


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    """Where a notebook runs, with bertjax importable for the commands that it starts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    return tmp_path


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, empty_folder, trained):
    settings = SMALL[path.stem] | ({"BASE": str(trained)} if path.stem in FROM_FIXTURE else {})
    if path.stem == "first-pretraining":  # reading pydoc: takes longer than all else
        topics = sorted(pydoc_data.topics.topics.values(), key=len)[-60:-20]
        texts = ["\n".join(line for line in topic.splitlines() if line.strip()) for topic in topics]
        (empty_folder / "topics.txt").write_text("\n\n".join(texts))
    names = {"__name__": "notebook", "_shell": shell}
    for number, cell in enumerate(code_cells(path)):
        source = "".join(cell["source"])
        exec(compile(python_of(source), f"{path.name}, code cell {number}", "exec"), names)
        if number == 0:
            unknown = set(settings) - set(names)
            assert not unknown, f"{path.name}: the first code cell does not set {unknown}"
            names |= settings


def test_the_notebooks_make_their_first_model_in_the_same_way():
    cells_of_base = {
        path.stem: ["".join(cell["source"]) for cell in code_cells(path) if "not BASE" in "".join(cell["source"])]
        for path in NOTEBOOKS
    }
    made = cells_of_base["finetune-on-a-csv"]
    assert len(made) == 1 and all(cells_of_base[name] == made for name in FROM_FIXTURE)


def test_every_tutorial_has_a_notebook_and_links_to_it():
    pages = {path.stem: path.read_text() for path in TUTORIALS.glob("*.md")}
    index = pages.pop("index")
    assert {path.stem for path in NOTEBOOKS} == set(pages) == set(SMALL)
    for name, text in pages.items():
        assert f"](notebooks/{name}.ipynb)" in text
        assert f"]({name}.md)" in index and f"](notebooks/{name}.ipynb)" in index


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs(path):
    notebook = json.loads(path.read_text())
    assert notebook["nbformat"] == 4
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    assert notebook["cells"][0]["source"][0].startswith("# ")
    assert code_cells(path)[0]["metadata"] == {"tags": ["settings"]}
    for cell in code_cells(path):
        assert cell["outputs"] == [] and cell["execution_count"] is None
