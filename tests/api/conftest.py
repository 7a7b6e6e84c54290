"""A folder as the docstrings of the public API assume it: data, runs and exports."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest

from bertjax.checkpoints import pretrained
from bertjax.data.masking import UNITS
from bertjax.interop import huggingface
from bertjax.interop.loading import load_model
from bertjax.optimizers.registry import OPTIMIZERS
from bertjax.pretraining.objectives import OBJECTIVES
from bertjax.tasks.kinds.catalog import KINDS, kind_named
from bertjax.tasks.metadata import SentenceMetadata, TaskMetadata, TokenLimits
from tests.support.commands import ROOT

TASKS = {
    "mail": ("classification", ("ham", "spam")),
    "entities": ("tagging", ("O", "B-PER", "B-LOC")),
    "squad": ("span", ()),
    "swag": ("choice", ()),
}


@pytest.fixture(autouse=True)
def registries(monkeypatch):
    """Forgets after each test what it registered."""
    for registry in (OPTIMIZERS, OBJECTIVES, UNITS, KINDS):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
        monkeypatch.setattr(registry, "_sources", dict(registry._sources))


@pytest.fixture(scope="session")
def home(corpus, trained, tmp_path_factory):
    """Working directory of the examples; the fine-tuned models have random heads."""
    folder = tmp_path_factory.mktemp("home")
    shutil.copytree(corpus, folder / "data/books")
    shutil.copytree(trained, folder / "runs/books")
    (folder / "configs").symlink_to(ROOT / "configs")
    (folder / "data/mail").mkdir()
    for split in ("train", "dev"):
        (folder / f"data/mail/{split}.csv").write_text("text,label\nYou have won!,spam\nSee you at eight,ham\n")
    model = load_model(trained)
    for name, (kind, labels) in TASKS.items():
        pretrained.save(folder / f"runs/{name}", with_random_head(model, kind, labels))
    huggingface.export_model(
        dataclasses.replace(model, sentence=SentenceMetadata(normalize=True)), folder / "exports/similarity"
    )
    return folder


def with_random_head(model, kind, labels):
    """The model as if fine-tuned."""
    size = kind_named(kind).outputs(labels)
    rng = np.random.default_rng(0)
    params = {name: model.params[name] for name in ("embeddings", "encoder", "pooler")}
    params["task_head"] = {"kernel": rng.normal(size=(32, size)), "bias": rng.normal(size=size)}
    params = jax.tree.map(lambda array: np.asarray(array, np.float32), params)
    limits = TokenLimits(32, 8, 8, 8)
    return dataclasses.replace(model, params=params, task=TaskMetadata("", kind, tuple(labels), limits=limits))
