"""LAMB against its equations, and moments stored in bfloat16."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bertjax.arrays.trees import named_leaves
from bertjax.config.optimizer import OptimizerConfig
from bertjax.optimizers.adamw import direction
from bertjax.optimizers.lamb import lamb

LAYERS = 3
SHAPES = {"intermediate/kernel": (4, 5), "intermediate/bias": (5,), "output_layer_norm/scale": (4,)}
RATE, DECAY, EPS = 1e-2, 0.1, 1e-6


def draw(rng):
    """A model as NumPy arrays by name: three layers, with larger values in the later ones, and word embeddings."""
    layers = {f"{i}/{name}": 3**i * rng.normal(size=shape) for i in range(LAYERS) for name, shape in SHAPES.items()}
    words = rng.normal(size=(6, 4))
    words[5] = 0  # padding of the vocabulary
    return layers | {"word_embeddings/embedding": words}


def stacked(arrays):
    """The model as a nested dict in which the layers are stacked."""
    stack = lambda name: jnp.asarray(np.stack([arrays[f"{i}/{name}"] for i in range(LAYERS)]), jnp.float32)  # noqa: E731
    tree = {}
    for name in SHAPES:
        module, leaf = name.split("/")
        tree.setdefault(module, {})[leaf] = stack(name)
    words = jnp.asarray(arrays["word_embeddings/embedding"], jnp.float32)
    return {"embeddings": {"word_embeddings": {"embedding": words}}, "encoder": {"segment_0": {"layer_0": tree}}}


@pytest.mark.parametrize("bias_correction", [True, False])
def test_lamb_follows_its_equations_in_every_layer(bias_correction):
    """Algorithm 2 of arXiv:1904.00962 on unstacked arrays, after clipping the gradients."""
    rng = np.random.default_rng(0)
    expected, gradients = draw(rng), [draw(rng) for _ in range(5)]
    params = stacked(expected)

    config = OptimizerConfig(name="lamb", weight_decay=DECAY, eps=EPS, bias_correction=bias_correction, clip_norm=1.0)
    optimizer = lamb(config, optax.constant_schedule(RATE))
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for gradient in gradients:
        updates, state = update(stacked(gradient), state, params)
        params = optax.apply_updates(params, updates)

    m, v = ({name: np.zeros_like(x) for name, x in expected.items()} for _ in range(2))
    for step, gradient in enumerate(gradients, 1):
        clip = max(1, np.sqrt(sum(np.sum(g**2) for g in gradient.values())))
        for name, g in gradient.items():
            m[name] = 0.9 * m[name] + 0.1 * g / clip
            v[name] = 0.999 * v[name] + 0.001 * (g / clip) ** 2
            first, second = (1 - 0.9**step, 1 - 0.999**step) if bias_correction else (1, 1)
            update = (m[name] / first) / (np.sqrt(v[name] / second) + EPS)
            ratio = 1
            if name.endswith(("kernel", "embedding")):
                update += DECAY * expected[name]
                ratio = np.linalg.norm(expected[name]) / np.linalg.norm(update)
            expected[name] = expected[name] - RATE * ratio * update
    for name, value in named_leaves(stacked(expected)).items():
        np.testing.assert_allclose(named_leaves(params)[name], value, rtol=2e-5, err_msg=name)
    assert not params["embeddings"]["word_embeddings"]["embedding"][5].any()


def test_a_layer_of_zeros_is_updated():
    """Its norm is zero; the update is not scaled."""
    params = {"pooler": {"kernel": jnp.zeros((2, 2))}}
    optimizer = lamb(OptimizerConfig(bias_correction=True), optax.constant_schedule(RATE))
    updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, params), optimizer.init(params), params)
    np.testing.assert_allclose(updates["pooler"]["kernel"], -RATE, rtol=1e-4)


def test_bfloat16_moments_follow_float32_moments():
    """The gradients fall to a tenth; second moments rounded to nearest would not change."""
    elements, steps = 1024, 2000
    gradients = np.random.default_rng(0).normal(size=(steps, elements)).astype(np.float32)
    gradients[steps // 4 :] *= 0.1

    @functools.partial(jax.jit, static_argnums=0)
    def moments(state_dtype):
        adam = direction(OptimizerConfig(state_dtype=state_dtype))[1]

        def step(state, gradient):
            update, state = adam.update({"kernel": gradient}, state)
            return state, update

        state, updates = jax.lax.scan(step, adam.init({"kernel": jnp.zeros(elements)}), gradients)
        return state.mu["kernel"], state.nu["kernel"], updates["kernel"][-1]

    exact, rounded = moments("float32"), moments("bfloat16")
    assert [x.dtype for x in (*exact, *rounded)] == [*["float32"] * 3, "bfloat16", "bfloat16", "float32"]
    mu, nu, update = (np.asarray(a, np.float64) - np.asarray(b) for a, b in zip(rounded, exact, strict=True))
    relative = nu / np.asarray(exact[1])
    assert abs(relative.mean()) < 0.01 and relative.std() < 0.1
    assert np.linalg.norm(mu) < 0.01 * np.linalg.norm(exact[0])
    assert np.linalg.norm(update) < 0.05 * np.linalg.norm(exact[2])
