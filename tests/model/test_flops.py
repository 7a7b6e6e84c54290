"""Model FLOPs against published accounting and against the compiler's count."""

import dataclasses

import jax
import pytest

from bertjax.config.model import ModelConfig
from bertjax.model.flops import training_flops
from bertjax.model.pretraining import PretrainingModel
from tests.support.batches import random_batch


def test_bert_large_agrees_with_published_flops():
    large = ModelConfig(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096)
    # The published 1.88 and 1.99 GFLOP per token run the last layer on every token.
    head = 6 * 1024 * (1024 + large.vocab_size)
    for length, predictions, published in ((128, 20, 1.88e9), (512, 80, 1.99e9)):
        whole = training_flops(large, length, length, pairs=False) - (length - predictions) * head
        assert whole / length == pytest.approx(published, rel=0.003)
        assert training_flops(large, length, predictions) < 0.98 * whole


def test_a_forward_pass_agrees_with_the_compilers_count():
    config = ModelConfig(
        vocab_size=2000, hidden_size=256, num_hidden_layers=1, num_attention_heads=4, intermediate_size=1024
    )
    batch = random_batch(config, 4, 128, 20)

    def count(config: ModelConfig) -> float:
        model = PretrainingModel(config)
        params = jax.eval_shape(lambda: model.init(jax.random.key(0), batch)["params"])
        return jax.jit(model.apply).lower({"params": params}, batch).compile().cost_analysis()["flops"]

    # The compiler also counts norms, softmax and activations.
    ours = 4 * training_flops(config, 128, 20) / 3
    assert ours < count(config) < 1.1 * ours
    wider = dataclasses.replace(config, intermediate_size=2048)
    assert count(wider) - count(config) == pytest.approx(4 * training_flops(wider, 128, 20) / 3 - ours, rel=0.1)


def test_flops_of_windows_and_gates():
    """A gated MLP has a third matrix, and local layers compute only the keys within the window."""
    bert = ModelConfig(hidden_size=256, num_hidden_layers=5, num_attention_heads=4, intermediate_size=512)
    gated = dataclasses.replace(bert, gated_mlp=True)
    length, predictions = 50, 8
    positions = 4 * length + predictions

    def cost(config: ModelConfig, length: int = length) -> float:
        return training_flops(config, length, predictions, pairs=False)

    assert cost(gated) - cost(bert) == 6 * positions * 256 * 512
    windows = dataclasses.replace(bert, local_attention=20, global_attn_every_n_layers=3)  # layers 1, 2 and 4
    pairs = sum(abs(i - j) <= 10 for i in range(length) for j in range(length))
    saved = (2 * length + predictions) * (length - pairs / length)
    assert cost(bert) - cost(windows) == pytest.approx(6 * 2 * 256 * saved)
    assert cost(bert, 11) == cost(windows, 11)  # all keys are within the window


def test_modernbert_agrees_with_the_compilers_count():
    config = ModelConfig(
        vocab_size=2000,
        hidden_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=1024,
        type_vocab_size=0,
        pre_norm=True,
        use_bias=False,
        gated_mlp=True,
        global_rope_theta=10_000.0,
        local_rope_theta=10_000.0,
        local_attention=16,
        global_attn_every_n_layers=2,
    )
    batch, model = random_batch(config, 4, 128, 64), PretrainingModel(config, pairs="")
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), batch)["params"])
    count = jax.jit(model.apply).lower({"params": params}, batch).compile().cost_analysis()["flops"]
    ours = 4 * training_flops(config, 128, 64, pairs=False) / 3
    assert ours < count < 1.1 * ours
