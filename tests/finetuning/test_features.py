"""Feature-based fine-tuning: the encoder is frozen, its features are computed once, and a head is trained on them."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from bertjax.arrays.trees import named_leaves
from bertjax.config.finetuning import FEATURES, FinetuneConfig, TableConfig, from_config_dict
from bertjax.errors import UserError
from bertjax.finetuning import evaluation, features
from bertjax.finetuning.run import finetune
from bertjax.finetuning.task_model import ENCODER_PARAMS, make_task_model
from bertjax.inference import predictor
from bertjax.interop.huggingface import export_model
from bertjax.interop.loading import load_model
from bertjax.model.computation import Computation
from bertjax.model.finetuning import FinetuningModel
from bertjax.tasks.examples import ChoiceExample
from bertjax.tasks.kinds.catalog import kind_named
from bertjax.tasks.kinds.choice import Choice
from bertjax.tasks.metadata import TaskMetadata
from bertjax.tasks.registry import open_task
from bertjax.tasks.task_examples import TaskExamples
from tests.support.batches import SMALL, random_batch
from tests.support.models import from_parts
from tests.support.parity import difference, random_params

WORDS = ["the", "returns", "a", "value", "of", "class", "method", "name", "object", "is", "function", "list", "string"]


@pytest.fixture(scope="module")
def config(trained, tmp_path_factory) -> FinetuneConfig:
    """A tagging task: words are labeled by their length."""
    folder = tmp_path_factory.mktemp("words")
    rng = np.random.default_rng(0)
    for name, count in (("train", 200), ("dev", 50)):
        texts = [list(rng.choice(WORDS, rng.integers(3, 12))) for _ in range(count)]
        records = [
            {"text": words, "label": ["long" if len(word) > 5 else "short" for word in words]} for words in texts
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, records)))
    return FinetuneConfig(
        task="table/tagging",
        data_dir=str(folder),
        table=TableConfig(train="train.jsonl", dev="dev.jsonl"),
        init_from=str(trained),
        features="weighted_sum",
        learning_rates=(1e-2,),
        epochs=(4,),
        length=32,
        batch=16,
        log_every=10,
    )


def test_features_are_the_hidden_states_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    import torch

    shape = dataclasses.replace(SMALL, num_hidden_layers=5)
    batch = {name: random_batch(shape, 4, 20, 2)[name] for name in ("input_ids", "token_type_ids", "attention_mask")}
    params = random_params(FinetuningModel(shape, 2, pooled=False))
    task = TaskMetadata("", "tagging", ("a", "b"))
    export_model(from_parts(shape, params, task=task), tmp_path / "export")
    reference = transformers.BertModel.from_pretrained(tmp_path / "export")
    with torch.no_grad():
        tensors = {name: torch.tensor(array) for name, array in batch.items()}
        states = reference(**tensors, output_hidden_states=True).hidden_states
    states = np.stack([state.numpy() for state in states], axis=2)  # [rows, length, layers, hidden]
    real = batch["attention_mask"] == 1
    expected = {"last": states[:, :, -1:], "concat_last_4": states[:, :, -4:], "weighted_sum": states}

    def encode(**fields) -> np.ndarray:
        model = FinetuningModel(shape, outputs=2, **fields)
        return np.asarray(jax.jit(lambda: model.apply({"params": params}, batch, method="encode"))())

    for name, layers in expected.items():
        assert difference(encode(pooled=False, features=name)[real], layers[real]) <= 1, name
    pooled = encode(pooled=True, features="weighted_sum", computation=Computation(unroll=5))
    assert difference(pooled, states[:, 0]) <= 1


@pytest.mark.parametrize("kind", ["classification", "span"])
def test_a_head_on_features_is_the_head_of_the_whole_model(kind):
    """Includes dropout: training on features equals training the head on top of the frozen encoder."""
    batch = random_batch(SMALL, 4, 20, 2)
    model = kind_named(kind).model(SMALL, ("a", "b")).clone(features="weighted_sum")
    params = model.init(jax.random.key(0), batch)["params"]
    encoded = model.apply({"params": params}, batch, method="encode")
    on_features = {"features": encoded, "attention_mask": batch["attention_mask"]}
    head = model.init(jax.random.key(0), on_features)["params"]
    assert head.keys() == params.keys() - {"embeddings", "encoder"}
    keys = jax.random.split(jax.random.key(1), 4)
    whole = model.apply({"params": params}, batch, keys)["logits"]
    alone = model.apply({"params": {name: params[name] for name in head}}, on_features, keys)["logits"]
    np.testing.assert_allclose(alone, whole, rtol=0, atol=1e-6)
    assert np.abs(alone - model.apply({"params": params}, batch)["logits"]).max() > 1e-3


def test_a_sweep_on_features_trains_a_head_and_saves_a_whole_model(config, tmp_path, messages):
    results = finetune(config, tmp_path / "run")
    assert "computing features (weighted_sum)" in " ".join(messages)
    assert results["best"]["scores"]["dev"]["accuracy"] > 90
    tuned, source = (load_model(path) for path in (tmp_path / "run", config.init_from))
    for part in ("embeddings", "encoder"):
        for name, value in named_leaves(source.params[part]).items():
            assert np.array_equal(named_leaves(tuned.params[part])[name], value), name
    assert np.abs(tuned.params["layer_mixture"]["weights"]).min() > 0
    # The saved model computes the features itself.
    task_model = evaluation.open_scoring(tuned, dataclasses.replace(config, task="", batch=7), None)
    dev = task_model.split("dev")
    predictions = task_model.predictions(tuned.params, dev)
    assert task_model.scores(dev, predictions) == pytest.approx(results["best"]["scores"]["dev"])
    predicted = predictor.load_predictor(tmp_path / "run")([list(dev.examples[0].words)])[0]["labels"]
    assert predicted == [task_model.task.labels[label] for label in predictions[0].value]
    with pytest.raises(UserError, match="is feature-based"):
        export_model(tuned, tmp_path / "export")


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"features": "concat_last_4"}, ["needs four layers", "has 2"]),
        ({"features": "first"}, ["config.features", *FEATURES]),
        ({"features_memory": 1e-6}, ["config.features_memory", "fewer examples"]),
        ({"optimizer": {"layer_decay": 0.9}}, ["config.optimizer.layer_decay"]),
        ({"init_from": "random:"}, ["trained encoder"]),
    ],
)
def test_settings_that_contradict_features_are_refused(config, change, parts, tmp_path):
    if "init_from" in change:
        change = {"init_from": change["init_from"] + config.init_from}
    with pytest.raises(UserError) as error:
        finetune(from_config_dict(dataclasses.asdict(config) | change), tmp_path / "run")
    assert all(part in str(error.value) for part in parts), str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["tagging", "choice"])
def test_features_keep_the_order_of_rows(kind, config):
    """Rows are batched by length; predictions from features equal those from the texts."""
    source = load_model(config.init_from)
    task = open_task(config.task, config.data_dir, config.table)
    if kind == "choice":
        examples = [ChoiceExample(str(i), "", "the " * i, ("a list", "a " * i, "string")) for i in range(1, 22)]
        task = TaskExamples("ends", Choice(), (), lambda split: examples, lambda *_: {}, "accuracy", choices=3)
    task_model = make_task_model(
        dataclasses.replace(config, features="last"), task, source.config.model, source.tokenizer
    )
    dev = task_model.split("dev")
    encoder = {name: source.params[name] for name in ENCODER_PARAMS}
    (cached,) = features.compute_features(task_model, encoder, [dev], 1)
    head = task_model.model.init(jax.random.key(0), cached.batches.example())["params"]
    pairs = zip(task_model.predictions(head, cached), task_model.predictions(encoder | head, dev), strict=True)
    for prediction, expected in pairs:
        np.testing.assert_allclose(prediction.probabilities, expected.probabilities, rtol=0, atol=1e-6)
