"""Law 6: every parameter has exactly one weight-decay decision and one sharding rule, without a catch-all."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest

from bertjax.arrays.trees import named_leaves
from bertjax.config.model import ModelConfig
from bertjax.config.pretraining import Config, Phase
from bertjax.interop import families
from bertjax.model.finetuning import FinetuningModel
from bertjax.model.partitioning import PARAMETERS, logical_axes
from bertjax.model.pretraining import PretrainingModel
from bertjax.model.sentence import SentenceModel
from bertjax.optimizers.decay import RULES, decay_mask
from bertjax.parallel.sharding import RULES as SHARDING_RULES
from bertjax.pretraining import build
from tests.support.batches import FAMILIES

CONFIG = Config(
    model=ModelConfig(vocab_size=50, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16),
    phases=(Phase(1, 16, 2),),
)
VARIANTS = {
    "pre-training": build.make_objective(CONFIG).model,
    "pre-training without next_sentence": build.make_objective(dataclasses.replace(CONFIG, next_sentence=False)).model,
    "fine-tuning on [CLS]": FinetuningModel(CONFIG.model, 3, True),
    "fine-tuning on all tokens": FinetuningModel(CONFIG.model, 3, False),
    "bi-encoder": SentenceModel(CONFIG.model, 3),
    "features of all layers": FinetuningModel(CONFIG.model, 3, True, features="weighted_sum"),
    **{name: PretrainingModel(shape, families.FAMILIES[name].pairs) for name, shape in FAMILIES.items()},
    **{f"{name} on all tokens": FinetuningModel(shape, 3, False) for name, shape in FAMILIES.items()},
    "modernbert with biases": PretrainingModel(dataclasses.replace(FAMILIES["modernbert"], use_bias=True), ""),
}


def abstract_params(variant: str) -> dict:
    batch = build.abstract_batch(CONFIG, CONFIG.phases[0])
    return jax.eval_shape(lambda b: VARIANTS[variant].init(jax.random.key(0), b)["params"], batch)


@pytest.mark.parametrize("variant", VARIANTS)
def test_coverage_law_of_sharding(variant):
    """Every parameter has a rule with as many axes as it has dimensions."""
    for name, leaf in named_leaves(abstract_params(variant)).items():
        assert len(logical_axes(name)) == leaf.ndim, name


def test_every_sharding_rule_and_every_axis_is_used():
    names = {name for variant in VARIANTS for name in named_leaves(abstract_params(variant))}
    for pattern, _ in PARAMETERS:
        assert any(re.fullmatch(pattern, name) for name in names), pattern
    assert {axis for name in names for axis in logical_axes(name)} | {"batch", "length"} == set(SHARDING_RULES)


def test_a_parameter_without_a_sharding_rule_is_an_error():
    with pytest.raises(ValueError, match="name mystery"):
        logical_axes("mystery")


@pytest.mark.parametrize("variant", VARIANTS)
def test_coverage_law_of_weight_decay(variant):
    """Every parameter has exactly one decision; LayerNorm, biases and mixtures are exempt, everything else decays."""
    params = abstract_params(variant)
    decisions = named_leaves(decay_mask(params))
    for name, decays in decisions.items():
        assert decays == (not re.search("bias|norm|mixture", name)), name
    assert set(decisions.values()) == {True, False}
    assert {decays for _, decays in RULES} == {True, False}


def test_a_parameter_without_a_rule_is_an_error():
    with pytest.raises(ValueError, match="decide mystery"):
        decay_mask({"mystery": jnp.zeros(2)})
