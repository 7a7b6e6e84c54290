"""Shapes computed from a config equal those of the model's parameters."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from bertjax.arrays.trees import named_leaves
from bertjax.model.pretraining import PretrainingModel
from bertjax.model.shapes import encoder_shapes
from tests.support.batches import FAMILIES, SMALL

OTHERS = {
    "one layer": dataclasses.replace(FAMILIES["modernbert"], num_hidden_layers=1),
    "all layers global": dataclasses.replace(
        FAMILIES["modernbert"], local_attention=0, local_rope_theta=0.0, global_attn_every_n_layers=1
    ),
    "gated with biases": dataclasses.replace(SMALL, gated_mlp=True, type_vocab_size=0),
    "pre-norm with biases": dataclasses.replace(SMALL, pre_norm=True, embedding_size=10),
    "rotary without biases": dataclasses.replace(SMALL, global_rope_theta=100.0, use_bias=False),
}


@pytest.mark.parametrize("name", [*FAMILIES, *OTHERS])
def test_shapes_of_the_config_are_those_of_the_model(name):
    config = (FAMILIES | OTHERS)[name]
    batch = dict.fromkeys(("input_ids", "token_type_ids", "attention_mask"), jnp.zeros((1, 1), jnp.int32))
    model = PretrainingModel(config, "")
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), batch, method="encode")["params"])
    assert encoder_shapes(config) == {path: leaf.shape for path, leaf in named_leaves(params).items()}
