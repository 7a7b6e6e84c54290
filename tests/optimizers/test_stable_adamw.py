"""StableAdamW against its equations."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bertjax.config.optimizer import OptimizerConfig
from bertjax.optimizers.adamw import adamw
from bertjax.optimizers.stable_adamw import stable_adamw

CONFIG = OptimizerConfig(
    name="stable_adamw", weight_decay=0.1, eps=1e-6, beta2=0.98, bias_correction=True, clip_norm=0.0
)
RATE = 1e-2


def draw(rng, size=1.0):
    return {
        "pooler": {"kernel": size * rng.normal(size=(4, 5))},
        "encoder": {"segment_0": {"layer_0": {"intermediate": {"kernel": size * rng.normal(size=(3, 4, 6))}}}},
    }


@pytest.mark.parametrize("state_dtype", ["float32", "bfloat16"])
def test_stable_adamw_follows_its_equations_in_every_layer(state_dtype):
    """Algorithm 2 of arXiv:2304.13013, with gradients of varying size."""
    rng = np.random.default_rng(0)
    start, gradients = draw(rng), [draw(rng, size) for size in (1.0, 0.1, 8.0, 0.5)]
    config = CONFIG if state_dtype == "float32" else OptimizerConfig(**{**vars(CONFIG), "state_dtype": state_dtype})
    optimizer = stable_adamw(config, optax.constant_schedule(RATE))
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), start)
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for gradient in gradients:
        updates, state = update(jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), gradient), state, params)
        params = optax.apply_updates(params, updates)

    def expected(x, gradients):
        m = v = 0
        for step, g in enumerate(gradients, 1):
            m, v = 0.9 * m + 0.1 * g, 0.98 * v + 0.02 * g * g
            first, second = m / (1 - 0.9**step), v / (1 - 0.98**step)
            rms = np.sqrt(np.mean(g * g / np.maximum(second, 1e-12)))
            x = x - RATE / max(1, rms) * (first / (np.sqrt(second) + 1e-6) + 0.1 * x)
        return x

    tolerance = {"rtol": 1e-5} if state_dtype == "float32" else {"atol": 2e-4}
    pooler = [gradient["pooler"]["kernel"] for gradient in gradients]
    np.testing.assert_allclose(params["pooler"]["kernel"], expected(start["pooler"]["kernel"], pooler), **tolerance)
    stack = lambda tree: tree["encoder"]["segment_0"]["layer_0"]["intermediate"]["kernel"]  # noqa: E731
    for layer in range(3):
        kernel = expected(stack(start)[layer], [stack(gradient)[layer] for gradient in gradients])
        np.testing.assert_allclose(stack(params)[layer], kernel, **tolerance)


def test_clipped_gradients_are_compared_with_clipped_moments():
    rng = np.random.default_rng(2)
    params = jax.tree.map(jnp.asarray, draw(rng))
    gradient = jax.tree.map(lambda x: 100 * jnp.ones_like(x), params)
    config = OptimizerConfig(**{**vars(CONFIG), "clip_norm": 1.0})
    results = []
    for make in (stable_adamw, adamw):
        optimizer = make(config, optax.constant_schedule(RATE))
        results.append(optimizer.update(gradient, optimizer.init(params), params)[0])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), *results)


def test_constant_gradients_give_adamw():
    rng = np.random.default_rng(1)
    params = jax.tree.map(jnp.asarray, draw(rng))
    gradient = jax.tree.map(jnp.ones_like, params)
    results = []
    for make in (stable_adamw, adamw):
        optimizer = make(CONFIG, optax.constant_schedule(RATE))
        updates, _ = optimizer.update(gradient, optimizer.init(params), params)
        results.append(updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), *results)
