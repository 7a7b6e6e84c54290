"""Every fine-tuning config lowers for every accelerator, and every family of models."""

import runpy

import jax
import numpy as np
import pytest

from bertjax.config.finetuning import TableConfig, from_config_dict
from bertjax.config.model import ModelConfig
from bertjax.config.parse import from_config_dict as pretraining_config
from bertjax.finetuning.sweep import Sweep
from bertjax.finetuning.task_model import Split, TaskModel, make_task_model, with_dropout
from bertjax.parallel import sharding
from bertjax.tasks.encoding import EncodedExample
from bertjax.tasks.registry import open_task
from bertjax.trainer.step import make_eval_step
from tests.support.commands import ROOT
from tests.support.models import from_parts
from tests.support.platforms import PLATFORMS, kernels, libraries_of, lower

# Config → (task, pre-training config of its initial model).
CASES = {
    "classify": ("table/classification", "base"),
    "glue": ("glue/stsb", "roberta_base"),
    "similarity": ("glue/mnli", "modern_base"),
    "squad": ("squad/v2.0", "albert_base"),
    "swag": ("swag", "distilbert_base"),
    "tagging": ("conll2003/ner", "modern_base"),
}


def load(name: str, *arguments: str):
    return runpy.run_path(str(ROOT / f"configs/{name}.py"))["get_config"](*arguments)


def model_of(name: str) -> ModelConfig:
    return pretraining_config(load(name)).model


def test_every_config_and_family_has_a_case():
    values = {path.stem: load(path.stem) for path in (ROOT / "configs").glob("*.py")}
    assert CASES.keys() == {name for name in values if "task" in values[name]}
    families = {values[name].model.model_type for name in values if "model" in values[name]}
    assert {model_of(model).model_type for _, model in CASES.values()} == families


def on_mesh(batch: dict[str, np.ndarray], mesh: jax.sharding.Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    shardings = sharding.batch_shardings(batch, mesh)
    return {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=shardings[name]) for name, x in batch.items()}


def task_model_of(name: str, platform: str) -> TaskModel:
    task, model = CASES[name]
    values = load(name)
    values.task, values.init_from = task, "model"
    config = from_config_dict(values)
    # Avoids reading files.
    table, labels = (TableConfig(train="train.csv"), ("bad", "good")) if task.startswith("table/") else (None, None)
    shape = with_dropout(model_of(model), config)
    tokenizer = from_parts(shape, {}).tokenizer
    return make_task_model(config, open_task(task, "data", table, labels), shape, tokenizer, platform)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("name", CASES)
def test_every_config_lowers(name, platform):
    task_model = task_model_of(name, platform)
    config, mesh = task_model.config, task_model.mesh
    count = config.batch * task_model.task.choices
    rows = [EncodedExample(number, [1] * config.length, config.length) for number in range(count)]
    batches = task_model.batches(rows)
    train, padded = (
        on_mesh(batch, mesh) for batch in (batches.example(), batches.padded_batch(np.arange(config.batch)))
    )
    with libraries_of(platform):
        sweep = Sweep(task_model, {}, Split("train", rows, batches), [])
        settings = sweep.settings(config.runs()[0])
        init = lower(platform, sweep.init_state, {}, settings["seed"])
        step = lower(platform, sweep.step, init.out_info, train, settings, None)
        evaluation = lower(platform, make_eval_step(task_model.objective, mesh), init.out_info.params, padded)
    assert not kernels(init)
    assert not kernels(step)  # no kernel supports dropout of the attention probabilities
    # On TPUs, kernels are not used for rows as short as 128 and 384 tokens.
    assert kernels(evaluation) == ({"cudnn"} if platform == "cuda" else set())
