"""Task kinds: their losses equal PyTorch's, and no other code depends on their names."""

import ast
from typing import get_args, get_type_hints

import jax
import numpy as np
import pytest

from bertjax.config.finetuning import FEATURES
from bertjax.config.model import POOLINGS
from bertjax.errors import UserError
from bertjax.objectives.distillation import divergence
from bertjax.tasks.kinds.catalog import KINDS, bi_encoder_of, kind_named
from bertjax.tasks.metadata import SentenceMetadata, TaskMetadata
from tests.support.commands import ROOT

torch = pytest.importorskip("torch")
functional = torch.nn.functional

ROWS, LENGTH, CLASSES = 6, 9, 4
RNG = np.random.default_rng(0)


def logits(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32) * 3


def example(kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (logits, labels, weights); the last rows have weight 0."""
    weights = (np.arange(ROWS) < 4).astype(np.float32)
    if kind == "classification":
        return logits(ROWS, CLASSES), RNG.integers(0, CLASSES, ROWS), weights
    if kind == "multi_label":
        return logits(ROWS, CLASSES), RNG.integers(0, 2, (ROWS, CLASSES)), weights
    if kind == "regression":
        return logits(ROWS, 1), logits(ROWS), weights
    if kind == "choice":
        return logits(ROWS, 1), RNG.integers(0, 2, ROWS // 2), weights[: ROWS // 2]
    if kind == "tagging":
        return (
            logits(ROWS, LENGTH, CLASSES),
            RNG.integers(0, CLASSES, (ROWS, LENGTH)),
            np.float32(RNG.random((ROWS, LENGTH)) < 0.4),
        )
    assert kind == "span", "a new kind needs a case here"
    return logits(ROWS, LENGTH, 2), RNG.integers(0, LENGTH - 2, (ROWS, 2)), weights


def in_pytorch(kind: str, scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    """Returns the mean loss over labels of weight 1."""
    real = weights > 0
    scores, labels = torch.tensor(scores), torch.tensor(labels)
    if kind == "multi_label":
        return functional.binary_cross_entropy_with_logits(scores[real], labels[real].float()).item()
    if kind == "regression":
        return functional.mse_loss(scores[real][:, 0], labels[real]).item()
    if kind == "choice":
        return functional.cross_entropy(scores.view(-1, 2)[real], labels[real]).item()
    if kind == "span":
        ends = [functional.cross_entropy(scores[real][:, : LENGTH - 2, i], labels[real][:, i]) for i in range(2)]
        return (sum(ends) / 2).item()
    return functional.cross_entropy(scores[real], labels[real]).item()


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if not kind.bi_encoder])
def test_losses_equal_pytorchs(kind):
    scores, labels, weights = example(kind)
    mask = np.ones((ROWS, LENGTH), np.int32)
    mask[:, LENGTH - 2 :] = 0  # padding, which contains no answers
    batch = {"labels": labels, "weights": weights, "attention_mask": mask}
    term = jax.jit(kind_named(kind).terms)({"logits": scores}, batch)["task_loss"]
    assert float(term.mean()) == pytest.approx(in_pytorch(kind, scores, labels, weights), rel=1e-5)
    assert float(term.weight) == float(kind_named(kind).weights(batch)["task_loss"]) == weights.sum()


def divergence_in_pytorch(student, teacher, temperature: float) -> float:
    """Returns the mean of T² KL(teacher ‖ student) over rows."""
    student, teacher = (torch.log_softmax(torch.tensor(x) / temperature, -1) for x in (student, teacher))
    loss = functional.kl_div(student, teacher, reduction="none", log_target=True).sum(-1).mean()
    return temperature**2 * loss.item()


def test_masked_classes_do_not_affect_the_divergence_at_any_temperature():
    """The logit of padding is the minimum of f32, which a temperature below 1 turns into -inf."""
    student, teacher = logits(3, 5), logits(3, 5)
    student[:, 3:] = teacher[:, 3:] = np.finfo(np.float32).min
    loss, gradient = jax.value_and_grad(lambda x: divergence(x, teacher, 0.5).mean())(student)
    assert float(loss) == pytest.approx(divergence_in_pytorch(student[:, :3], teacher[:, :3], 0.5), rel=1e-5)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if not kind.bi_encoder])
def test_distillation_losses_equal_pytorchs(kind):
    scores, labels, weights = example(kind)
    teacher = logits(*scores.shape)
    mask = np.ones((ROWS, LENGTH), np.int32)
    mask[:, LENGTH - 2 :] = 0
    batch = {"labels": labels, "weights": weights, "attention_mask": mask, "teacher_logits": teacher}
    terms = jax.jit(kind_named(kind).distillation_terms)({"logits": scores}, batch, 3.0)
    assert float(terms["task_loss"].mean()) == pytest.approx(in_pytorch(kind, scores, labels, weights), rel=1e-5)
    real = weights > 0
    if kind == "choice":
        scores, teacher = scores.reshape(-1, 2), teacher.reshape(-1, 2)
    student, teacher = scores[real], teacher[real]
    if kind == "regression":
        expected = np.mean((student - teacher) ** 2)
    elif kind == "multi_label":
        pairs = [np.stack([x, np.zeros_like(x)], -1) for x in (student, teacher)]
        expected = divergence_in_pytorch(*pairs, 3.0)
    elif kind == "span":
        text = LENGTH - 2
        expected = np.mean([divergence_in_pytorch(student[:, :text, i], teacher[:, :text, i], 3.0) for i in range(2)])
    else:
        expected = divergence_in_pytorch(student, teacher, 3.0)
    assert float(terms["soft_loss"].mean()) == pytest.approx(expected, rel=1e-4)
    assert kind_named(kind).distillation_weights(batch).keys() == terms.keys()


def decisions(path) -> list[str]:
    """Returns the places where a file compares, matches or looks up the name of a kind."""

    def contain_kind(nodes) -> bool:
        constants = [leaf for node in nodes for leaf in ast.walk(node) if isinstance(leaf, ast.Constant)]
        return any(isinstance(leaf.value, str) and leaf.value in KINDS for leaf in constants)

    places = []
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Compare():
                parts = [node.left, *node.comparators]
            case ast.Dict():
                parts = [key for key in node.keys if key is not None]
            case ast.MatchValue():
                parts = [node.value]
            case ast.Subscript():
                parts = [node.slice]
            case ast.Call(func=ast.Attribute(attr="get" | "startswith" | "endswith" | "pop" | "fromkeys")):
                parts = node.args[:1]
            case _:
                continue
        if contain_kind(parts):
            places.append(f"{path.relative_to(ROOT)}:{node.lineno if hasattr(node, 'lineno') else node.value.lineno}")
    return places


def test_only_kinds_depend_on_their_names():
    folder = ROOT / "bertjax/tasks/kinds"
    # In `data` spans are units of masking; it has no tasks.
    others = (folder, ROOT / "bertjax/data")
    files = [path for path in sorted((ROOT / "bertjax").rglob("*.py")) if not set(others) & set(path.parents)]
    assert len(files) > 100
    assert not [place for path in files for place in decisions(path)]


@pytest.mark.parametrize(
    "code",
    [
        'kind == "span"',
        'kind in ("span", "x")',
        '{"span": 2}.get(kind)',
        'table["span"]',
        'match kind:\n    case "span":\n        pass',
    ],
)
def test_decisions_by_names_are_detected(code, tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    (tmp_path / "code.py").write_text(code)
    assert decisions(tmp_path / "code.py")
    (tmp_path / "code.py").write_text('TaskMetadata("", kind="span")')
    assert not decisions(tmp_path / "code.py")


def test_every_kind_has_a_module_of_its_name():
    files = {path.stem for path in (ROOT / "bertjax/tasks/kinds").glob("*.py")}
    assert files >= set(KINDS) and all(kind_named(name).name == name for name in KINDS)
    assert {kind.name: bi_encoder_of(kind).name for kind in KINDS.values() if bi_encoder_of(kind)} == {
        "classification": "pair_classification",
        "regression": "similarity",
        **{kind.name: kind.name for kind in KINDS.values() if kind.bi_encoder},
    }
    with pytest.raises(UserError, match="unknown task kind 'taging'; did you mean 'tagging'"):
        kind_named("taging")


def test_metadata_accepts_the_values_of_the_config():
    assert get_args(get_type_hints(SentenceMetadata)["pooling"]) == POOLINGS
    assert get_args(get_type_hints(TaskMetadata)["features"]) == ("", *FEATURES)
