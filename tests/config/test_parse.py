"""The shipped configs are valid, and bad values are refused."""

import importlib.util
import json

import pytest

from bertjax.config.data import MaskingConfig
from bertjax.config.finetuning import from_config_dict as finetuning_config
from bertjax.config.parse import default_config, from_config_dict, to_dict
from bertjax.config.pretraining import Config, Phase
from bertjax.errors import UserError
from bertjax.optimizers.schedules import learning_rate
from tests.support.commands import ROOT

SHORT = {"steps": 3, "length": 32, "batch": 2}
CONFIGS = sorted((ROOT / "configs").glob("*.py"))


def _load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_is_valid_and_documents_its_command(path):
    module = _load(path)
    values = module.get_config()
    if "task" in values:
        values.init_from = "runs/base"
        assert finetuning_config(values).runs()
    else:
        assert from_config_dict(values).total_steps > 0
    assert f"configs/{path.name}" in module.__doc__ or "launch/quickstart.sh" in module.__doc__


def test_large_is_bert_large_as_published():
    """Table 1 and appendix A.2 of arXiv:1810.04805; phases as in google-research/bert."""
    config = from_config_dict(_load(ROOT / "configs/large.py").get_config())
    model = config.model
    assert (model.num_hidden_layers, model.hidden_size, model.num_attention_heads) == (24, 1024, 16)
    assert (model.intermediate_size, model.vocab_size, model.max_position_embeddings) == (4096, 30522, 512)
    assert config.phases == (Phase(900_000, 128, 256), Phase(100_000, 512, 256))
    optimizer = config.optimizer
    assert (optimizer.learning_rate, optimizer.warmup_steps, optimizer.weight_decay) == (1e-4, 10_000, 0.01)
    assert (optimizer.beta1, optimizer.beta2, optimizer.eps, optimizer.clip_norm) == (0.9, 0.999, 1e-6, 1.0)
    assert not optimizer.bias_correction
    assert config.masking == MaskingConfig() and config.next_sentence


def test_large_lamb_warms_up_twice_as_published():
    """LanguageModeling/BERT of NVIDIA/DeepLearningExamples: 28.43 % of 7,038 steps to 6e-3, 12.8 % of 1,563 to 4e-3."""
    config = from_config_dict(_load(ROOT / "configs/large_lamb.py").get_config())
    assert [(phase.length, phase.batch) for phase in config.phases] == [(128, 65_536), (512, 32_768)]
    rate = learning_rate(config.optimizer, config.phases)
    for start, steps, peak, share in ((0, 7038, 6e-3, 0.2843), (7038, 1563, 4e-3, 0.128)):
        warmup = int(share * steps)
        assert float(rate(start)) == 0
        assert float(rate(start + warmup - 1)) == pytest.approx(peak * (warmup - 1) / warmup)
        for step in (warmup, steps - 1):  # square-root decay
            assert float(rate(start + step)) == pytest.approx(peak * (1 - step / steps) ** 0.5, rel=1e-4)
    assert (config.optimizer.name, config.optimizer.bias_correction, config.total_steps) == ("lamb", True, 8601)


def test_prediction_slots_match_bert():
    assert [MaskingConfig().predictions(length) for length in (128, 512)] == [20, 80]


def test_json_round_trip_is_the_identity():
    config = Config(seed=3)
    assert from_config_dict(json.loads(json.dumps(to_dict(config)))) == config
    assert from_config_dict(default_config()) == Config()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"phases": ({"steps": 1, "length": 8},)}, "lacks batch"),
        ({"phases": 3}, "tuple of dicts"),
        ({"seed": "x"}, "config.seed is 'x'; it must be of type int"),
        ({"model": {"hidden_size": 100, "num_attention_heads": 3}}, "multiple of model.num_attention_heads"),
        ({"model": {"local_attention": 128}}, "model.global_attn_every_n_layers is 1; it must be at least 2"),
        ({"model": {"global_attn_every_n_layers": 3}}, "config.model.global_attn_every_n_layers is 3"),
        ({"model": {"local_attention": 1}}, "config.model.local_attention is 1"),
        ({"model": {"local_rope_theta": 1e4}}, "config.model.local_rope_theta is 10000.0"),
        (
            {"model": {"global_rope_theta": 1e4, "local_attention": 8, "global_attn_every_n_layers": 3}},
            "config.model.local_rope_theta is 0.0",
        ),
        ({"model": {"hidden_size": 60, "global_rope_theta": 1e4}}, "even with rotary position embeddings"),
        ({"model": {"pre_norm": True, "num_hidden_groups": 2}}, "config.model.num_hidden_groups is 2"),
        ({"model": {"prediction_head": True, "pooler_act": "relu"}}, "config.model.pooler_act is 'relu'"),
        ({"model": {"attention_output_dropout_prob": -0.5}}, "config.model.attention_output_dropout_prob"),
        ({"phases": ({"steps": 1, "length": 1024, "batch": 2},)}, "max_position_embeddings (512)"),
        ({"masking": {"rate": 0.0}}, "config.masking.rate"),
        ({"optimizer": {"schedule": "wsd"}}, "config.optimizer.decay_steps"),
        ({"phases": (SHORT | {"learning_rate": 1.0},)}, "the first phase uses optimizer.learning_rate"),
        ({"phases": (SHORT, SHORT | {"warmup_steps": 1})}, "config.phases[1].warmup_steps"),
        ({"phases": (SHORT,), "profile_steps": (2, 5)}, "config.profile_steps is (2, 5)"),
        ({"profile_steps": (2.0, 5)}, "config.profile_steps is (2.0, 5)"),
        ({"optimizer": {"learning_rate": 10**400}}, "config.optimizer.learning_rate is not a finite number"),
        ({"optimizer": {"learning_rate": float("nan")}}, "config.optimizer.learning_rate is not a finite number"),
        ({"dtype": "float16"}, "one of auto, float32, bfloat16"),
    ],
)
def test_bad_values_are_refused_with_path_and_rule(values, message):
    with pytest.raises(UserError) as error:
        from_config_dict(values)
    assert message in str(error.value) and "\n" not in str(error.value)
