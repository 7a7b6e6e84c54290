"""The Python code of the pages runs, each page from its beginning, in a folder with what it names."""

import shutil
from pathlib import Path

import pytest

from bertjax.checkpoints import pretrained
from bertjax.config.model import ModelConfig
from bertjax.interop.huggingface import export_model
from bertjax.model.pretraining import PretrainingModel
from bertjax.tasks.kinds.catalog import kind_named
from tests.support import models, pages, parity, predictions
from tests.support.commands import ROOT

# Pages whose code this test does not run, with the reason.
EXCEPTIONS = {
    "docs/tutorials/": "a tutorial trains models; each has a test of its own",
    "docs/how-to/pretrain.md": "it trains for minutes; tests/api/test_runs.py makes the same calls",
}
PAGES = [
    path
    for path in pages.PAGES
    if any(block.language == "python" for block in pages.blocks(path))
    and not pages.name(path).startswith(tuple(EXCEPTIONS))
]


@pytest.fixture(scope="module")
def folder(corpus, tmp_path_factory) -> Path:
    """A corpus, small models with random parameters and a task's files, under the names that pages use."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "corpus").symlink_to(corpus)
    (folder / "configs").symlink_to(ROOT / "configs")
    config = ModelConfig(
        vocab_size=600,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=512,
    )
    params = parity.random_params(PretrainingModel(config, "next_sentence"))
    model = models.from_parts(config, params, corpus / "tokenizer")
    pretrained.save(folder / "runs/base", model)
    pretrained.save(folder / "runs/sst2", predictions.with_head(model, kind_named("classification"), ("bad", "good")))
    shutil.copytree(folder / "runs/sst2", folder / "runs/mail")
    export_model(model, folder / "uncased_L-12_H-768_A-12")
    (folder / "data/glue/SST-2").mkdir(parents=True)
    for split in ("train", "dev"):
        (folder / f"data/glue/SST-2/{split}.tsv").write_text("sentence\tlabel\na fine film\t1\na dull film\t0\n")
    return folder


@pytest.mark.parametrize("path", PAGES, ids=pages.name)
def test_the_code_of_a_page_runs(path, folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / "run", symlinks=True)
    monkeypatch.chdir(tmp_path / "run")
    names = {"__name__": "page"}
    for block in pages.blocks(path):
        if block.language == "python":
            exec(compile("\n" * (block.line - 1) + block.text, path, "exec"), names)


def test_code_in_other_languages_is_marked():
    known = {"", "bash", "python", "text", "{toctree}", "{glossary}"}
    for path in pages.PAGES:
        for block in pages.blocks(path):
            assert block.language in known or block.language.startswith(("{generate}", "{literalinclude}")), block.where
