"""ModernBERT's config.json in the current and the older format, and the values that are refused."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from bertjax.config.model import ModelConfig
from bertjax.config.parse import from_config_dict
from bertjax.errors import UserError
from bertjax.interop import configs
from bertjax.interop.huggingface import export_model, import_model
from bertjax.model.pretraining import PretrainingModel
from configs import modern_base
from tests.support.batches import FAMILIES, random_batch
from tests.support.models import from_parts

SMALL = FAMILIES["modernbert"]
# The published config, without keys that do not affect the computation.
BASE = {
    "architectures": ["ModernBertForMaskedLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "classifier_activation": "gelu",
    "classifier_bias": False,
    "classifier_pooling": "mean",
    "decoder_bias": True,
    "embedding_dropout": 0.0,
    "global_attn_every_n_layers": 3,
    "global_rope_theta": 160000.0,
    "hidden_activation": "gelu",
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 1152,
    "layer_norm_eps": 1e-05,
    "local_attention": 128,
    "local_rope_theta": 10000.0,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "mlp_dropout": 0.0,
    "model_type": "modernbert",
    "norm_bias": False,
    "norm_eps": 1e-05,
    "num_attention_heads": 12,
    "num_hidden_layers": 22,
    "pad_token_id": 50283,
    "position_embedding_type": "absolute",
    "tie_word_embeddings": True,
    "vocab_size": 50368,
}
CURRENT = {
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 160000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    },
    "layer_types": ["sliding_attention" if i % 3 else "full_attention" for i in range(22)],
}


def read(folder, **changes) -> ModelConfig:
    values = {key: value for key, value in (BASE | changes).items() if value != "absent"}
    (folder / "config.json").write_text(json.dumps(values))
    return configs.read_config(folder)[0]


ABSENT = dict.fromkeys(("global_attn_every_n_layers", "global_rope_theta", "local_rope_theta"), "absent")


@pytest.mark.parametrize(
    "changes", [{}, ABSENT, ABSENT | CURRENT, CURRENT], ids=["older", "defaults", "current", "both"]
)
def test_the_published_config_equals_modern_base(changes, tmp_path):
    base = from_config_dict(modern_base.get_config()).model
    assert read(tmp_path, **changes) == dataclasses.replace(base, attention_output_dropout_prob=-1.0)


def test_both_formats_are_read(tmp_path):
    old = {"global_rope_theta": 5.0, "local_rope_theta": 7, "local_attention": 10, "global_attn_every_n_layers": 4}
    types = ["sliding_attention" if i % 4 else "full_attention" for i in range(22)]
    rope = {"full_attention": {"rope_theta": 5.0}, "sliding_attention": {"rope_type": "default", "rope_theta": 7.0}}
    new = ABSENT | {"rope_parameters": rope, "layer_types": types, "local_attention": 10}
    for changes in (old, new):
        config = read(tmp_path, **changes)
        assert (config.global_rope_theta, config.local_rope_theta) == (5.0, 7.0)
        assert (config.local_attention, config.global_attn_every_n_layers) == (10, 4)
    config = read(tmp_path, **ABSENT, layer_types=["full_attention"] * 22)
    assert (config.local_attention, config.global_attn_every_n_layers, config.local_rope_theta) == (0, 1, 0.0)


@pytest.mark.parametrize(
    "config",
    [
        *(dataclasses.replace(SMALL, num_hidden_layers=layers) for layers in (1, 2, 3, 4)),
        dataclasses.replace(SMALL, global_attn_every_n_layers=5, hidden_dropout_prob=0.1),
        dataclasses.replace(SMALL, local_attention=0, global_attn_every_n_layers=1, local_rope_theta=0.0),
        dataclasses.replace(SMALL, local_attention=7, local_rope_theta=20.0, hidden_act="gelu_new"),
        dataclasses.replace(SMALL, attention_output_dropout_prob=0.1, attention_probs_dropout_prob=0.2),
    ],
)
def test_configs_round_trip_through_transformers(config, tmp_path):
    transformers = pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text(json.dumps(configs.config_values(config, None, "", 3)))
    loaded = transformers.AutoConfig.from_pretrained(tmp_path)
    assert loaded.layer_types.count("full_attention") == sum(
        not config.is_local(i) for i in range(len(loaded.layer_types))
    )
    loaded.save_pretrained(tmp_path)
    assert configs.read_config(tmp_path)[0] == config


@pytest.mark.parametrize("absent", [ABSENT, CURRENT], ids=["current", "older"])
def test_both_formats_are_written(absent, tmp_path):
    values = configs.config_values(SMALL, None, "", 3)
    assert absent.keys() <= values.keys()
    (tmp_path / "config.json").write_text(json.dumps({key: values[key] for key in values if key not in absent}))
    assert configs.read_config(tmp_path)[0] == SMALL


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention_bias": True}, "attention_bias=True"),
        ({"norm_bias": True}, "norm_bias=True"),
        ({"decoder_bias": False}, "decoder_bias=False"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings"),
        ({"classifier_activation": "relu"}, "classifier_activation='relu'"),
        ({"hidden_activation": "silu", "classifier_activation": "silu"}, "hidden_act='silu'"),
        ({"architectures": ["ModernBertForSequenceClassification"]}, "classifier_pooling='mean'.*fine-tune"),
        ({"architectures": ["ModernBertForMultipleChoice"]}, "classifier_pooling='mean'"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling"),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn", "rope_theta": 1e4}}}, "rope_type='yarn'"),
        ({"rope_theta": 1e4}, "rope_theta=10000.0, which transformers ignores"),
        ({"rope_parameters": {"rope_theta": 1e4}}, "rope_theta=10000.0, which transformers ignores"),
        ({"global_rope_theta": "high"}, "global_rope_theta: Expected `float"),
        ({"local_rope_theta": -1.0}, "local_rope_theta: Expected `float` > 0"),
        ({"local_attention": 1.5}, "local_attention: Expected `int`"),
        ({"global_attn_every_n_layers": 0}, "global_attn_every_n_layers: Expected `int` >= 1"),
        ({"layer_types": ["sliding_attention", "full_attention"] * 11}, "layer_types"),
        ({"layer_types": ["full_attention"] * 21}, "layer_types"),
        ({"layer_types": 22}, "layer_types: Expected `array"),
        ({"rope_parameters": 7}, "rope_parameters: Expected `object"),
        ({"rope_parameters": {"full_attention": "default"}}, "rope_parameters.full_attention: Expected `object"),
        ({"global_rope_theta": 10**400}, "global_rope_theta: "),
        ({"num_attention_heads": 256}, "even with rotary"),
    ],
)
def test_unsupported_values_are_refused(changes, message, tmp_path):
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path, **changes)
    assert "\n" not in str(error.value) and "config.json" in str(error.value)


def test_token_classification_ignores_the_pooling(tmp_path):
    assert read(tmp_path, architectures=["ModernBertForTokenClassification"]) == read(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_bias": True}, "model.use_bias=False"),
        ({"type_vocab_size": 2}, "model.type_vocab_size=0"),
        ({"local_rope_theta": 0.0, "global_rope_theta": 0.0}, "rotary positions"),
        ({"model_type": "bert"}, "model.pre_norm=False"),
    ],
)
def test_models_that_transformers_cannot_represent_are_not_exported(changes, message):
    with pytest.raises(UserError, match=message):
        configs.config_values(dataclasses.replace(SMALL, **changes), None, "", 0)


def test_encoders_without_heads_and_prefix_are_imported(tmp_path, messages):
    transformers = pytest.importorskip("transformers")
    batch = random_batch(SMALL, 1, 8, 2)
    params = jax.jit(lambda: PretrainingModel(SMALL, "").init(jax.random.key(1), batch)["params"])()
    export_model(from_parts(SMALL, params), tmp_path / "whole")
    transformers.ModernBertModel.from_pretrained(tmp_path / "whole").save_pretrained(tmp_path / "encoder")
    messages.clear()
    config, imported, task, _ = import_model(tmp_path / "encoder")
    assert (config, task) == (SMALL, None)
    assert len(messages) == 1 and "decoder.bias" in messages[0] and "initialized randomly" in messages[0]
    for part in ("embeddings", "encoder"):
        assert jax.tree.all(jax.tree.map(np.array_equal, imported[part], params[part]))
