"""Trains a small model in many layouts on 8 virtual devices: python -m tests.support.layouts OUTPUT.npz

Writes for each layout the losses of ten steps, the gradients of the first step and the final parameters, and for those
in PINNED the communication of a step.
"""

import dataclasses
import os
import sys
from collections.abc import Callable
from typing import Any

from bertjax.config.model import ModelConfig
from bertjax.model.partitioning import state_shardings

STEPS = 10
ROWS, LENGTH, PREDICTIONS = 8, 32, 6
ONE = "one device"
MESHES = {
    "data 8": {"data": 8},
    "fsdp 8": {"data": 1, "fsdp": 8},
    "data 2 x fsdp 4": {"data": 2, "fsdp": 4},
    "data 2 x tensor 4": {"data": 2, "tensor": 4},
    "data 2 x sequence 4": {"data": 2, "sequence": 4},
    "fsdp 2 x tensor 2 x sequence 2": {"data": 1, "fsdp": 2, "tensor": 2, "sequence": 2},
}
LAYOUTS = {
    "accumulation 4": {"accumulation": 4},
    "remat bert": {"remat": "bert"},
    "remat dots": {"remat": "dots"},
    "remat full": {"remat": "full"},
    "unrolled": {"unroll": 3},
}
PINNED = ("fsdp 8", "data 2 x tensor 4", "data 2 x sequence 4")
# Without dropout, at a length that the kernel supports: (mesh, layout); the first one is the reference.
PLAIN = "plain attention"
KERNELS = {
    PLAIN: (None, {"attention_impl": "xla"}),
    "splash attention": ({"data": 2, "fsdp": 2, "tensor": 2}, {"attention_impl": "splash", "remat": "bert"}),
}
# Models with shared layers, and with different layers and windows: on one device, and with all axes and layouts.
FAMILY = ("albert", "modernbert")
EVERYTHING = "{}, all axes and layouts"
AXES, LAYOUT = {"data": 1, "fsdp": 2, "tensor": 2, "sequence": 2}, {"accumulation": 2, "remat": "bert", "unroll": 2}
# All optimizers except AdamW in f32: on one device, and with state sharded over two axes.
OPTIMIZERS = {
    "lamb": {"name": "lamb"},
    "stable_adamw": {"name": "stable_adamw"},
    "muon": {"name": "muon"},
    "bfloat16 state": {"name": "adamw", "state_dtype": "bfloat16"},
}
SHARDED = "{}, fsdp 4 x tensor 2"
SHARDED_AXES = {"data": 1, "fsdp": 4, "tensor": 2}
# Packed rows and distillation: on one device, and with all axes and layouts.
PACKED, DISTILLED = "packed rows", "distillation"
# Sizes that the meshes divide.
SIZES = {
    "vocab_size": 97,  # padded
    "hidden_size": 48,
    "num_attention_heads": 4,
    "intermediate_size": 72,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A training and its layout."""

    model: ModelConfig
    length: int = LENGTH
    axes: dict[str, int] | None = None  # None: one device
    layout: dict[str, Any] = dataclasses.field(default_factory=dict)
    optimizer: dict[str, Any] = dataclasses.field(default_factory=dict)
    packing: int = 0
    teacher: ModelConfig | None = None


def groups() -> list[dict[str, Case]]:
    """Groups of cases with equal results; the first of each group is the reference."""
    from tests.support import synthetic
    from tests.support.batches import FAMILIES, SMALL

    bert = dataclasses.replace(SMALL, **SIZES, max_position_embeddings=LENGTH)
    no_dropout = dataclasses.replace(
        bert, max_position_embeddings=128, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    albert = dataclasses.replace(FAMILIES["albert"], **SIZES, embedding_size=16, num_hidden_layers=4)
    modern = dataclasses.replace(FAMILIES["modernbert"], **SIZES, num_hidden_layers=5)
    words = dataclasses.replace(bert, vocab_size=synthetic.VOCAB_SIZE)
    cases = [
        {name: Case(bert, axes=MESHES.get(name), layout=LAYOUTS.get(name, {})) for name in (ONE, *MESHES, *LAYOUTS)},
        {name: Case(no_dropout, 128, *options) for name, options in KERNELS.items()},
    ]
    references = dict(zip(FAMILY, (Case(albert), Case(modern)), strict=True))
    references |= {PACKED: Case(words, packing=3), DISTILLED: Case(bert, teacher=no_dropout)}
    for name, case in references.items():
        cases.append({name: case, EVERYTHING.format(name): dataclasses.replace(case, axes=AXES, layout=LAYOUT)})
    for name, optimizer in OPTIMIZERS.items():
        case = Case(bert, optimizer=optimizer)
        cases.append({name: case, SHARDED.format(name): dataclasses.replace(case, axes=SHARDED_AXES)})
    return cases


def main(output: str) -> None:
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    import numpy as np

    results = {}
    for group in groups():
        start = None
        for name, case in group.items():
            start, trained = train(name, case, start)
            results |= {f"{name}/{key}": value for key, value in trained.items()}
    np.savez(output, **results)


def train(name: str, case: Case, start: Any) -> tuple[Any, dict[str, Any]]:
    """Trains ten steps from the state `start`, or a new one; returns this state and the results."""
    import jax
    import numpy as np

    from bertjax.arrays.trees import named_leaves
    from bertjax.config.layout import LayoutConfig, MeshConfig
    from bertjax.config.optimizer import OptimizerConfig
    from bertjax.config.pretraining import Config, DistillationConfig, Phase
    from bertjax.parallel.mesh import make_mesh, put_batch
    from bertjax.pretraining import build
    from bertjax.trainer.step import initial_state, make_init, make_train_step

    assert jax.device_count() == 8
    # Without clipping the first moment after one step is proportional to the gradient.
    optimizer_config = OptimizerConfig(learning_rate=1e-3, warmup_steps=0, clip_norm=0.0, **case.optimizer)
    config = Config(
        model=case.model,
        optimizer=optimizer_config,
        phases=(Phase(STEPS, case.length, ROWS),),
        next_sentence=case.model.model_type == "bert",
        sentence_order=case.model.model_type == "albert",
        packing=case.packing,
        dtype="float32",
        layout=LayoutConfig(**case.layout),
        distillation=DistillationConfig(teacher="here" if case.teacher else ""),
    )
    if case.axes is None:
        mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    else:
        mesh = make_mesh(dataclasses.replace(MeshConfig(), **case.axes))
    objective, params = build.make_objective(config), ()
    if case.teacher:
        forward, *params = _teacher(case.teacher, config, mesh)
        objective = dataclasses.replace(objective, teacher_forward=forward)
    optimizer, schedule = build.make_optimizer(config)
    build.check_mesh(config, mesh)
    batch_of = _batches(config)
    if start is None:
        start = jax.device_get(make_init(initial_state(objective, optimizer, batch_of(0), seed=3), mesh)())
    state = jax.device_put(start, state_shardings(start, mesh))
    if case.axes:
        kernel = state.params["encoder"]["segment_0"]["layer_0"]["intermediate"]["kernel"]
        parts = case.axes.get("fsdp", 1) * case.axes.get("tensor", 1)
        assert kernel.addressable_shards[0].data.size * parts == kernel.size
    step = make_train_step(objective, optimizer, schedule, mesh, seed=3, accumulation=config.layout.accumulation)
    step = step.lower(state, put_batch(batch_of(0), mesh), *params).compile()
    losses, first = [], {}
    for number in range(STEPS):
        state, metrics = step(state, put_batch(batch_of(number), mesh), *params)
        losses.append(float(metrics["train/loss"]))
        if number == 0 and not case.optimizer:
            first = jax.device_get(named_leaves({"gradient": _moment(state.optimizer)}))
    results = {"losses": np.array(losses)} | first | jax.device_get(named_leaves({"params": state.params}))
    return start, results | ({"sent": np.array(_communication(step, mesh))} if name in PINNED else {})


def _batches(config: Any) -> Callable[[int], dict[str, Any]]:
    """Returns number → batch of the config's only phase, padded or packed."""
    import tempfile
    from pathlib import Path

    import numpy as np

    from bertjax.corpus.format import Corpus
    from bertjax.data.pipeline import row_format
    from bertjax.data.stream import Stream
    from tests.support import synthetic
    from tests.support.batches import random_batch

    phase = config.phases[0]
    if config.packing:
        documents = synthetic.text(np.random.default_rng(0), 100, 10)
        corpus = Corpus.open(synthetic.write(Path(tempfile.mkdtemp()), {"train": [documents]}))
        stream = Stream(corpus, synthetic.vocabulary(), row_format(config, phase), 0, "phase 0")
        return lambda number: stream.batch(np.arange(number * ROWS, (number + 1) * ROWS))
    unused = () if config.next_sentence else ("next_sentence_labels",)

    def batch_of(number: int) -> dict[str, Any]:
        batch = random_batch(config.model, ROWS, phase.length, PREDICTIONS, number)
        return {name: batch[name] for name in batch if name not in unused}

    return batch_of


def _teacher(model: ModelConfig, config: Any, mesh: Any) -> tuple[Any, Any]:
    """The `teacher_forward` of a model with random parameters."""
    from pathlib import Path

    import jax

    from bertjax.checkpoints.pretrained import Pretrained
    from bertjax.config.pretraining import Config
    from bertjax.model.pretraining import PretrainingModel
    from bertjax.pretraining.distillation import teacher_forward
    from tests.support.batches import random_batch

    batch = random_batch(model, ROWS, LENGTH, PREDICTIONS)
    params = jax.jit(lambda: PretrainingModel(model).init(jax.random.key(7), batch)["params"])()
    params = jax.device_get(params)
    source = Pretrained(Path(), Config(model=model), params, tokenizer=None, tokenizer_files={}, step=0)
    return teacher_forward(source, config, mesh)


def _communication(step, mesh) -> list[str]:
    """One line per collective and axes: the number of calls, and the total bytes sent per device."""
    from bertjax.planning import collectives, hlo

    found = collectives.collectives(hlo.parse(step.as_text()), dict(mesh.shape))
    return [f"{name}: {times} times, {sent} bytes" for name, (times, sent) in collectives.totals(found).items()]


def _moment(optimizer: tuple):
    """Adam's first moment."""
    return next(part.mu for part in optimizer if hasattr(part, "mu"))


if __name__ == "__main__":
    main(sys.argv[1])
