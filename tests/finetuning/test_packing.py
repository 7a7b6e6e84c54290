"""Packed rows give every unit the scores and the loss that it has by itself."""

import jax
import numpy as np
import pytest

from bertjax.finetuning.dataset import Batches
from bertjax.model.finetuning import POOLED, FinetuningModel
from bertjax.model.sentence import SentenceModel
from bertjax.objectives import finetuning as objectives
from bertjax.objectives import sentence
from bertjax.objectives.terms import total
from bertjax.tasks.examples import APART
from bertjax.tasks.inputs import Row
from tests.support.batches import SMALL

LABELS = {  # of the unit of a number
    "classification": lambda unit: unit % 3,
    "multi_label": lambda unit: (unit % 2, 1, unit % 3 == 0),
    "regression": lambda unit: unit / 12,
    "choice": lambda unit: unit % 2,
    "tagging": lambda unit: (unit % 2, 2),
    "span": lambda unit: (0, 0) if unit % 3 == 0 else (2, 3 + unit % 2),
    "similarity": lambda unit: unit / 4,
    "comparison": lambda unit: unit % 3,
    "retrieval": lambda unit: 0,
}


class Tokenizer:
    pad_id = 0


def units(kind: str, count: int, choices: int) -> list[Row]:
    rows, rng = [], np.random.default_rng(0)
    for number in range(count):
        size = int(rng.integers(5, 30))
        ids = [number + 1, *rng.integers(20, SMALL.vocab_size, size - 1).tolist()]
        places = (1, 3) if kind == "tagging" else ()
        rows.append(Row(number, ids, size // 2, LABELS[kind](number // choices), places=places))
    return rows


def same_losses(model, terms, apart, together) -> list[np.ndarray]:
    """Checks that losses and gradients are the same; the logits of both batches."""
    rng = np.random.default_rng(1)
    params = jax.tree.map(
        lambda x: rng.normal(size=x.shape, scale=0.3).astype(np.float32),
        jax.eval_shape(lambda: model.init(jax.random.key(0), apart)["params"]),
    )

    def loss(params, batch):
        outputs = model.apply({"params": params}, batch)
        return total(terms(outputs, batch)), outputs["logits"]

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (padded_loss, padded), padded_gradients = step(params, apart)
    (packed_loss, packed), packed_gradients = step(params, together)
    assert float(packed_loss) == pytest.approx(float(padded_loss), rel=1e-5)
    norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(padded_gradients)))
    difference = jax.tree.map(lambda a, b: np.linalg.norm(a - b), padded_gradients, packed_gradients)
    # Cosines of vectors that are almost alike have gradients that are almost 0, and the rounding of larger numbers.
    assert max(jax.tree.leaves(difference)) <= 1e-5 * max(norm, 0.1)
    return [padded, packed]


@pytest.mark.parametrize("features", ["", "weighted_sum"])
@pytest.mark.parametrize("kind", sorted(set(LABELS) - set(APART)))
def test_packed_and_padded_are_the_same(kind, features):
    choices = 2 if kind == "choice" else 1
    rows = units(kind, 12, choices)
    batches = Batches(kind, rows, Tokenizer(), 12 // choices, choices, 3)
    outputs = {"regression": 1, "choice": 1, "span": 2}.get(kind, 3)
    model = FinetuningModel(SMALL, kind, outputs, features=features)
    apart, together = (form(np.arange(12 // choices)) for form in (batches.apart, batches.together))
    assert together["input_ids"].shape[0] < 6
    padded, packed = same_losses(model, objectives.terms(kind), apart, together)
    for number, row in enumerate(rows):
        line, at = np.argwhere((together["input_ids"] == row.input_ids[0]) & (together["position_ids"] == 0))[0]
        if kind in POOLED:
            (slot,) = np.flatnonzero(together["cls_positions"][line] == at)[:1]
            np.testing.assert_allclose(packed[line, slot], padded[number], atol=1e-4)
        else:
            size = len(row.input_ids)
            np.testing.assert_allclose(packed[line, at : at + size], padded[number, :size], atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "pooling"), [("similarity", "mean"), ("comparison", "max"), ("retrieval", "cls"), ("retrieval", "mean")]
)
def test_texts_that_are_read_apart_are_packed_as_well(kind, pooling):
    texts = 3 if kind == "retrieval" else 2
    batches = Batches(kind, units(kind, 4 * texts, texts), Tokenizer(), 5, texts, 3)
    assert batches.packed
    apart, together = (form(np.arange(4)) for form in (batches.apart, batches.together))
    assert together["input_ids"].shape[0] < 4 * texts
    model = SentenceModel(SMALL, kind, 3 if kind == "comparison" else 1, texts, pooling)
    same_losses(model, sentence.terms(kind, texts, 1.0, 0.0, 1.0), apart, together)
