"""Trains the same small model in many layouts on 8 virtual devices: python -m tests.support.layouts OUTPUT.npz

For each layout the losses of ten steps, the first step's gradients and the parameters at the end; of those in PINNED
what their programs send as well.
"""

import dataclasses
import os
import sys

from bertjax.config.model import ModelConfig
from bertjax.model.partitioning import state_shardings

STEPS = 10
ROWS, LENGTH, PREDICTIONS = 8, 32, 6
ONE = "one device"
MESHES = {
    "data 8": {"data": 8},
    "fsdp 8": {"data": 1, "fsdp": 8},
    "data 2 x fsdp 4": {"data": 2, "fsdp": 4},
    "fsdp 4 x tensor 2": {"data": 1, "fsdp": 4, "tensor": 2},
    "data 2 x tensor 4": {"data": 2, "tensor": 4},
    "data 2 x sequence 4": {"data": 2, "sequence": 4},
    "fsdp 2 x tensor 2 x sequence 2": {"data": 1, "fsdp": 2, "tensor": 2, "sequence": 2},
}
LAYOUTS = {
    "accumulation 2": {"accumulation": 2},
    "accumulation 4": {"accumulation": 4},
    "remat bert": {"remat": "bert"},
    "remat dots": {"remat": "dots"},
    "remat full": {"remat": "full"},
    "unrolled": {"unroll": 3},
}
PINNED = ("fsdp 8", "data 2 x tensor 4", "data 2 x sequence 4")
# Without dropout, at a length that the kernel can: (mesh, layout); the first is what the others are compared with.
PLAIN = "plain attention"
KERNELS = {
    PLAIN: (None, {"attention": "xla"}),
    "splash attention": ({"data": 2, "fsdp": 2, "tensor": 2}, {"attention": "splash", "remat": "bert"}),
}
# Of shared layers, and of layers that are not alike, with windows in blocks: one device, and everything at once.
FAMILY = ("albert", "modernbert")
EVERYTHING = "{}, all axes and layouts"
AXES, LAYOUT = {"data": 1, "fsdp": 2, "tensor": 2, "sequence": 2}, {"accumulation": 2, "remat": "bert", "unroll": 2}
# Sizes that the meshes divide.
SIZES = {
    "vocab_size": 97,  # padded
    "hidden_size": 48,
    "num_attention_heads": 4,
    "intermediate_size": 72,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
}


def main(output: str) -> None:
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    import numpy as np

    from tests.support.batches import FAMILIES, SMALL

    bert = dataclasses.replace(SMALL, **SIZES, max_position_embeddings=LENGTH)
    still = dataclasses.replace(
        bert, max_position_embeddings=128, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    albert = dataclasses.replace(FAMILIES["albert"], **SIZES, embedding_size=16, num_hidden_layers=4)
    modern = dataclasses.replace(FAMILIES["modernbert"], **SIZES, num_hidden_layers=5)
    groups = [
        (bert, LENGTH, {name: (MESHES.get(name), LAYOUTS.get(name, {})) for name in (ONE, *MESHES, *LAYOUTS)}),
        (still, 128, KERNELS),
    ]
    for name, model in zip(FAMILY, (albert, modern), strict=True):
        groups.append((model, LENGTH, {name: (None, {}), EVERYTHING.format(name): (AXES, LAYOUT)}))
    results = {}
    for model, length, runs in groups:
        start = None
        for name, (axes, layout) in runs.items():
            start, trained = train(name, model, length, axes, layout, start)
            results |= {f"{name}/{key}": value for key, value in trained.items()}
    np.savez(output, **results)


def train(name: str, model: ModelConfig, length: int, axes: dict[str, int] | None, layout: dict, start) -> tuple:
    """Ten steps, on the mesh of `axes`, or on one device, from the state `start`, or a new one.

    Gives the state it started from, and what came of it.
    """
    import jax
    import numpy as np

    from bertjax.arrays.trees import named_leaves
    from bertjax.config.layout import LayoutConfig, MeshConfig
    from bertjax.config.optimizer import OptimizerConfig
    from bertjax.config.pretraining import Config, Phase
    from bertjax.parallel.mesh import make_mesh, put_batch
    from bertjax.pretraining import build
    from bertjax.trainer import loop
    from tests.support.batches import random_batch

    assert jax.device_count() == 8
    # Without clipping the first moment after one step is the gradient but for a factor.
    optimizer_config = OptimizerConfig(learning_rate=1e-3, warmup_steps=0, clip_norm=0.0)
    config = Config(
        model=model,
        optimizer=optimizer_config,
        phases=(Phase(STEPS, length, ROWS),),
        next_sentence=model.model_type == "bert",
        sentence_order=model.model_type == "albert",
        dtype="float32",
        layout=LayoutConfig(**layout),
    )
    if axes is None:
        mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    else:
        mesh = make_mesh(dataclasses.replace(MeshConfig(), **axes))
    objective = build.make_objective(config)
    optimizer, schedule = build.make_optimizer(config)
    build.check_mesh(config, mesh)
    pairs = () if config.next_sentence else ("next_sentence_labels",)

    def batch_of(seed: int) -> dict:
        batch = random_batch(model, ROWS, length, PREDICTIONS, seed)
        return {name: batch[name] for name in batch if name not in pairs}

    batch = batch_of(0)
    if start is None:
        start = jax.device_get(loop.init_state(objective, optimizer, batch, mesh, seed=3))
    state = jax.device_put(start, state_shardings(start, mesh))
    if axes:
        kernel = state.params["encoder"]["segment_0"]["layer_0"]["intermediate"]["kernel"]
        parts = axes.get("fsdp", 1) * axes.get("tensor", 1)
        assert kernel.addressable_shards[0].data.size * parts == kernel.size
    step = loop.make_train_step(objective, optimizer, schedule, mesh, seed=3, accumulation=config.layout.accumulation)
    step = step.lower(state, put_batch(batch, mesh)).compile()
    losses, first = [], None
    for number in range(STEPS):
        state, metrics = step(state, put_batch(batch_of(number), mesh))
        losses.append(float(metrics["train/loss"]))
        if number == 0:
            first = jax.device_get(named_leaves({"gradient": _moment(state.optimizer)}))
    found = {"losses": np.array(losses)} | first | jax.device_get(named_leaves({"params": state.params}))
    return start, found | ({"sent": np.array(_sent(step, mesh))} if name in PINNED else {})


def _sent(step, mesh) -> list[str]:
    """A line for each kind of collective and axes that it crosses: how often, and bytes a device sends in all."""
    from bertjax.planning import collectives, hlo

    found = collectives.collectives(hlo.parse(step.as_text()), dict(mesh.shape))
    return [f"{name}: {times} times, {sent} bytes" for name, (times, sent) in collectives.summed(found).items()]


def _moment(optimizer: tuple):
    """Adam's first moment."""
    return next(part.mu for part in optimizer if hasattr(part, "mu"))


if __name__ == "__main__":
    main(sys.argv[1])
