"""The encoder with a head for a downstream task."""

import jax
import jax.numpy as jnp
import pytest

from bertjax.model.finetuning import FinetuningModel
from tests.support.batches import SMALL


@pytest.mark.parametrize("pooled", [True, False])
def test_heads_are_initialized_as_in_transformers(pooled):
    """Heads use an untruncated normal; the truncated one of pre-training is an eighth narrower and scores lower."""
    batch = {name: jnp.zeros((1, 4), jnp.int32) for name in ("input_ids", "token_type_ids", "attention_mask")}
    model = FinetuningModel(SMALL, 2000, pooled)
    head = jax.jit(lambda: model.init(jax.random.key(0), batch)["params"])()["task_head"]
    assert jnp.std(head["kernel"]) == pytest.approx(SMALL.initializer_range, rel=0.02)
    assert jnp.abs(head["kernel"]).max() > 3 * SMALL.initializer_range
    assert not head["bias"].any()
