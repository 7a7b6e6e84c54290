"""Fine-tuning of ModernBERT, whose head is initialized from the masked-LM head."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from bertjax.arrays.trees import named_leaves
from bertjax.config.finetuning import FinetuneConfig, TableConfig
from bertjax.finetuning.run import finetune
from bertjax.finetuning.task_model import open_task_model
from bertjax.interop.huggingface import export_model
from bertjax.model.pretraining import PretrainingModel
from tests.support.batches import FAMILIES, random_batch
from tests.support.models import from_parts

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{i}" for i in range(20)), "good", "bad"]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Texts of twelve words, one of which is the label; they span four windows of local attention."""
    folder = tmp_path_factory.mktemp("modernbert")
    rng = np.random.default_rng(0)
    for split, count in (("train", 300), ("dev", 60)):
        lines = []
        for good in rng.integers(0, 2, count):
            words = [*rng.choice(PIECES[5:25], 11), "good" if good else "bad"]
            lines.append(json.dumps({"text": " ".join(rng.permutation(words)), "label": str(good)}))
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    (folder / "tokenizer" / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    shape = dataclasses.replace(FAMILIES["modernbert"], vocab_size=len(PIECES), num_hidden_layers=3)
    batch = random_batch(shape, 1, 8, 2)
    params = jax.jit(lambda: PretrainingModel(shape, "").init(jax.random.key(1), batch)["params"])()
    export_model(from_parts(shape, params, folder / "tokenizer"), folder / "model")
    return FinetuneConfig(
        task="table/classification",
        data_dir=str(folder),
        table=TableConfig(train="train.jsonl", dev="dev.jsonl"),
        init_from=str(folder / "model"),
        learning_rates=(1e-2,),
        epochs=(4,),
        seeds=(0,),
        length=16,
        batch=16,
    )


def test_the_head_is_initialized_from_the_masked_lm_head(config):
    task_model, source, params = open_task_model(config)
    assert named_leaves(params["prediction_head"]).keys() == {"dense/kernel", "layer_norm/scale"}
    for name, x in named_leaves(params["prediction_head"]).items():
        assert np.array_equal(x, named_leaves(source.params["masked_lm_head"])[name])
    assert "task_head" not in params
    assert task_model.model.config.attention_output_dropout_prob == -1


def test_it_learns_and_the_next_task_inherits_its_head(config, tmp_path):
    results = finetune(config, tmp_path / "run")
    assert results["best"]["scores"]["dev"]["accuracy"] > 80
    _, source, params = open_task_model(dataclasses.replace(config, init_from=str(tmp_path / "run")))
    assert params["prediction_head"] is source.params["prediction_head"]
