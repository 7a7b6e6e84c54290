"""The layout law: how the work is laid out over devices does not change the results, dropout included."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

# A few steps of a small model on all devices that there are; prints losses and gradient norms.
STEPS = """
import json
import jax
from bertjax import parallel, pretraining, training
from bertjax.config import Config, MeshConfig, ModelConfig, OptimizerConfig, Phase
from tests.model.batches import random_batch

model = ModelConfig(
    vocab_size=97, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40,
    max_position_embeddings=32,
)
optimizer = OptimizerConfig(learning_rate=1e-2, warmup_steps=1)
config = Config(model=model, dtype="float32", optimizer=optimizer, phases=(Phase(steps=4, length=32, batch=16),))
task, mesh = pretraining.pretraining_task(config), parallel.make_mesh(MeshConfig())
optimizer, schedule = pretraining.make_optimizer(config)
batches = [random_batch(model, 16, 32, 6, seed=i) for i in range(4)]
state = training.init_state(task, optimizer, batches[0], mesh, seed=0)
step = training.make_train_step(task, optimizer, schedule, mesh, seed=0)
for batch in batches:
    state, metrics = step(state, parallel.put_batch(batch, mesh))
    print(json.dumps([jax.device_count(), float(metrics["train/loss"]), float(metrics["train/grad_norm"])]))
"""


@pytest.fixture(scope="module")
def results() -> dict[int, list[list[float]]]:
    """(loss, gradient norm) of each step on 1 and on 8 virtual devices."""
    found = {}
    for devices in (1, 8):
        env = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
        run = subprocess.run(
            [sys.executable, "-c", STEPS], cwd=ROOT, env=env, capture_output=True, text=True, timeout=300
        )
        assert run.returncode == 0, run.stderr
        rows = [json.loads(line) for line in run.stdout.splitlines()]
        assert [row[0] for row in rows] == [devices] * 4
        found[devices] = [row[1:] for row in rows]
    return found


def test_eight_devices_compute_what_one_does(results):
    for (loss, norm), (other_loss, other_norm) in zip(results[1], results[8], strict=True):
        assert other_loss == pytest.approx(loss, rel=1e-5)
        assert other_norm == pytest.approx(norm, rel=1e-4)
