"""Every config traces and lowers as on every accelerator, with the attention kernels that bertjax chooses there.

Nothing is compiled, so that it needs neither a GPU nor a TPU. A new config in configs/ is covered by being there.
"""

import dataclasses
import functools
import runpy
from typing import Any

import jax
import pytest

from bertjax.config.layout import MeshConfig
from bertjax.config.parse import from_config_dict
from bertjax.config.pretraining import Config, Phase
from bertjax.parallel import sharding
from bertjax.parallel.mesh import make_mesh
from bertjax.pretraining import build, distillation
from bertjax.trainer.step import make_eval_step, make_init, make_train_step
from tests.support.commands import ROOT
from tests.support.platforms import PLATFORMS, kernels, libraries_of, lower

VOCABULARY = 8000  # of a config that leaves it to the corpus


def pretraining_configs() -> dict[str, Config]:
    found = {}
    for path in sorted((ROOT / "configs").glob("*.py")):
        values = runpy.run_path(str(path))["get_config"]()
        if "phases" not in values:  # of fine-tuning
            continue
        config = from_config_dict(values)
        model = dataclasses.replace(config.model, vocab_size=config.model.vocab_size or VOCABULARY)
        found[path.stem] = dataclasses.replace(config, model=model)
    return found


CONFIGS = pretraining_configs()
PHASES = [(name, number) for name, config in CONFIGS.items() for number in range(len(config.phases))]


def without_dropout(config: Config) -> Config:
    """As an evaluation computes."""
    return dataclasses.replace(config, model=dataclasses.replace(config.model, attention_probs_dropout_prob=0.0))


def chosen(config: Config, phase: Phase, platform: str) -> set[str]:
    """The kernels among what bertjax tells a user that it computes attention by."""
    impls = build.attention_impl(config, phase, one_device(), platform)
    return set(impls.split(" and ")) - {"xla"}


def one_device() -> jax.sharding.Mesh:
    return make_mesh(MeshConfig(), jax.devices()[:1])


def abstract_batch(config: Config, phase: Phase) -> dict[str, jax.ShapeDtypeStruct]:
    batch = build.abstract_batch(config, phase)
    shardings = sharding.of_batch(batch, one_device())
    return {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=shardings[name]) for name, x in batch.items()}


@functools.cache
def initialisation(name: str, platform: str) -> tuple[set[str], Any]:
    """(its kernels, the abstract state that it gives); a run starts with the first phase."""
    config = CONFIGS[name]
    objective, (optimizer, _) = build.make_objective(config, platform), build.make_optimizer(config)
    batch = build.abstract_batch(config, config.phases[0])
    init = lower(platform, make_init(objective, optimizer, batch, one_device(), config.seed))
    return kernels(init), init.out_info


def check_phase(name: str, number: int, platform: str) -> None:
    config, mesh = CONFIGS[name], one_device()
    phase = config.phases[number]
    initialised_by, state = initialisation(name, platform)
    assert not initialised_by

    objective = build.make_objective(config.in_phase(phase), platform)
    optimizer, schedule = build.make_optimizer(config)
    batch = abstract_batch(config, phase)
    step = make_train_step(objective, optimizer, schedule, mesh, config.seed, config.layout.accumulation)
    expected = chosen(config, phase, platform)
    assert kernels(lower(platform, step, state, batch)) == expected | {f"{impl} backward" for impl in expected}
    evaluation = lower(platform, make_eval_step(objective, mesh), state.params, batch)
    assert kernels(evaluation) == chosen(without_dropout(config), phase, platform)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize(("name", "number"), PHASES, ids=[f"{name}-{number + 1}" for name, number in PHASES])
def test_every_phase_of_every_config_lowers(name, number, platform):
    with libraries_of(platform):
        check_phase(name, number, platform)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_student_lowers_with_its_teacher(platform):
    """A teacher drops nothing, so that it has a kernel where the student has none."""
    config, teacher = CONFIGS["distilbert_base"], CONFIGS["base"]
    settings, (phase,) = dataclasses.replace(config.distillation, teacher="base"), config.phases
    config = dataclasses.replace(config, distillation=settings)
    with libraries_of(platform):
        (_, state), (_, teacher_state) = (initialisation(name, platform) for name in ("distilbert_base", "base"))
        forward = distillation.make_forward(teacher.model, config, platform)
        objective = dataclasses.replace(build.make_objective(config, platform), teacher_forward=forward)
        step = make_train_step(objective, *build.make_optimizer(config), one_device(), config.seed)
        params = {name: teacher_state.params[name] for name in distillation.READ}
        lowered = lower(platform, step, state, abstract_batch(config, phase), params)
    assert not chosen(config, phase, platform)
    assert kernels(lowered) == chosen(without_dropout(config), phase, platform) != set()


@pytest.mark.parametrize(("platform", "kernel"), [("cuda", "cudnn"), ("tpu", "splash")])
def test_the_configs_reach_the_kernel_of_each_platform(platform, kernel):
    """Else the test above would hold where nothing is ever fused."""
    phases = [(config, phase) for config in CONFIGS.values() for phase in config.phases]
    assert any(chosen(config, phase, platform) == {kernel} for config, phase in phases)
    assert any(not chosen(config, phase, platform) for config, phase in phases)
    assert any(chosen(without_dropout(config), phase, platform) == {kernel} for config, phase in phases)
