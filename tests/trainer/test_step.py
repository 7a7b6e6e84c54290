"""The train step: what bfloat16 changes, and what it must not."""

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
from bertjax.trainer.step import init_state, make_train_step
from tests.support.batches import SMALL, random_batch

STEPS = 30


def train(dtype: str) -> tuple[np.ndarray, dict[str, jax.Array]]:
    """Losses of steps on two batches in turn, with dropout, and the parameters at the end."""
    optimizer_config = OptimizerConfig(learning_rate=3e-3, warmup_steps=0)
    config = Config(model=SMALL, optimizer=optimizer_config, phases=(Phase(STEPS, 32, 8),), dtype=dtype)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    optimizer, schedule = build.make_optimizer(config)
    objective, batches = build.make_objective(config), [random_batch(SMALL, 8, 32, 6, seed) for seed in (0, 1)]
    state = init_state(objective, optimizer, batches[0], mesh, seed=0)
    step = make_train_step(objective, optimizer, schedule, mesh, seed=0)
    losses = []
    for number in range(STEPS):
        state, metrics = step(state, put_batch(batches[number % 2], mesh))
        losses.append(float(metrics["train/loss"]))
    return np.array(losses), named_leaves(state.params)


def test_bfloat16_trains_as_float32_does():
    """bfloat16 has 8 bits of precision; parameters and losses stay float32."""
    (exact, _), (coarse, params) = train("float32"), train("bfloat16")
    assert exact[-1] < 0.9 * exact[0]
    assert coarse[0] == pytest.approx(exact[0], rel=2**-9) and coarse[0] != exact[0]
    np.testing.assert_allclose(coarse, exact, rtol=2**-5)  # of steps that start from ever other parameters
    assert {leaf.dtype for leaf in params.values()} == {jnp.dtype("float32")}
