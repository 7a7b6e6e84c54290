"""ModernBERT's settings: layers of several kinds, rotary positions, windows, pre-LayerNorm."""

import dataclasses
import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.arrays.trees import named_leaves
from bertjax.config.parse import from_config_dict
from bertjax.interop.parameter_map import pretraining_mappings
from bertjax.model import attention
from bertjax.model.computation import Computation
from bertjax.model.finetuning import FinetuningModel
from bertjax.model.layer_stacks import layer_stacks
from bertjax.model.pretraining import PretrainingModel
from bertjax.model.rotary import rotate
from bertjax.pretraining.build import count_parameters
from tests.support.batches import FAMILIES, random_batch

SMALL = FAMILIES["modernbert"]
DROPPING = dataclasses.replace(
    SMALL, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1, attention_output_dropout_prob=0.2
)


def random_params(model, batch: dict) -> dict:
    """Random parameters, including norms and biases."""
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), batch)["params"])
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: 0.2 * rng.normal(size=x.shape).astype(np.float32), shapes)


@pytest.fixture(scope="module")
def batch():
    return random_batch(SMALL, 4, 30, 5)


@pytest.fixture(scope="module")
def params(batch):
    return random_params(PretrainingModel(SMALL, ""), batch)


def encode(params, batch, config=SMALL, query_indices=None) -> jax.Array:
    apply = functools.partial(PretrainingModel(config, "").apply, method="encode")
    return jax.jit(lambda params: apply({"params": params}, batch, None, query_indices))(params)


def loss(model, batch, keys, params) -> jax.Array:
    logits = model.apply({"params": params}, batch, keys)["masked_lm_logits"]
    return jnp.sum(logits[..., : SMALL.vocab_size] ** 2)


@pytest.mark.parametrize("every", [1, 2, 3, 5])
@pytest.mark.parametrize("layers", [1, 2, 3, 4, 8, 22])
def test_any_number_of_layers_forms_stacks(layers, every):
    windows = {"local_attention": 6 if every > 1 else 0, "global_attn_every_n_layers": every}
    config = dataclasses.replace(SMALL, num_hidden_layers=layers, **windows)
    stacks = layer_stacks(config)
    assert [local for stack in stacks for local in stack.local * stack.repeats] == [
        i % every != 0 for i in range(layers)
    ]
    assert stacks[0].local == (False,) and stacks[0].repeats == 1
    assert len(stacks) <= 3


def test_base_has_the_published_number_of_parameters():
    config = from_config_dict(importlib.import_module("configs.modern_base").get_config())
    assert not config.next_sentence and config.masking.rate == 0.3
    model = PretrainingModel(config.model, "")
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), random_batch(SMALL, 1, 8, 2))["params"])
    assert count_parameters(config.model, shapes) == 149_655_232
    tensors = {mapping.tensor for mapping in pretraining_mappings(config.model, False)}
    assert len(tensors) == 137  # 138 with the copy that tying makes
    assert {"model.layers.0.mlp_norm.weight", "model.layers.1.attn_norm.weight", "decoder.bias"} <= tensors
    assert "model.layers.0.attn_norm.weight" not in tensors


def test_kernels_into_the_residual_stream_start_smaller(batch):
    config = dataclasses.replace(SMALL, hidden_size=96, intermediate_size=384)
    params = jax.jit(lambda: PretrainingModel(config, "").init(jax.random.key(0), batch)["params"])()
    for name, x in named_leaves(params).items():
        if name.endswith("kernel"):
            narrow = "output" in name or name.startswith("masked_lm_head")
            expected = 0.8796 * 0.02 / (np.sqrt(2 * 8) if narrow else 1)
            assert abs(np.std(x) / expected - 1) < 5 / np.sqrt(2 * x.size), name


def with_dropout(batch, params, **layout) -> tuple:
    """Loss and gradients of a layout with dropout at every site."""
    model, keys = PretrainingModel(DROPPING, "", Computation(**layout)), jax.random.split(jax.random.key(7), 4)
    return jax.jit(jax.value_and_grad(functools.partial(loss, model, batch, keys)))(params)


@pytest.fixture(scope="module")
def scanned(batch, params):
    return with_dropout(batch, params)


@pytest.mark.parametrize("layout", [{"unroll": 8}, {"remat": "full", "unroll": 2}])
def test_unrolling_and_remat_do_not_change_results(layout, batch, params, scanned):
    (scanned_loss, expected), (loss, gradients) = scanned, with_dropout(batch, params, **layout)
    assert float(loss) == pytest.approx(float(scanned_loss), rel=1e-5)
    whole = np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(expected)))
    for name, x in named_leaves(expected).items():
        assert np.linalg.norm(named_leaves(gradients)[name] - x) <= 1e-5 * np.linalg.norm(x) + 1e-7 * whole, name


@pytest.mark.parametrize("unroll", [2, 7])
def test_unrolling_a_final_pattern_does_not_change_dropout(unroll, batch):
    """ModernBERT-Base ends with a complete pattern, which unrolled could compute fewer positions."""
    config = dataclasses.replace(DROPPING, num_hidden_layers=7)
    assert layer_stacks(config)[-1].layers > 1
    params = random_params(PretrainingModel(config, ""), batch)
    keys = jax.random.split(jax.random.key(7), 4)
    scanned_loss, unrolled_loss = (
        jax.jit(functools.partial(loss, PretrainingModel(config, "", Computation(unroll=layers)), batch, keys))(params)
        for layers in (1, unroll)
    )
    assert float(unrolled_loss) == pytest.approx(float(scanned_loss), rel=1e-5)


