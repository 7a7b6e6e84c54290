"""The train step in bfloat16."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.arrays.trees import named_leaves
from bertjax.config.layout import MeshConfig
from bertjax.config.optimizer import OptimizerConfig
from bertjax.config.pretraining import Config, Phase
from bertjax.parallel.mesh import make_mesh, put_batch
from bertjax.pretraining import build
from bertjax.trainer.step import initial_state, make_init, make_train_step
from tests.support.batches import SMALL, random_batch

STEPS = 30


def train(dtype: str) -> tuple[np.ndarray, dict[str, jax.Array]]:
    """Returns the losses of steps on two alternating batches, with dropout, and the final parameters."""
    optimizer_config = OptimizerConfig(learning_rate=3e-3, warmup_steps=0)
    config = Config(model=SMALL, optimizer=optimizer_config, phases=(Phase(STEPS, 32, 8),), dtype=dtype)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    optimizer, schedule = build.make_optimizer(config)
    objective, batches = build.make_objective(config), [random_batch(SMALL, 8, 32, 6, seed) for seed in (0, 1)]
    state = make_init(initial_state(objective, optimizer, batches[0], seed=0), mesh)()
    step = make_train_step(objective, optimizer, schedule, mesh, seed=0)
    losses = []
    for number in range(STEPS):
        state, metrics = step(state, put_batch(batches[number % 2], mesh))
        losses.append(float(metrics["train/loss"]))
    return np.array(losses), named_leaves(state.params)


def test_bfloat16_trains_like_float32():
    """bfloat16 has 8 bits of precision; parameters and losses stay float32."""
    (float32, _), (bfloat16, params) = train("float32"), train("bfloat16")
    assert float32[-1] < 0.9 * float32[0]
    assert bfloat16[0] == pytest.approx(float32[0], rel=2**-9) and bfloat16[0] != float32[0]
    np.testing.assert_allclose(bfloat16, float32, rtol=2**-5)  # parameters drift apart step by step
    assert {leaf.dtype for leaf in params.values()} == {jnp.dtype("float32")}
