"""The described arrays of a batch are those that the pipeline builds and that a train step is compiled for."""

import dataclasses

import jax
import numpy as np
import pytest

from bertjax.config.layout import MeshConfig
from bertjax.config.pretraining import Config, Phase
from bertjax.corpus.format import Corpus
from bertjax.data.pipeline import BatchSource
from bertjax.parallel import sharding
from bertjax.parallel.mesh import make_mesh
from bertjax.pretraining import build
from tests.support import synthetic


@pytest.mark.parametrize("packing", [0, 4])
@pytest.mark.parametrize("pairs", ["", "next_sentence", "sentence_order"])
def test_batches_have_the_described_arrays(prose, pairs, packing):
    config = Config(phases=(Phase(2, 96, 8),), next_sentence=False, packing=packing)
    config = dataclasses.replace(config, **({pairs: True} if pairs else {}))
    batch = BatchSource(Corpus.open(prose), synthetic.vocabulary(), config).batch(0, 0)
    expected = build.abstract_batch(config, config.phases[0])
    assert {name: (array.shape, array.dtype) for name, array in batch.items()} == {
        name: (array.shape, array.dtype) for name, array in expected.items()
    }
    if packing:
        assert np.all(batch["input_ids"][batch["attention_mask"] == 0] == synthetic.vocabulary().pad_id)


def test_sequence_parallelism_splits_exactly_the_arrays_with_one_element_per_token():
    config = Config(phases=(Phase(2, 96, 8),), packing=4)
    batch = build.abstract_batch(config, config.phases[0])
    mesh = make_mesh(MeshConfig(sequence=2), jax.devices()[:1] * 2)
    split = {name for name, placed in sharding.batch_shardings(batch, mesh).items() if "sequence" in placed.spec}
    assert split == {name for name, array in batch.items() if array.shape[1:] == (96,)}
    assert split == {"input_ids", "token_type_ids", "attention_mask", "position_ids"}