@pytest.mark.parametrize("window", [6, 20], ids=["blocks", "plain"])
@pytest.mark.parametrize("layers", [7, 8], ids=["global", "local"])  # attention of the last layer
def test_query_indices_select_outputs(layers, window, batch):
    config = dataclasses.replace(SMALL, num_hidden_layers=layers, local_attention=window)
    params = random_params(PretrainingModel(config, ""), batch)
    whole = encode(params, batch, config)
    few, many = batch["masked_lm_positions"], np.tile(np.arange(30)[::-1], (4, 1))
    for indices in (few, many):
        selected = encode(params, batch, config, indices)
        np.testing.assert_allclose(selected, np.take_along_axis(whole, indices[..., None], axis=1), rtol=0, atol=2e-5)


def test_blocked_and_plain_attention_give_the_same_model(batch, params, monkeypatch):
    model = PretrainingModel(SMALL, "")

    def run():
        return jax.jit(jax.grad(functools.partial(loss, model, batch, None)))(params)

    blocks = run()
    monkeypatch.setattr(attention, "_MIN_BLOCKED_WINDOWS", 1000)
    monkeypatch.setattr(attention, "local_attention", None)
    for name, x in named_leaves(run()).items():
        assert np.linalg.norm(named_leaves(blocks)[name] - x) <= 1e-5 * np.linalg.norm(x), name


@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize("window", [6, 20], ids=["blocks", "plain"])
def test_packed_equals_padded(pooled, window):
    config = dataclasses.replace(SMALL, local_attention=window)
    model = FinetuningModel(config, 3, pooled)
    lengths = np.array([11, 5, 14])
    padded = random_batch(config, 3, 14, 2)
    padded["attention_mask"] = (np.arange(14) < lengths[:, None]).astype(np.int32)
    starts = np.array([0, 11, 16])
    packed = {name: np.zeros((1, 33), np.int32) for name in ("input_ids", "token_type_ids", "attention_mask")}
    packed["position_ids"] = np.zeros((1, 33), np.int32)
    for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        packed["input_ids"][0, start : start + length] = padded["input_ids"][row, :length]
        packed["attention_mask"][0, start : start + length] = row + 1
        packed["position_ids"][0, start : start + length] = np.arange(length)
    packed["cls_positions"] = starts[None].astype(np.int32)
    params = random_params(model, padded)
    padded_logits, packed_logits = (model.apply({"params": params}, x)["logits"] for x in (padded, packed))
    if pooled:
        np.testing.assert_allclose(packed_logits[0], padded_logits, rtol=0, atol=1e-5)
        return
    for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        np.testing.assert_allclose(
            packed_logits[0, start : start + length], padded_logits[row, :length], rtol=0, atol=1e-5
        )


def test_the_last_collected_layer_is_the_input_of_heads(batch):
    last, four = (FinetuningModel(SMALL, 3, pooled=False, features=name) for name in ("last", "concat_last_4"))
    params = random_params(last, batch)
    last, four = (model.apply({"params": params}, batch, method="encode") for model in (last, four))
    assert four.shape == (4, 30, 4, 24)
    np.testing.assert_allclose(four[:, :, -1], last[:, :, 0], rtol=0, atol=1e-5)
    assert not np.allclose(four[:, :, -2], last[:, :, 0], atol=0.1)


def test_attention_output_has_its_own_dropout_rate(batch, params):
    keys = jax.random.split(jax.random.key(7), 4)

    def run(rate, hidden=0.0):
        config = dataclasses.replace(SMALL, attention_output_dropout_prob=rate, hidden_dropout_prob=hidden)
        return PretrainingModel(config, "").apply({"params": params}, batch, keys, method="encode")

    assert np.array_equal(run(-1.0), run(0.0))
    assert not np.allclose(run(0.1), run(0.0), atol=1e-3)
    assert np.array_equal(run(-1.0, hidden=0.1), run(0.1, hidden=0.1))


def test_rotation_preserves_norms_and_depends_on_distances_only():
    x, y = np.random.default_rng(0).normal(size=(2, 1, 9, 2, 8)).astype(np.float32)
    positions = jnp.arange(9)
    rotated, shifted = rotate(x, positions, 100.0), rotate(x, positions + 1000, 100.0)
    np.testing.assert_allclose(np.linalg.norm(rotated, axis=-1), np.linalg.norm(x, axis=-1), rtol=1e-5)
    products = jnp.einsum("bqhd,bkhd->bhqk", rotated, rotate(y, positions, 100.0))
    shifted_products = jnp.einsum("bqhd,bkhd->bhqk", shifted, rotate(y, positions + 1000, 100.0))
    np.testing.assert_allclose(products, shifted_products, rtol=0, atol=2e-3)
    assert not np.allclose(products, jnp.einsum("bqhd,bkhd->bhqk", x, y), atol=0.1)
