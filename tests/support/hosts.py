"""One process of a multi-process run: python -m tests.support.hosts CORPUS CHECKPOINTS

Checks on several meshes that the devices get their parts of the global batch, bit for bit. Continues the checkpoint in
CHECKPOINTS, which a single process first writes on fsdp 8, and writes the next losses to
CHECKPOINTS-PROCESSES-PROCESS.json.
"""

import functools
import json
from pathlib import Path

import jax
import numpy as np

from bertjax import cli
from bertjax.checkpoints import store
from bertjax.checkpoints.meta import CheckpointMeta, StoredTokenizer
from bertjax.config.layout import LayoutConfig, MeshConfig
from bertjax.config.model import ModelConfig
from bertjax.config.optimizer import OptimizerConfig
from bertjax.config.pretraining import Config, Phase
from bertjax.corpus.format import Corpus
from bertjax.data.pipeline import BatchSource
from bertjax.data.token_info import Vocabulary
from bertjax.parallel import processes
from bertjax.parallel.mesh import local_rows, make_mesh, put_array, put_batch
from bertjax.pretraining import build
from bertjax.text.tokenizer import load_tokenizer
from bertjax.trainer.step import TrainState, abstract_state, initial_state, make_init, make_train_step

AXES = ({}, {"data": 2, "fsdp": 2, "tensor": 2}, {"data": 1, "sequence": 4, "tensor": 2})
STEPS = 3


def main(arguments: list[str]) -> None:
    """Runs all checks."""
    corpus, folder = arguments
    with processes.join_cluster(60, 20):
        opened = Corpus.open(corpus)
        config = Config(
            corpus=corpus,
            phases=(Phase(1, 32, 8), Phase(1, 16, 16)),
            model=ModelConfig(
                vocab_size=600,
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=64,
                max_position_embeddings=32,
            ),
            optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=0),
            layout=LayoutConfig(unroll=1),
        )
        source = BatchSource(opened, Vocabulary.of(load_tokenizer(opened.directory / "tokenizer")), config)
        if jax.device_count() == 8:
            for axes in AXES:
                for devices in (jax.devices(), sorted(jax.devices(), key=lambda device: device.id * 5 % 8)):
                    check_rows(source, make_mesh(MeshConfig(**axes), devices))
        losses_by_mesh = continue_on_meshes(source, config, Path(folder))
        Path(f"{folder}-{jax.process_count()}-{jax.process_index()}.json").write_text(json.dumps(losses_by_mesh))


def check_rows(source: BatchSource, mesh: jax.sharding.Mesh) -> None:
    """Checks that every device of this process has its part of the global batch."""
    batches = list(source.iterate(0, 2, rows=functools.partial(local_rows, mesh)))
    for phase, rows in enumerate(batches):
        global_batch = source.batch(phase, 0)
        for name, array in put_batch(rows, mesh).items():
            assert array.shape == global_batch[name].shape
            assert len(array.addressable_shards) == jax.local_device_count()
            for shard in array.addressable_shards:
                assert np.array_equal(np.asarray(shard.data), global_batch[name][shard.index]), (dict(mesh.shape), name)


def continue_on_meshes(source: BatchSource, config: Config, folder: Path) -> dict[str, list[float]]:
    """Mesh → its losses after the checkpoint."""
    if jax.process_count() > 1:
        return {f"{jax.process_count()} processes": losses(source, config, folder, MeshConfig(), jax.devices())}
    written = losses(source, config, folder, MeshConfig(data=1, fsdp=8), jax.devices(), write=True)
    return {
        "fsdp 8": written,
        "data 2 x tensor 2": losses(source, config, folder, MeshConfig(data=2, tensor=2), jax.devices()[:4]),
        "one device": losses(source, config, folder, MeshConfig(), jax.devices()[:1]),
    }


def losses(source, config, folder, axes, devices, write=False) -> list[float]:
    """Returns the losses of steps 2 to 4; reads the checkpoint of step 2, or writes it if `write` is set."""
    mesh = make_mesh(axes, devices)
    objective = build.make_objective(config)
    optimizer, schedule = build.make_optimizer(config)
    batch = build.abstract_batch(config, config.phases[0])
    rows = local_rows(mesh, config.phases[0].batch)
    step = make_train_step(objective, optimizer, schedule, mesh, seed=3)

    def train(state, first, last):
        step_losses = []
        for number in range(first, last):
            state, metrics = step(state, put_batch(source.batch(0, number, rows), mesh))
            step_losses.append(float(metrics["train/loss"]))
        return state, step_losses

    if write:
        state, _ = train(make_init(initial_state(objective, optimizer, batch, seed=3), mesh)(), 0, 2)
        writer = store.CheckpointWriter(folder, keep_last=1, keep_every=0)
        writer.save(2, state.params, state.optimizer, CheckpointMeta(config, StoredTokenizer("", {})))
        writer.close()
    else:
        abstract = abstract_state(initial_state(objective, optimizer, batch), mesh)
        params, moments, meta = store.restore_latest(folder, abstract.params, abstract.optimizer)
        number = put_array(np.int32(meta.step), abstract.step.sharding)
        state = TrainState(number, params, moments)
    return train(state, 2, 2 + STEPS)[1]


if __name__ == "__main__":
    cli.run(main)
