"""Fused attention kernels agree with the plain path and are chosen only where they are supported."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from bertjax.errors import UserError
from bertjax.model import fused_attention
from bertjax.model.attention import plain_attention
from bertjax.model.computation import Computation
from bertjax.model.finetuning import FinetuningModel
from bertjax.model.fused_attention import AttentionMask
from bertjax.model.pretraining import PretrainingModel
from bertjax.model.sentence import SentenceModel
from bertjax.objectives.pretraining import terms
from bertjax.objectives.terms import total
from bertjax.planning.step import matmul_flops
from bertjax.planning.topology import describe
from tests.support.batches import SMALL, random_batch
from tests.support.platforms import kernels, libraries_of, lower

BATCH, LENGTH, HEADS, HEAD_SIZE = 3, 128, 2, 16


def inputs(dtype: jnp.dtype) -> list[jax.Array]:
    """Queries, keys, values and the gradient of the contexts."""
    shape = (4, BATCH, LENGTH, HEADS, HEAD_SIZE)
    return list(np.random.default_rng(0).normal(size=shape).astype(dtype))


# Padded: rows of several lengths, one all padding. Packed: rows of three sequences and padding.
PADDED = (np.arange(LENGTH) < np.array([[LENGTH], [100], [0]])).astype(np.int32)
PACKED = np.searchsorted([50, 70, 120], np.arange(LENGTH), side="right")[None].repeat(BATCH, 0)
PACKED = np.where(PACKED < 3, PACKED + 1, 0).astype(np.int32)


def contexts_and_gradients(attend, dtype, sequences, window_mask=None):
    """Contexts (checked to be finite, 0 at padding) and gradients of queries, keys and values."""
    *operands, gradient = inputs(dtype)
    real = (sequences[0] > 0)[..., None, None]
    mask = dataclasses.replace(AttentionMask(*sequences), window_mask=window_mask)

    def weighted(*operands):
        contexts = attend(*operands, mask)
        return jnp.sum(jnp.where(real, contexts * gradient, 0).astype(jnp.float32)), contexts

    (_, contexts), gradients = jax.jit(jax.value_and_grad(weighted, argnums=(0, 1, 2), has_aux=True))(*operands)
    assert jnp.isfinite(contexts).all()
    return [np.asarray(array, np.float32) for array in (np.where(real, contexts, 0), *gradients)]


def splash(*operands):
    return fused_attention.splash_attention(*operands, interpret=True)


def splash_with_window(*operands):
    return fused_attention.splash_attention(*operands, window=20, interpret=True)


def cudnn_masks(*operands):
    """cuDNN needs a GPU, but its masks can be tested on any device."""
    return fused_attention.cudnn_attention(*operands, implementation="xla")


@pytest.mark.parametrize(
    ("kernel", "dtype", "sequences", "tolerance"),
    [
        (splash, jnp.float32, (PADDED,), 1e-6),
        (splash, jnp.float32, (PACKED, PACKED), 1e-6),
        (splash, jnp.bfloat16, (PACKED, PACKED), 1e-2),
        (cudnn_masks, jnp.float32, (PADDED,), 1e-6),
        (cudnn_masks, jnp.float32, (PACKED, PACKED), 1e-6),
    ],
)
def test_kernels_agree_with_the_plain_path(kernel, dtype, sequences, tolerance):
    expected = contexts_and_gradients(plain_attention, jnp.float32, sequences)
    for plain, fused in zip(expected, contexts_and_gradients(kernel, dtype, sequences), strict=True):
        assert np.isfinite(fused).all()
        assert np.linalg.norm(fused - plain) <= tolerance * np.linalg.norm(plain)


@pytest.mark.parametrize("sequences", [PADDED, PACKED], ids=["padded", "packed"])
def test_splash_has_the_window_of_the_plain_path(sequences):
    positions = np.arange(LENGTH)
    window_mask = np.abs(positions[:, None] - positions)[None] <= 20
    expected = contexts_and_gradients(plain_attention, jnp.float32, (sequences, sequences), window_mask)
    results = contexts_and_gradients(splash_with_window, jnp.float32, (sequences, sequences))
    for fused, plain in zip(results, expected, strict=True):
        assert np.linalg.norm(fused - plain) <= 1e-6 * np.linalg.norm(plain)


def test_packed_sequences_cannot_attend_to_one_another():
    """On the plain path, each sequence has the same contexts in a packed row and alone."""
    query, key, value, _ = inputs(jnp.float32)
    packed = plain_attention(query, key, value, AttentionMask(PACKED, PACKED))
    alone = [array[:, 50:70] for array in (query, key, value)]
    alone = plain_attention(*alone, AttentionMask(np.ones((BATCH, 20), np.int32)))
    np.testing.assert_allclose(packed[:, 50:70], alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("masks", "window"), [(1, 0), (2, 0), (2, 64)], ids=["padded", "packed", "window"])
def test_splash_compiles_for_tpus(masks, window):
    """The TPU's own compiler accepts heads of 64, forward and backward, one kernel each."""
    pytest.importorskip("libtpu")
    chip = SingleDeviceSharding(describe("v5e:1x1").devices[0])
    shape = jax.ShapeDtypeStruct((2, 512, 4, 64), jnp.bfloat16, sharding=chip)
    rows = jax.ShapeDtypeStruct((2, 512), jnp.int32, sharding=chip)

    def total(query, key, value, *sequences):
        mask = AttentionMask(*sequences)
        return jnp.sum(fused_attention.splash_attention(query, key, value, mask, window=window).astype(jnp.float32))

    gradients = jax.jit(jax.grad(total, argnums=(0, 1, 2)))
    program = gradients.lower(shape, shape, shape, *[rows] * masks).compile()
    assert program.as_text().count('custom_call_target="tpu_custom_call"') == 2


