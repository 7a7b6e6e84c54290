"""AdamW against independent implementations, and the schedules."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from bertjax.config.optimizer import OptimizerConfig
from bertjax.config.pretraining import Phase
from bertjax.optimizers.adamw import adamw
from bertjax.optimizers.schedules import learning_rate

RATE = 1e-2
KERNEL, BIAS = "pooler/kernel", "pooler/bias"


def _gradients(steps=6):
    rng = np.random.default_rng(0)
    return [{KERNEL: rng.normal(size=(4, 3)), BIAS: rng.normal(size=3)} for _ in range(steps)]


def _train(config: OptimizerConfig) -> dict[str, np.ndarray]:
    params = {KERNEL: jnp.ones((4, 3)), BIAS: jnp.ones(3)}
    optimizer = adamw(config, optax.constant_schedule(RATE))
    state = optimizer.init(params)
    for gradient in _gradients():
        gradient = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), gradient)
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return jax.tree.map(np.asarray, params)


def test_adamw_equals_torch():
    ours = _train(OptimizerConfig(bias_correction=True, weight_decay=0.1, eps=1e-6, clip_norm=1.0))
    params = {KERNEL: torch.nn.Parameter(torch.ones(4, 3)), BIAS: torch.nn.Parameter(torch.ones(3))}
    groups = [{"params": params[KERNEL], "weight_decay": 0.1}, {"params": params[BIAS], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.999), eps=1e-6)
    for gradient in _gradients():
        for name, parameter in params.items():
            parameter.grad = torch.tensor(gradient[name], dtype=torch.float32)
        torch.nn.utils.clip_grad_norm_(params.values(), 1.0)
        optimizer.step()
    for name, parameter in params.items():
        np.testing.assert_allclose(ours[name], parameter.detach().numpy(), rtol=1e-5)


def test_berts_adamw_follows_its_equations():
    """As in google-research/bert: m and v without bias correction, update = m / (sqrt(v) + eps) + decay × w."""
    ours = _train(OptimizerConfig(weight_decay=0.1, eps=1e-6, clip_norm=1.0))
    params = {KERNEL: np.ones((4, 3)), BIAS: np.ones(3)}
    m = {name: np.zeros_like(value) for name, value in params.items()}
    v = {name: np.zeros_like(value) for name, value in params.items()}
    for gradient in _gradients():
        norm = np.sqrt(sum(np.sum(g**2) for g in gradient.values()))
        for name, g in gradient.items():
            g = g / max(norm, 1.0)
            m[name] = 0.9 * m[name] + 0.1 * g
            v[name] = 0.999 * v[name] + 0.001 * g**2
            update = m[name] / (np.sqrt(v[name]) + 1e-6)
            if name == KERNEL:
                update += 0.1 * params[name]
            params[name] = params[name] - RATE * update
    for name, value in params.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-5)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant", "wsd"])
def test_schedules_have_the_expected_start_middle_and_end(schedule):
    config = OptimizerConfig(learning_rate=2.0, schedule=schedule, warmup_steps=10, decay_steps=20, final_fraction=0.1)
    rate = learning_rate(config, (Phase(100, 8, 1),))
    assert [float(rate(step)) for step in (0, 5)] == [0.0, 1.0]
    middle = {"linear": 2 - 1.8 * 0.5, "cosine": 0.2 + 1.8 * (1 + np.cos(np.pi * 40 / 90)) / 2, "constant": 2, "wsd": 2}
    np.testing.assert_allclose(float(rate(50)), middle[schedule], rtol=1e-5)
    end = 2.0 if schedule == "constant" else 0.2
    np.testing.assert_allclose(float(rate(100)), end, rtol=1e-5)
    if schedule == "wsd":  # 1-sqrt: halfway through the decay the rate has fallen by √½
        np.testing.assert_allclose(float(rate(90)), 0.2 + 1.8 * (1 - np.sqrt(0.5)), rtol=1e-5)
