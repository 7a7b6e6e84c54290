"""Law 6: every parameter has exactly one weight-decay decision and one sharding rule, without a catch-all."""

import re

import jax
import jax.numpy as jnp
import pytest

from bertjax import pretraining
from bertjax.config import Config, ModelConfig, Phase
from bertjax.optimizers.decay import RULES, decay_mask
from bertjax.sharding import PARAMETERS, logical_axes
from bertjax.sharding import RULES as SHARDING_RULES
from bertjax.trees import named_leaves


def abstract_params(next_sentence: bool) -> dict:
    model = ModelConfig(vocab_size=50, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16)
    config = Config(model=model, next_sentence=next_sentence, phases=(Phase(1, 16, 2),))
    objective = pretraining.make_objective(config)
    batch = pretraining.abstract_batch(config, config.phases[0])
    return jax.eval_shape(lambda b: objective.model.init(jax.random.key(0), b)["params"], batch)


@pytest.mark.parametrize("next_sentence", [True, False])
def test_coverage_law_of_sharding(next_sentence):
    """Every parameter has a rule with as many axes as it has dimensions; every rule and every axis is used."""
    params = named_leaves(abstract_params(next_sentence))
    axes = {name: logical_axes(name) for name in params}
    for name, leaf in params.items():
        assert len(axes[name]) == leaf.ndim, name
    if next_sentence:
        for pattern, _ in PARAMETERS:
            assert any(re.fullmatch(pattern, name) for name in axes), pattern
        assert {axis for found in axes.values() for axis in found} | {"batch", "length"} == set(SHARDING_RULES)


def test_a_parameter_without_a_sharding_rule_is_an_error():
    with pytest.raises(ValueError, match="name mystery"):
        logical_axes("mystery")


@pytest.mark.parametrize("next_sentence", [True, False])
def test_coverage_law_of_weight_decay(next_sentence):
    """Every parameter has exactly one decision; LayerNorm and biases are exempt, everything else decays."""
    params = abstract_params(next_sentence)
    decisions = named_leaves(decay_mask(params))
    for name, decays in decisions.items():
        assert decays == (not ("bias" in name or "norm" in name)), name
    assert set(decisions.values()) == {True, False}
    assert {decays for _, decays in RULES} == {True, False}


def test_a_parameter_without_a_rule_is_an_error():
    with pytest.raises(ValueError, match="decide mystery"):
        decay_mask({"mystery": jnp.zeros(2)})