def test_splash_recomputes_only_scores():
    """The backward pass recomputes the scores and no other product, also with remat="bert"."""
    config = dataclasses.replace(SMALL, max_position_embeddings=128)
    batch = random_batch(config, 2, 128, 5)
    params = jax.eval_shape(lambda: PretrainingModel(config).init(jax.random.key(0), batch)["params"])

    def products(attention_impl, remat):
        model = PretrainingModel(config, computation=Computation(attention_impl=attention_impl, remat=remat))
        step = jax.grad(lambda params: total(terms(model.apply({"params": params}, batch), batch)))
        return matmul_flops(jax.jit(step).trace(params).jaxpr.jaxpr)

    scores = 2 * 2 * 128 * 128 * config.hidden_size
    full_layers = config.num_hidden_layers - 1  # the last one computes some positions, on the plain path
    extra = products("splash", "none") - products("xla", "none")
    assert full_layers * scores <= extra < 1.1 * full_layers * scores
    assert products("splash", "bert") - products("splash", "none") < scores


TPU = fused_attention.AttentionRequest("tpu", jnp.bfloat16, length=512, head_size=64, dropout=False, split=False)
GPU = dataclasses.replace(TPU, platform="cuda", length=128)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (TPU, "splash"),
        (dataclasses.replace(TPU, window=64), "splash"),
        (dataclasses.replace(TPU, length=128), "xla"),
        (dataclasses.replace(TPU, length=520), "xla"),
        (dataclasses.replace(TPU, dtype=jnp.float32), "xla"),
        (dataclasses.replace(TPU, dropout=True), "xla"),
        (dataclasses.replace(TPU, split=True), "xla"),
        (dataclasses.replace(TPU, platform="cpu"), "xla"),
        (GPU, "cudnn"),
        (dataclasses.replace(GPU, window=64), "xla"),
        (dataclasses.replace(GPU, dropout=True), "xla"),
        (dataclasses.replace(GPU, dtype=jnp.float32), "xla"),
        (dataclasses.replace(GPU, head_size=20), "xla"),
        (dataclasses.replace(GPU, length=127), "xla"),
        (dataclasses.replace(GPU, platform="gpu"), "xla"),
    ],
)
def test_auto_chooses_a_kernel_where_it_is_supported(request_, expected):
    assert fused_attention.choose_impl("auto", request_) == expected


