"""Every config lowers for every platform, with the attention kernels chosen there.

Nothing is compiled, thus no GPU or TPU is needed. New files in configs/ are covered automatically.
"""

import dataclasses
import functools
import runpy

import jax
import pytest

from bertjax.config.layout import MeshConfig
from bertjax.config.parse import from_config_dict
from bertjax.config.pretraining import Config, Phase
from bertjax.parallel import sharding
from bertjax.parallel.mesh import make_mesh
from bertjax.pretraining import build, distillation
from bertjax.trainer.step import TrainState, initial_state, make_eval_step, make_init, make_train_step
from tests.support.commands import ROOT
from tests.support.platforms import PLATFORMS, kernels, libraries_of, lower

VOCABULARY = 8000  # of configs that take it from the corpus


def pretraining_configs() -> dict[str, Config]:
    configs = {}
    for path in sorted((ROOT / "configs").glob("*.py")):
        values = runpy.run_path(str(path))["get_config"]()
        if "phases" not in values:  # a fine-tuning config
            continue
        config = from_config_dict(values)
        model = dataclasses.replace(config.model, vocab_size=config.model.vocab_size or VOCABULARY)
        configs[path.stem] = dataclasses.replace(config, model=model)
    return configs


CONFIGS = pretraining_configs()
PHASES = [(name, number) for name, config in CONFIGS.items() for number in range(len(config.phases))]


def without_dropout(config: Config) -> Config:
    """Returns the config of an evaluation."""
    return dataclasses.replace(config, model=dataclasses.replace(config.model, attention_probs_dropout_prob=0.0))


def fused_impls(config: Config, phase: Phase, platform: str) -> set[str]:
    """Returns the fused attention implementations of a phase, as reported to the user."""
    impls = build.attention_impl(config, phase, one_device(), platform)
    return set(impls.split(" and ")) - {"xla"}


def one_device() -> jax.sharding.Mesh:
    return make_mesh(MeshConfig(), jax.devices()[:1])


def abstract_batch(config: Config, phase: Phase) -> dict[str, jax.ShapeDtypeStruct]:
    batch = build.abstract_batch(config, phase)
    shardings = sharding.batch_shardings(batch, one_device())
    return {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=shardings[name]) for name, x in batch.items()}


@functools.cache
def initialization(name: str, platform: str) -> tuple[set[str], TrainState]:
    """Returns (kernels, abstract state) of the initialization of a run, which takes the batch of the first phase."""
    config = CONFIGS[name]
    objective, (optimizer, _) = build.make_objective(config, platform), build.make_optimizer(config)
    batch = build.abstract_batch(config, config.phases[0])
    init = lower(platform, make_init(initial_state(objective, optimizer, batch, config.seed), one_device()))
    return kernels(init), init.out_info


def check_phase(name: str, number: int, platform: str) -> None:
    config, mesh = CONFIGS[name], one_device()
    phase = config.phases[number]
    init_kernels, state = initialization(name, platform)
    assert not init_kernels

    objective = build.make_objective(config.for_phase(phase), platform)
    optimizer, schedule = build.make_optimizer(config)
    batch = abstract_batch(config, phase)
    step = make_train_step(objective, optimizer, schedule, mesh, config.seed, config.layout.accumulation)
    expected = fused_impls(config, phase, platform)
    assert kernels(lower(platform, step, state, batch)) == expected | {f"{impl} backward" for impl in expected}
    evaluation = lower(platform, make_eval_step(objective, mesh), state.params, batch)
    assert kernels(evaluation) == fused_impls(without_dropout(config), phase, platform)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize(("name", "number"), PHASES, ids=[f"{name}-{number + 1}" for name, number in PHASES])
def test_every_phase_of_every_config_lowers(name, number, platform):
    with libraries_of(platform):
        check_phase(name, number, platform)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_student_lowers_with_its_teacher(platform):
    """The teacher has no dropout and may use a fused kernel where the student cannot."""
    config, teacher = CONFIGS["distilbert_base"], CONFIGS["base"]
    settings, (phase,) = dataclasses.replace(config.distillation, teacher="base"), config.phases
    config = dataclasses.replace(config, distillation=settings)
    with libraries_of(platform):
        (_, state), (_, teacher_state) = (initialization(name, platform) for name in ("distilbert_base", "base"))
        forward = distillation.make_forward(teacher.model, config, platform)
        objective = dataclasses.replace(build.make_objective(config, platform), teacher_forward=forward)
        step = make_train_step(objective, *build.make_optimizer(config), one_device(), config.seed)
        params = {name: teacher_state.params[name] for name in distillation.TEACHER_PARTS}
        lowered = lower(platform, step, state, abstract_batch(config, phase), params)
    assert not fused_impls(config, phase, platform)
    assert kernels(lowered) == fused_impls(without_dropout(config), phase, platform) != set()


@pytest.mark.parametrize(("platform", "kernel"), [("cuda", "cudnn"), ("tpu", "splash")])
def test_some_config_uses_the_kernel_of_each_platform(platform, kernel):
    """Otherwise the tests above would pass without any fused kernel."""
    phases = [(config, phase) for config in CONFIGS.values() for phase in config.phases]
    assert any(fused_impls(config, phase, platform) == {kernel} for config, phase in phases)
    assert any(not fused_impls(config, phase, platform) for config, phase in phases)
    assert any(fused_impls(without_dropout(config), phase, platform) == {kernel} for config, phase in phases)
