"""The shapes that annotations declare are checked in tests."""

import jax
import jax.numpy as jnp
import jaxtyping
import pytest

from bertjax.model.attention import plain_attention
from bertjax.model.computation import Computation
from bertjax.model.fused_attention import AttentionMask
from bertjax.model.pretraining import MaskedLMHead
from bertjax.objectives.terms import cross_entropy
from tests.support.batches import SMALL


def test_a_function_refuses_a_wrong_shape():
    query, key = jnp.ones((2, 5, 3, 8)), jnp.ones((2, 6, 3, 8))
    mask = AttentionMask(jnp.ones((2, 6), jnp.int32))
    assert plain_attention(query, key, key, mask).shape == query.shape
    with pytest.raises(jaxtyping.TypeCheckError, match=r"plain_attention\.\n.*parameter 'value'"):
        plain_attention(query, key, key[:, :5], mask)
    with pytest.raises(jaxtyping.TypeCheckError, match=r"cross_entropy\.\n.*parameter 'labels'"):
        cross_entropy(jnp.ones((4, 7)), jnp.ones((4, 1), jnp.int32))


def test_a_module_refuses_a_wrong_shape():
    head, words = MaskedLMHead(SMALL, jnp.float32), jnp.ones((128, SMALL.hidden_size))
    with pytest.raises(jaxtyping.TypeCheckError, match=r"MaskedLMHead\.__call__\.\n.*parameter 'x'"):
        jax.eval_shape(head.init, jax.random.key(0), jnp.ones((2, SMALL.hidden_size)), words)


def test_a_dataclass_refuses_a_wrong_type():
    with pytest.raises(jaxtyping.TypeCheckError, match="unroll"):
        Computation(unroll="all")