@pytest.mark.parametrize(
    ("kernel", "request_", "reason"),
    [
        ("splash", dataclasses.replace(TPU, dropout=True), "attention_probs_dropout_prob"),
        ("cudnn", dataclasses.replace(GPU, dropout=True), "attention_probs_dropout_prob"),
        ("splash", dataclasses.replace(TPU, split=True), "mesh.sequence"),
        ("splash", dataclasses.replace(TPU, length=200), "multiples of 128"),
        ("splash", dataclasses.replace(TPU, dtype=jnp.float32), "bfloat16"),
        ("splash", GPU, "needs a TPU"),
        ("cudnn", TPU, "NVIDIA"),
        ("cudnn", dataclasses.replace(GPU, window=64), "model.local_attention"),
        ("cudnn", dataclasses.replace(GPU, head_size=20), "multiple of 8"),
        ("cudnn", dataclasses.replace(GPU, length=127), "even lengths"),
    ],
)
def test_an_unsupported_kernel_is_refused(kernel, request_, reason):
    with pytest.raises(
        UserError, match=rf"config\.layout\.attention_impl: '{kernel}' .*{reason}.*; set it to 'auto' or 'xla'"
    ):
        fused_attention.choose_impl(kernel, request_)
    assert fused_attention.choose_impl("xla", request_) == "xla"


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("head_size", [4, 8, 20, 64, 80, 128, 136])
@pytest.mark.parametrize("length", [64, 127, 130, 384])
@pytest.mark.parametrize(("platform", "impl"), [("cuda", "cudnn"), ("tpu", "splash")])
def test_jax_accepts_every_shape_for_which_a_kernel_is_chosen(platform, impl, length, head_size, packed):
    """JAX has its own requirements on shapes, forward and backward."""
    request = fused_attention.AttentionRequest(platform, jnp.bfloat16, length, head_size, dropout=False, split=False)
    try:
        fused_attention.choose_impl(impl, request)
    except UserError:
        return
    heads = jax.ShapeDtypeStruct((2, length, 4, head_size), jnp.bfloat16)
    rows = jax.ShapeDtypeStruct((2, length), jnp.int32)

    def total(query, key, value, *sequences):
        context = fused_attention.kernel(impl, platform)(query, key, value, AttentionMask(*sequences))
        return jnp.sum(context.astype(jnp.float32))

    gradients = jax.jit(jax.grad(total, argnums=(0, 1, 2)))
    with libraries_of(platform):
        lowered = lower(platform, gradients, heads, heads, heads, *[rows] * (1 + packed))
    assert kernels(lowered) == {impl, f"{impl} backward"}


@pytest.mark.parametrize(
    "model",
    [PretrainingModel(SMALL), FinetuningModel(SMALL, 2, pooled=True), SentenceModel(SMALL)],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.parametrize("platform", ["cpu", "tpu", "cuda", "gpu"])
def test_parameters_are_the_same_on_every_platform(model, platform):
    """Initialization vmaps a layer over its repeats, which cuDNN's attention does not support."""
    batch = random_batch(SMALL, 2, 16, 3)
    model, plain = (
        model.clone(computation=Computation(jnp.bfloat16, attention_impl=impl, platform=platform))
        for impl in ("auto", "xla")
    )
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), batch)["params"])
    expected = jax.eval_shape(lambda: plain.init(jax.random.key(0), batch)["params"])
    assert jax.tree.map(lambda x: x.shape, shapes) == jax.tree.map(lambda x: x.shape, expected)
