"""Kinds of tasks: only they know what they are, and their losses are PyTorch's, of what weighs something."""

import ast

import jax
import numpy as np
import pytest

from bertjax.errors import UserError
from bertjax.objectives.distillation import divergence
from bertjax.tasks.kinds.catalog import KINDS, bi_encoder_of, kind_named
from tests.support.commands import ROOT

torch = pytest.importorskip("torch")
functional = torch.nn.functional

ROWS, LENGTH, CLASSES = 6, 9, 4
RNG = np.random.default_rng(0)


def logits(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32) * 3


def example(kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(logits, labels, weights); the last rows weigh nothing."""
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
    """The mean over what weighs."""
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
def test_losses_are_those_of_pytorch(kind):
    scores, labels, weights = example(kind)
    mask = np.ones((ROWS, LENGTH), np.int32)
    mask[:, LENGTH - 2 :] = 0  # no answer lies in the padding
    batch = {"labels": labels, "weights": weights, "attention_mask": mask}
    term = jax.jit(kind_named(kind).terms)({"logits": scores}, batch)["task_loss"]
    assert float(term.mean()) == pytest.approx(in_pytorch(kind, scores, labels, weights), rel=1e-5)
    assert float(term.weight) == float(kind_named(kind).weights(batch)["task_loss"]) == weights.sum()


def divergence_in_pytorch(student, teacher, temperature: float) -> float:
    """The mean of T² KL(teacher ‖ student) over rows."""
    student, teacher = (torch.log_softmax(torch.tensor(x) / temperature, -1) for x in (student, teacher))
    loss = functional.kl_div(student, teacher, reduction="none", log_target=True).sum(-1).mean()
    return temperature**2 * loss.item()


def test_what_cannot_be_says_nothing_at_any_temperature():
    """Padding has the lowest score there is; divided by a temperature under 1 it is infinite."""
    student, teacher = logits(3, 5), logits(3, 5)
    student[:, 3:] = teacher[:, 3:] = np.finfo(np.float32).min
    found, gradient = jax.value_and_grad(lambda x: divergence(x, teacher, 0.5).mean())(student)
    assert float(found) == pytest.approx(divergence_in_pytorch(student[:, :3], teacher[:, :3], 0.5), rel=1e-5)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if not kind.bi_encoder])
def test_what_a_teacher_says_is_compared_as_in_pytorch(kind):
    scores, labels, weights = example(kind)
    teacher = logits(*scores.shape)
    mask = np.ones((ROWS, LENGTH), np.int32)
    mask[:, LENGTH - 2 :] = 0
    batch = {"labels": labels, "weights": weights, "attention_mask": mask, "teacher_logits": teacher}
    found = jax.jit(kind_named(kind).distillation_terms)({"logits": scores}, batch, 3.0)
    assert float(found["task_loss"].mean()) == pytest.approx(in_pytorch(kind, scores, labels, weights), rel=1e-5)
    real = weights > 0
    if kind == "choice":
        scores, teacher = scores.reshape(-1, 2), teacher.reshape(-1, 2)
    ours, theirs = scores[real], teacher[real]
    if kind == "regression":
        expected = np.mean((ours - theirs) ** 2)
    elif kind == "multi_label":
        pairs = [np.stack([x, np.zeros_like(x)], -1) for x in (ours, theirs)]
        expected = divergence_in_pytorch(*pairs, 3.0)
    elif kind == "span":
        text = LENGTH - 2
        expected = np.mean([divergence_in_pytorch(ours[:, :text, i], theirs[:, :text, i], 3.0) for i in range(2)])
    else:
        expected = divergence_in_pytorch(ours, theirs, 3.0)
    assert float(found["soft_loss"].mean()) == pytest.approx(expected, rel=1e-4)
    assert kind_named(kind).distillation_weights(batch).keys() == found.keys()


def decisions(path) -> list[str]:
    """Where a file decides something by the name of a kind: compares it, matches it, or looks something up by it."""

    def named(nodes) -> bool:
        constants = [leaf for node in nodes for leaf in ast.walk(node) if isinstance(leaf, ast.Constant)]
        return any(isinstance(leaf.value, str) and leaf.value in KINDS for leaf in constants)

    found = []
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
        if named(parts):
            found.append(f"{path.relative_to(ROOT)}:{node.lineno if hasattr(node, 'lineno') else node.value.lineno}")
    return found


def test_only_kinds_decide_by_their_names():
    folder = ROOT / "bertjax/tasks/kinds"
    # In `data` a span is what is masked at once; nothing there knows of tasks.
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
def test_decisions_by_names_are_seen(code, tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    (tmp_path / "code.py").write_text(code)
    assert decisions(tmp_path / "code.py")
    (tmp_path / "code.py").write_text('TaskMetadata("", kind="span")')
    assert not decisions(tmp_path / "code.py")


def test_every_kind_has_its_file_and_name():
    files = {path.stem for path in (ROOT / "bertjax/tasks/kinds").glob("*.py")}
    assert files >= KINDS.keys() and all(kind_named(name).name == name for name in KINDS)
    assert {kind.name: bi_encoder_of(kind).name for kind in KINDS.values() if bi_encoder_of(kind)} == {
        "classification": "pair_classification",
        "regression": "similarity",
        **{kind.name: kind.name for kind in KINDS.values() if kind.bi_encoder},
    }
    with pytest.raises(UserError, match="unknown kind of task 'taging'; did you mean 'tagging'"):
        kind_named("taging")
