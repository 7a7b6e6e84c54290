"""Law 6: every parameter has exactly one weight-decay decision, without a catch-all."""

import jax
import jax.numpy as jnp
import pytest

from bertjax import pretraining
from bertjax.config import Config, ModelConfig, Phase
from bertjax.optimizers.decay import RULES, decay_mask, path_name


@pytest.mark.parametrize("next_sentence", [True, False])
def test_coverage_law_of_weight_decay(next_sentence):
    """Every parameter has exactly one decision; LayerNorm and biases are exempt, everything else decays."""
    model = ModelConfig(vocab_size=50, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16)
    config = Config(model=model, next_sentence=next_sentence, phases=(Phase(1, 16, 2),))
    task = pretraining.pretraining_task(config)
    batch = pretraining.abstract_batch(config, config.phases[0])
    params = jax.eval_shape(lambda b: task.model.init(jax.random.key(0), b)["params"], batch)
    decisions = {path_name(path): value for path, value in jax.tree_util.tree_leaves_with_path(decay_mask(params))}
    for name, decays in decisions.items():
        assert decays == (not ("bias" in name or "norm" in name)), name
    assert set(decisions.values()) == {True, False}
    assert {decays for _, decays in RULES} == {True, False}


def test_a_parameter_without_a_rule_is_an_error():
    with pytest.raises(ValueError, match="decide mystery"):
        decay_mask({"mystery": jnp.zeros(2)})
