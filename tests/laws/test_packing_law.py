"""Law 3 for packed rows: without dropout, packed and padded rows have the same losses and gradients."""

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


def unpack(batch: dict[str, np.ndarray], pairs: str) -> dict[str, np.ndarray]:
    """Returns a padded batch with one row per sequence of a packed batch."""
    mask = batch["attention_mask"]
    row, number, _ = np.nonzero(mask[:, None, :] == np.arange(1, mask.max() + 1)[:, None])
    row, number = np.unique(np.stack([row, number]), axis=1)
    slots = batch["masked_lm_positions"].shape[1]
    shapes = {"input_ids": LENGTH, "token_type_ids": LENGTH, "attention_mask": LENGTH}
    shapes |= dict.fromkeys(("masked_lm_positions", "masked_lm_ids", "masked_lm_weights"), slots)
    result = {name: np.zeros((len(row), width), batch[name].dtype) for name, width in shapes.items()}
    for target, (source, sequence) in enumerate(zip(row, number, strict=True)):
        positions = np.flatnonzero(mask[source] == sequence + 1)
        for name in ("input_ids", "token_type_ids"):
            result[name][target, : len(positions)] = batch[name][source, positions]
        result["attention_mask"][target, : len(positions)] = 1
        slots_used = np.isin(batch["masked_lm_positions"][source], positions) & (batch["masked_lm_weights"][source] > 0)
        for name in ("masked_lm_positions", "masked_lm_ids", "masked_lm_weights"):
            result[name][target, : slots_used.sum()] = batch[name][source, slots_used]
        result["masked_lm_positions"][target, : slots_used.sum()] -= positions[0]
    if pairs:
        result[f"{pairs}_labels"] = batch[f"{pairs}_labels"][row, number]
    return result


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    documents = synthetic.text(np.random.default_rng(0), 100, 10)
    return Corpus.open(synthetic.write(tmp_path_factory.mktemp("corpus"), {"train": [documents]}))


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_and_padded_rows_have_the_same_losses_and_gradients(family, corpus):
    pairs = TASKS.get(family, "")
    config = dataclasses.replace(FAMILIES[family], vocab_size=synthetic.VOCAB_SIZE, max_position_embeddings=LENGTH)
    sequencing = Sequencing(pairs, short_seq_prob=0.8, packing=5)
    vocabulary = synthetic.vocabulary()
    stream = Stream(corpus, vocabulary, RowFormat(LENGTH, MaskingConfig(), sequencing), 0, "phase 0")
    packed = stream.batch(np.arange(6))
    padded = unpack(packed, pairs)
    assert len(padded["input_ids"]) > 8 and padded["masked_lm_weights"].sum() == packed["masked_lm_weights"].sum()
    model = PretrainingModel(config, pairs)
    params = jax.jit(lambda: model.init(jax.random.key(0), padded)["params"])()

    @jax.jit
    def run(params, batch):
        def loss_and_terms(params):
            loss_terms = terms(model.apply({"params": params}, batch), batch)
            return total(loss_terms), loss_terms

        return jax.value_and_grad(loss_and_terms, has_aux=True)(params)

    (loss, packed_terms), gradients = run(params, packed)
    (expected_loss, padded_terms), padded_gradients = run(params, padded)
    assert packed_terms.keys() == padded_terms.keys() == weights(packed).keys()
    for name, term in packed_terms.items():
        assert float(term.weight) == float(padded_terms[name].weight) == float(weights(packed)[name])
        assert float(term.sum) == pytest.approx(float(padded_terms[name].sum), rel=1e-5)
    assert float(loss) == pytest.approx(float(expected_loss), rel=1e-5)
    norm = np.sqrt(sum(np.sum(np.square(leaf, dtype=np.float64)) for leaf in jax.tree.leaves(padded_gradients)))
    for name, gradient in named_leaves(gradients).items():
        expected = named_leaves(padded_gradients)[name]
        assert np.linalg.norm(gradient - expected) <= 1e-5 * np.linalg.norm(expected) + 1e-7 * norm, name
