"""The model's parameters, and the inputs that its outputs depend on."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.config.model import ModelConfig
from bertjax.model.computation import Computation
from bertjax.model.pretraining import PretrainingModel
from bertjax.objectives.pretraining import terms
from bertjax.objectives.terms import total
from bertjax.pretraining.build import count_parameters
from tests.support.batches import SMALL, random_batch


def init(model: PretrainingModel, batch: dict) -> dict:
    return jax.jit(lambda: model.init(jax.random.key(1), batch)["params"])()


@functools.partial(jax.jit, static_argnames=("config", "dtype"))
def score(params: dict, batch: dict, config: ModelConfig = SMALL, dtype: jnp.dtype = jnp.float32) -> dict:
    return PretrainingModel(config, computation=Computation(dtype)).apply({"params": params}, batch)


@functools.partial(jax.jit, static_argnames="config")
def encode(params: dict, batch: dict, keys=None, query_indices=None, config: ModelConfig = SMALL) -> jax.Array:
    return PretrainingModel(config).apply({"params": params}, batch, keys, query_indices, method="encode")


@pytest.fixture(scope="module")
def batch():
    return random_batch(SMALL, 6, 30, 5)


@pytest.fixture(scope="module")
def params(batch):
    return init(PretrainingModel(SMALL), batch)


def dropout_keys(count: int = 6) -> jax.Array:
    return jax.random.split(jax.random.key(7), count)


def select_rows(batch: dict, rows: slice) -> dict:
    return {name: value[rows] for name, value in batch.items()}


def test_parameters_have_stable_names_and_are_stacked_over_layers(params):
    flat = {"/".join(key.key for key in path): x for path, x in jax.tree_util.tree_leaves_with_path(params)}
    layer = "encoder/segment_0/layer_0/"
    assert flat[layer + "attention/query/kernel"].shape == (3, 24, 24)
    assert flat[layer + "intermediate/kernel"].shape == (3, 24, 40)
    assert flat[layer + "output_layer_norm/scale"].shape == (3, 24)
    assert flat["embeddings/word_embeddings/embedding"].shape == (128, 24)  # 97, padded
    assert flat["masked_lm_head/bias"].shape == (128,)
    assert flat["next_sentence_head/kernel"].shape == (24, 2)
    assert all(x.dtype == jnp.float32 for x in flat.values())
    assert len(flat) == 5 + 16 + 5 + 2 + 2


def test_base_has_the_published_number_of_parameters():
    batch = random_batch(SMALL, 1, 8, 2)
    shapes = jax.eval_shape(lambda: PretrainingModel(ModelConfig()).init(jax.random.key(0), batch)["params"])
    assert count_parameters(ModelConfig(), shapes) == 110_106_428


def test_initial_values_are_those_of_bert(params):
    config = dataclasses.replace(SMALL, hidden_size=96, intermediate_size=384)
    params = jax.device_get(init(PretrainingModel(config), random_batch(config, 1, 8, 2)))
    for path, x in jax.tree_util.tree_leaves_with_path(params):
        kind = path[-1].key
        if path[-2].key == "word_embeddings":
            assert not np.any(x[config.vocab_size :])
            x = x[: config.vocab_size]
        if kind in ("kernel", "embedding"):
            assert np.max(np.abs(x)) <= 0.04
            if x.size > 5000:  # truncated at two sigma, a normal of 0.02 has a deviation of 0.8796 × 0.02
                assert abs(np.std(x) / (0.8796 * 0.02) - 1) < 5 / np.sqrt(2 * x.size)
        else:
            assert np.all(x == (1 if kind == "scale" else 0))
    layers = params["encoder"]["segment_0"]["layer_0"]["output"]["kernel"]
    assert not np.array_equal(layers[0], layers[1])


def test_query_indices_select_outputs(batch, params):
    indices = batch["masked_lm_positions"]
    whole, selected = encode(params, batch), encode(params, batch, query_indices=indices)
    np.testing.assert_allclose(selected, np.take_along_axis(whole, indices[..., None], axis=1), rtol=0, atol=1e-5)


def test_a_row_does_not_depend_on_the_others(batch, params):
    apply = jax.jit(PretrainingModel(SMALL).apply)
    whole = apply({"params": params}, batch, dropout_keys())
    part = apply({"params": params}, select_rows(batch, slice(2, 5)), dropout_keys()[2:5])
    for name, values in part.items():
        np.testing.assert_allclose(values, whole[name][2:5], rtol=0, atol=1e-5)


def test_padding_does_not_leak(batch, params):
    padding = batch["attention_mask"] == 0
    assert padding.any()
    other = batch | {"input_ids": np.where(padding, 5, batch["input_ids"])}
    a, b = (score(params, x) for x in (batch, other))
    assert np.array_equal(a["masked_lm_logits"], b["masked_lm_logits"])
    assert np.array_equal(a["next_sentence_logits"], b["next_sentence_logits"])
    shorter = {k: v[:1, :20] if v.shape[1:] == (30,) else v[:1] for k, v in batch.items()}
    longer = select_rows(batch, slice(0, 1)) | {"attention_mask": (np.arange(30) < 20).astype(np.int32)[None]}
    a, b = (encode(params, x) for x in (shorter, longer))
    np.testing.assert_allclose(a, b[:, :20], rtol=0, atol=1e-5)


def test_a_row_of_padding_stays_finite(batch, params):
    empty = batch | {"attention_mask": np.zeros_like(batch["attention_mask"])}
    assert np.isfinite(score(params, empty)["masked_lm_logits"]).all()


def test_dropout_acts_at_every_site_and_only_with_keys(batch, params):
    no_dropout = dataclasses.replace(SMALL, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    plain = encode(params, batch)
    assert np.array_equal(plain, encode(params, batch, dropout_keys(), config=no_dropout))
    for site in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
        config = dataclasses.replace(no_dropout, **{site: 0.1})
        assert not np.allclose(plain, encode(params, batch, dropout_keys(), config=config), atol=1e-4)


def test_bfloat16_is_close_to_float32_and_has_float32_logits(batch, params):
    exact, coarse = score(params, batch), score(params, batch, dtype=jnp.bfloat16)
    model = PretrainingModel(SMALL, computation=Computation(jnp.bfloat16))
    hidden = jax.eval_shape(lambda: model.apply({"params": params}, batch, method="encode"))
    assert hidden.dtype == jnp.bfloat16
    for name in ("masked_lm_logits", "next_sentence_logits"):
        assert coarse[name].dtype == jnp.float32
        np.testing.assert_allclose(coarse[name], exact[name], atol=0.02)
    assert np.isclose(total(terms(coarse, batch)), total(terms(exact, batch)), rtol=0.01)


def test_without_next_sentence_there_is_no_pooler(batch):
    model = PretrainingModel(SMALL, pairs="")
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), batch)["params"])
    assert set(params) == {"embeddings", "encoder", "masked_lm_head"}
    assert set(jax.eval_shape(model.apply, {"params": params}, batch)) == {"masked_lm_logits"}


def test_a_sequence_that_is_too_long_is_refused(params):
    with pytest.raises(ValueError, match="input_ids: 37 tokens exceed max_position_embeddings 36; shorten the input"):
        PretrainingModel(SMALL).apply({"params": params}, random_batch(SMALL, 2, 37, 3))
