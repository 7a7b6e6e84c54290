"""Distillation: terms compared with PyTorch, initialization of the student, resuming and accumulation."""

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
from bertjax.objectives.distillation import cosine_distance, divergence
from bertjax.objectives.terms import weighted
from bertjax.pretraining.distillation import init_student
from bertjax.pretraining.run import train
from bertjax.trainer import metrics
from tests.support.batches import random_batch


@pytest.fixture
def student(tiny_config, trained):
    """Returns the config of a student with half of the teacher's layers."""
    model = dataclasses.replace(
        tiny_config.model, num_hidden_layers=1, model_type="distilbert", type_vocab_size=0, pooler_act="relu"
    )
    distillation = DistillationConfig(teacher=str(trained))
    return dataclasses.replace(tiny_config, model=model, next_sentence=False, distillation=distillation)


def losses(workdir) -> list[dict]:
    return [record for record in metrics.read(workdir / "metrics.jsonl") if "train/loss" in record]


def test_terms_match_pytorch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    student, teacher = (rng.normal(size=(5, 7, 11)).astype(np.float32) * 3 for _ in range(2))
    weights = (rng.random((5, 7)) < 0.6).astype(np.float32)
    selected = weights > 0
    student_logits, teacher_logits = (torch.tensor(x[selected]) for x in (student, teacher))
    expected = torch.nn.functional.kl_div(
        torch.log_softmax(student_logits / 2, -1), torch.softmax(teacher_logits / 2, -1), reduction="batchmean"
    )
    term = weighted(divergence(student, teacher, 2.0), weights)
    assert float(term.mean()) == pytest.approx(4 * expected.item(), rel=1e-5)
    expected = torch.nn.functional.cosine_embedding_loss(
        student_logits, teacher_logits, torch.ones(len(student_logits))
    )
    assert float(weighted(cosine_distance(student, teacher), weights).mean()) == pytest.approx(
        expected.item(), rel=1e-5
    )


def test_equal_student_and_teacher_have_zero_gradient():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 4, 9)).astype(np.float32)
    gradient = jax.grad(lambda x: divergence(x, logits, 2.0).sum())(logits)
    assert np.abs(gradient).max() < 1e-6
    np.testing.assert_allclose(cosine_distance(logits, 3 * logits), 0, atol=1e-6)


@pytest.mark.parametrize(("layers", "expected"), [(2, [0, 2]), (3, [0, 1, 2]), (4, [0, 1, 2, 3])])
def test_the_student_starts_from_evenly_spaced_layers(layers, expected, tiny_config):
    deep = dataclasses.replace(tiny_config.model, vocab_size=97, num_hidden_layers=4)
    shape = dataclasses.replace(deep, num_hidden_layers=layers, type_vocab_size=0)

    def params(config, seed):
        model = PretrainingModel(config, pairs="")
        return jax.jit(lambda: model.init(jax.random.key(seed), random_batch(config, 1, 8, 2))["params"])()

    teacher_params, student_params = params(deep, 0), params(shape, 1)
    teacher_config = dataclasses.replace(tiny_config, model=deep)
    teacher = pretrained.Pretrained("teacher", teacher_config, teacher_params, None, {}, 0)
    initial = init_student(teacher, shape, student_params)
    kernel, teacher_kernel = (
        tree["encoder"]["segment_0"]["layer_0"]["intermediate"]["kernel"] for tree in (initial, teacher_params)
    )
    assert np.array_equal(kernel, teacher_kernel[np.array(expected)])
    for name in ("word_embeddings", "position_embeddings"):
        assert np.array_equal(initial["embeddings"][name]["embedding"], teacher_params["embeddings"][name]["embedding"])
    assert jax.tree.all(jax.tree.map(np.array_equal, initial["masked_lm_head"], teacher_params["masked_lm_head"]))


def test_the_loss_weights_three_terms_and_resumes_exactly(student, tmp_path):
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
    # The frozen teacher is not part of the student.
    params = load_model(tmp_path / "whole").params
    assert set(params) == {"embeddings", "encoder", "masked_lm_head"}


def test_a_run_recognizes_its_teacher_at_another_path(student, trained, tiny_config, tmp_path):
    def with_teacher(teacher):
        return dataclasses.replace(student, distillation=DistillationConfig(teacher=str(teacher)))

    train(student, tmp_path / "run")
    shutil.copytree(trained, tmp_path / "moved")
    train(with_teacher(tmp_path / "moved"), tmp_path / "run")
    train(dataclasses.replace(tiny_config, seed=1), tmp_path / "other")
    for teacher in (tmp_path / "other", ""):
        with pytest.raises(UserError, match="another teacher"):
            train(with_teacher(teacher), tmp_path / "run")


def test_accumulation_changes_only_rounding(student, tmp_path):
    train(student, tmp_path / "whole")
    train(dataclasses.replace(student, layout=LayoutConfig(accumulation=2)), tmp_path / "parts")
    for whole, parts in zip(losses(tmp_path / "whole"), losses(tmp_path / "parts"), strict=True):
        assert parts["train/loss"] == pytest.approx(whole["train/loss"], rel=1e-5)
        for name in ("train/soft_loss", "train/cosine_loss"):  # small differences of large numbers
            assert parts[name] == pytest.approx(whole[name], abs=1e-6)
    # Evaluations use microbatches of the same size, with equal results.
    whole, parts = (
        [record for record in metrics.read(tmp_path / name / "metrics.jsonl") if "eval/mlm_loss" in record]
        for name in ("whole", "parts")
    )
    assert whole and [record["eval/mlm_loss"] for record in parts] == pytest.approx(
        [record["eval/mlm_loss"] for record in whole], rel=1e-5
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": 64}, "config.model.hidden_size is 64, but 32 in the teacher"),
        ({"num_hidden_groups": 1}, "distillation.initialize to False"),
        ({"intermediate_size": 48}, "intermediate/bias is .* set config.model as in the teacher"),
    ],
)
def test_incompatible_teachers_are_refused(fields, message, student, tmp_path):
    student = dataclasses.replace(student, model=dataclasses.replace(student.model, **fields))
    with pytest.raises(UserError, match=message):
        train(student, tmp_path / "run")
