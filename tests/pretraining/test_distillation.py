"""Distillation: its terms are those of PyTorch, a student starts from its teacher, runs go on and accumulate."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest

from bertjax.checkpoints import pretrained
from bertjax.config.layout import LayoutConfig
from bertjax.config.pretraining import DistillationConfig, Phase
from bertjax.errors import UserError
from bertjax.interop.loading import load_model
from bertjax.model.pretraining import PretrainingModel
from bertjax.objectives.distillation import angle, divergence
from bertjax.objectives.terms import weighted
from bertjax.pretraining.distillation import init_student
from bertjax.pretraining.run import train
from bertjax.trainer import metrics
from tests.support.batches import random_batch


@pytest.fixture
def student(tiny_config, trained):
    """The config of a student of half the teacher's layers."""
    model = dataclasses.replace(
        tiny_config.model, num_hidden_layers=1, model_type="distilbert", type_vocab_size=0, pooler_act="relu"
    )
    distillation = DistillationConfig(teacher=str(trained))
    return dataclasses.replace(tiny_config, model=model, next_sentence=False, distillation=distillation)


def losses(workdir) -> list[dict]:
    return [record for record in metrics.read(workdir / "metrics.jsonl") if "train/loss" in record]


def test_terms_are_those_of_pytorch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    student, teacher = (rng.normal(size=(5, 7, 11)).astype(np.float32) * 3 for _ in range(2))
    weights = (rng.random((5, 7)) < 0.6).astype(np.float32)
    chosen = weights > 0
    ours, theirs = (torch.tensor(x[chosen]) for x in (student, teacher))
    expected = torch.nn.functional.kl_div(
        torch.log_softmax(ours / 2, -1), torch.softmax(theirs / 2, -1), reduction="batchmean"
    )
    found = weighted(divergence(student, teacher, 2.0), weights)
    assert float(found.mean()) == pytest.approx(4 * expected.item(), rel=1e-5)
    expected = torch.nn.functional.cosine_embedding_loss(ours, theirs, torch.ones(len(ours)))
    assert float(weighted(angle(student, teacher), weights).mean()) == pytest.approx(expected.item(), rel=1e-5)


def test_a_student_that_is_its_teacher_has_nothing_to_learn_from_it():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 4, 9)).astype(np.float32)
    gradient = jax.grad(lambda x: divergence(x, logits, 2.0).sum())(logits)
    assert np.abs(gradient).max() < 1e-6
    np.testing.assert_allclose(angle(logits, 3 * logits), 0, atol=1e-6)


@pytest.mark.parametrize(("layers", "chosen"), [(2, [0, 2]), (3, [0, 1, 2]), (4, [0, 1, 2, 3])])
def test_the_student_starts_from_evenly_chosen_layers(layers, chosen, tiny_config):
    deep = dataclasses.replace(tiny_config.model, vocab_size=97, num_hidden_layers=4)
    shape = dataclasses.replace(deep, num_hidden_layers=layers, type_vocab_size=0)

    def params(config, seed):
        model = PretrainingModel(config, pairs="")
        return jax.jit(lambda: model.init(jax.random.key(seed), random_batch(config, 1, 8, 2))["params"])()

    theirs, before = params(deep, 0), params(shape, 1)
    teacher = pretrained.Pretrained("teacher", dataclasses.replace(tiny_config, model=deep), theirs, None, {}, 0)
    ours = init_student(teacher, shape, before)
    layer = ours["encoder"]["segment_0"]["layer_0"]["intermediate"]["kernel"]
    assert np.array_equal(layer, theirs["encoder"]["segment_0"]["layer_0"]["intermediate"]["kernel"][np.array(chosen)])
    for name in ("word_embeddings", "position_embeddings"):
        assert np.array_equal(ours["embeddings"][name]["embedding"], theirs["embeddings"][name]["embedding"])
    assert jax.tree.all(jax.tree.map(np.array_equal, ours["masked_lm_head"], theirs["masked_lm_head"]))


def test_a_run_learns_by_three_terms_and_goes_on_as_if_nothing_had_been(student, tmp_path):
    student = dataclasses.replace(student, optimizer=dataclasses.replace(student.optimizer, schedule="constant"))
    train(student, tmp_path / "whole")
    whole = losses(tmp_path / "whole")
    weights = student.distillation
    for record in whole:
        expected = (
            weights.soft_weight * record["train/soft_loss"]
            + weights.masked_lm_weight * record["train/mlm_loss"]
            + weights.cosine_weight * record["train/cosine_loss"]
        )
        assert record["train/loss"] == pytest.approx(expected, rel=1e-5)
    train(dataclasses.replace(student, phases=(Phase(4, 32, 8),)), tmp_path / "parts")
    train(student, tmp_path / "parts")
    assert losses(tmp_path / "parts") == whole
    # Frozen: the teacher is no part of the student.
    params = load_model(tmp_path / "whole").params
    assert set(params) == {"embeddings", "encoder", "masked_lm_head"}


def test_a_run_knows_its_teacher_wherever_that_lies(student, trained, tiny_config, tmp_path):
    def taught_by(teacher):
        return dataclasses.replace(student, distillation=DistillationConfig(teacher=str(teacher)))

    train(student, tmp_path / "run")
    shutil.copytree(trained, tmp_path / "moved")
    train(taught_by(tmp_path / "moved"), tmp_path / "run")
    train(dataclasses.replace(tiny_config, seed=1), tmp_path / "other")
    for teacher in (tmp_path / "other", ""):
        with pytest.raises(UserError, match="another teacher"):
            train(taught_by(teacher), tmp_path / "run")


def test_accumulation_changes_nothing(student, tmp_path):
    train(student, tmp_path / "whole")
    train(dataclasses.replace(student, layout=LayoutConfig(accumulation=2)), tmp_path / "parts")
    for one, other in zip(losses(tmp_path / "whole"), losses(tmp_path / "parts"), strict=True):
        assert other["train/loss"] == pytest.approx(one["train/loss"], rel=1e-5)
        for name in ("train/soft_loss", "train/cosine_loss"):  # small differences of large numbers
            assert other[name] == pytest.approx(one[name], abs=1e-6)
    # Evaluations are in parts of as many rows, and come to the same.
    one, other = (
        [record for record in metrics.read(tmp_path / name / "metrics.jsonl") if "eval/mlm_loss" in record]
        for name in ("whole", "parts")
    )
    assert one and [record["eval/mlm_loss"] for record in other] == pytest.approx(
        [record["eval/mlm_loss"] for record in one], rel=1e-5
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": 64}, "config.model.hidden_size is 64, but 32 in the teacher"),
        ({"num_hidden_groups": 1}, "distillation.initialize to False"),
        ({"intermediate_size": 48}, "intermediate/bias is .* set config.model as in the teacher"),
    ],
)
def test_teachers_that_do_not_fit_are_refused(fields, message, student, tmp_path):
    student = dataclasses.replace(student, model=dataclasses.replace(student.model, **fields))
    with pytest.raises(UserError, match=message):
        train(student, tmp_path / "run")
