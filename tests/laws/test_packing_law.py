"""Law 3 for rows of several sequences: packed or padded, the losses and gradients are the same (dropout off)."""

import dataclasses

import jax
import numpy as np
import pytest

from bertjax.arrays.trees import named_leaves
from bertjax.config.data import MaskingConfig, Sequencing
from bertjax.corpus.format import Corpus
from bertjax.data.stream import RowFormat, Stream
from bertjax.model.pretraining import PretrainingModel
from bertjax.objectives.pretraining import terms, weights
from bertjax.objectives.terms import total
from tests.support import synthetic
from tests.support.batches import FAMILIES

LENGTH = 96
TASKS = {"bert": "next_sentence", "albert": "sentence_order"}


def torn_apart(batch: dict[str, np.ndarray], pairs: str) -> dict[str, np.ndarray]:
    """A row for each sequence of a packed batch."""
    mask = batch["attention_mask"]
    row, number, _ = np.nonzero(mask[:, None, :] == np.arange(1, mask.max() + 1)[:, None])
    row, number = np.unique(np.stack([row, number]), axis=1)
    slots = batch["masked_lm_positions"].shape[1]
    shapes = {"input_ids": LENGTH, "token_type_ids": LENGTH, "attention_mask": LENGTH}
    shapes |= dict.fromkeys(("masked_lm_positions", "masked_lm_ids", "masked_lm_weights"), slots)
    result = {name: np.zeros((len(row), width), batch[name].dtype) for name, width in shapes.items()}
    for place, (line, which) in enumerate(zip(row, number, strict=True)):
        here = np.flatnonzero(mask[line] == which + 1)
        for name in ("input_ids", "token_type_ids"):
            result[name][place, : len(here)] = batch[name][line, here]
        result["attention_mask"][place, : len(here)] = 1
        own = np.isin(batch["masked_lm_positions"][line], here) & (batch["masked_lm_weights"][line] > 0)
        for name in ("masked_lm_positions", "masked_lm_ids", "masked_lm_weights"):
            result[name][place, : own.sum()] = batch[name][line, own]
        result["masked_lm_positions"][place, : own.sum()] -= here[0]
    if pairs:
        result[f"{pairs}_labels"] = batch[f"{pairs}_labels"][row, number]
    return result


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    documents = synthetic.text(np.random.default_rng(0), 100, 10)
    return Corpus.open(synthetic.write(tmp_path_factory.mktemp("corpus"), {"train": [documents]}))


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_and_padded_rows_give_the_same_losses_and_gradients(family, corpus):
    pairs = TASKS.get(family, "")
    config = dataclasses.replace(FAMILIES[family], vocab_size=synthetic.VOCAB_SIZE, max_position_embeddings=LENGTH)
    sequencing = Sequencing(pairs, short_seq_prob=0.8, packing=5)
    vocabulary = synthetic.vocabulary()
    made = Stream(corpus, vocabulary, RowFormat(LENGTH, MaskingConfig(), sequencing), 0, "phase 0")
    packed = made.batch(np.arange(6))
    padded = torn_apart(packed, pairs)
    assert len(padded["input_ids"]) > 8 and padded["masked_lm_weights"].sum() == packed["masked_lm_weights"].sum()
    model = PretrainingModel(config, pairs)
    params = jax.jit(lambda: model.init(jax.random.key(0), padded)["params"])()

    @jax.jit
    def run(params, batch):
        def loss_of(params):
            found = terms(model.apply({"params": params}, batch), batch)
            return total(found), found

        return jax.value_and_grad(loss_of, has_aux=True)(params)

    (loss, ours), gradients = run(params, packed)
    (expected, theirs), others = run(params, padded)
    assert ours.keys() == theirs.keys() == weights(packed).keys()
    for name, term in ours.items():
        assert float(term.weight) == float(theirs[name].weight) == float(weights(packed)[name])
        assert float(term.sum) == pytest.approx(float(theirs[name].sum), rel=1e-5)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    whole = np.sqrt(sum(np.sum(np.square(leaf, dtype=np.float64)) for leaf in jax.tree.leaves(others)))
    for name, gradient in named_leaves(gradients).items():
        other = named_leaves(others)[name]
        assert np.linalg.norm(gradient - other) <= 1e-5 * np.linalg.norm(other) + 1e-7 * whole, name
