"""Packed rows give the same scores and losses as padded rows."""

import dataclasses

import jax
import numpy as np
import pytest

from bertjax.config.finetuning import SentenceConfig
from bertjax.finetuning.dataset import Batches, BatchLayout
from bertjax.objectives.terms import total
from bertjax.tasks.encoding import EncodedExample
from bertjax.tasks.kinds.catalog import KINDS, kind_named
from tests.support.batches import SMALL

LABELS = {  # by the number of the unit
    "classification": lambda unit: unit % 3,
    "multi_label": lambda unit: (unit % 2, 1, unit % 3 == 0),
    "regression": lambda unit: unit / 12,
    "choice": lambda unit: unit % 2,
    "tagging": lambda unit: (unit % 2, 2),
    "span": lambda unit: (0, 0) if unit % 3 == 0 else (2, 3 + unit % 2),
    "similarity": lambda unit: unit / 4,
    "pair_classification": lambda unit: unit % 3,
    "retrieval": lambda unit: 0,
}


CLASSES = ("a", "b", "c")


def random_rows(kind: str, count: int, choices: int) -> list[EncodedExample]:
    rows, rng = [], np.random.default_rng(0)
    for number in range(count):
        size = int(rng.integers(5, 30))
        ids = [number + 1, *rng.integers(20, SMALL.vocab_size, size - 1).tolist()]
        positions = (1, 3) if kind == "tagging" else ()
        rows.append(EncodedExample(number, ids, size // 2, LABELS[kind](number // choices), token_positions=positions))
    return rows


def check_losses(model, terms, padded_batch, packed_batch) -> list[np.ndarray]:
    """Checks that losses and gradients agree; returns the logits of both batches."""
    rng = np.random.default_rng(1)
    params = jax.tree.map(
        lambda x: rng.normal(size=x.shape, scale=0.3).astype(np.float32),
        jax.eval_shape(lambda: model.init(jax.random.key(0), padded_batch)["params"]),
    )

    def loss(params, batch):
        outputs = model.apply({"params": params}, batch)
        return total(terms(outputs, batch)), outputs["logits"]

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (padded_loss, padded), padded_gradients = step(params, padded_batch)
    (packed_loss, packed), packed_gradients = step(params, packed_batch)
    assert float(packed_loss) == pytest.approx(float(padded_loss), rel=1e-5)
    norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(padded_gradients)))
    difference = jax.tree.map(lambda a, b: np.linalg.norm(a - b), padded_gradients, packed_gradients)
    # Cosines of nearly equal vectors have gradients near 0, with the rounding errors of larger numbers.
    assert max(jax.tree.leaves(difference)) <= 1e-5 * max(norm, 0.1)
    return [padded, packed]


@pytest.mark.parametrize("features", ["", "weighted_sum"])
@pytest.mark.parametrize("kind", sorted(name for name, kind in KINDS.items() if not kind.bi_encoder))
def test_packed_and_padded_rows_agree(kind, features):
    choices = 2 if kind == "choice" else 1
    rows, kind = random_rows(kind, 12, choices), kind_named(kind)
    batches = Batches(kind, rows, BatchLayout(12 // choices, 0, 3, choices))
    model = kind.model(SMALL, CLASSES).clone(features=features)
    padded_batch, packed_batch = (
        make_batch(np.arange(12 // choices)) for make_batch in (batches.padded_batch, batches.packed_batch)
    )
    assert packed_batch["input_ids"].shape[0] < 6
    padded, packed = check_losses(model, kind.terms, padded_batch, packed_batch)
    for number, row in enumerate(rows):
        packed_row, begin = np.argwhere(
            (packed_batch["input_ids"] == row.input_ids[0]) & (packed_batch["position_ids"] == 0)
        )[0]
        if kind.pooled:
            (slot,) = np.flatnonzero(packed_batch["cls_positions"][packed_row] == begin)[:1]
            np.testing.assert_allclose(packed[packed_row, slot], padded[number], atol=1e-4)
        else:
            size = len(row.input_ids)
            np.testing.assert_allclose(packed[packed_row, begin : begin + size], padded[number, :size], atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "pooling"),
    [("similarity", "mean"), ("pair_classification", "max"), ("retrieval", "cls"), ("retrieval", "mean")],
)
def test_texts_of_bi_encoders_are_packed(kind, pooling):
    texts = 3 if kind == "retrieval" else 2
    rows = random_rows(kind, 4 * texts, texts)
    sentence = SentenceConfig(pooling=pooling, scale=1.0, lowest=0.0, highest=1.0)
    kind = dataclasses.replace(kind_named(kind), sentence=sentence, texts=texts)
    batches = Batches(kind, rows, BatchLayout(5, 0, 3, texts))
    assert batches.packed
    padded_batch, packed_batch = (
        make_batch(np.arange(4)) for make_batch in (batches.padded_batch, batches.packed_batch)
    )
    assert packed_batch["input_ids"].shape[0] < 4 * texts
    check_losses(kind.model(SMALL, CLASSES), kind.terms, padded_batch, packed_batch)
