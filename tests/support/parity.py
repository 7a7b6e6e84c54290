"""Random weights for comparisons with `transformers`, with which every term of the architecture affects the scores.

At initialization attention is nearly uniform, biases are zero and norms are trivial; a missing term could stay within
the tolerance. With these weights attention is sharp, biases, norms and embeddings are random, and the embeddings are
small enough for `layer_norm_eps` to matter.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from bertjax.arrays.trees import path_name

_TOLERANCE = 1e-4  # in f32, relative to the largest score, or absolute if that is below 1
_HIGHEST_ENTROPY = 0.7  # mean entropy of attention, relative to uniform attention
# Large queries and keys make attention sharp. Its output is small; otherwise the tokens of upper layers would become
# similar, and attention uniform again.
_GAINS = {"query": 2.5, "key": 2.5, "value": 0.5, "q_lin": 2.5, "k_lin": 2.5, "v_lin": 0.5}


def random_params(model: nn.Module) -> dict[str, Any]:
    """Returns random parameters of a bertjax model, without equal numbers."""
    rng, vocab, ones = np.random.default_rng(0), model.config.vocab_size, np.ones((1, 1), np.int32)
    batch = dict.fromkeys(("input_ids", "token_type_ids", "attention_mask", "masked_lm_positions"), ones)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), batch)["params"])

    def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        *_, module, role = path_name(path).split("/")
        return _draw(rng, role, leaf.shape) * np.float32(_GAINS.get(module, 1) if role == "kernel" else 1)

    params = jax.tree_util.tree_map_with_path(draw, shapes)
    params["embeddings"]["word_embeddings"]["embedding"][vocab:] = 0
    if "masked_lm_head" in params:
        params["masked_lm_head"]["bias"][vocab:] = 0
    return params


def randomize(model: Any) -> None:
    """Sets such weights in a model of `transformers`."""
    import torch

    rng = np.random.default_rng(0)
    for name, parameter in model.named_parameters():
        owner, _, kind = name.rpartition(".")
        module = model.get_submodule(owner)
        role = kind
        if kind == "weight":
            is_embedding = isinstance(module, torch.nn.Embedding)
            role = "embedding" if is_embedding else "kernel" if isinstance(module, torch.nn.Linear) else "scale"
        values = _draw(rng, role, tuple(parameter.shape)[::-1]).T
        last = owner.rpartition(".")[2]
        if last == "Wqkv":
            for part, gain in zip(np.split(values, 3), ("query", "key", "value"), strict=True):
                part *= _GAINS[gain]
        elif role == "kernel":
            values *= _GAINS.get(last, 1)
        with torch.no_grad():
            parameter.copy_(torch.tensor(values))


def _draw(rng: np.random.Generator, role: str, shape: tuple[int, ...]) -> np.ndarray:
    """A random parameter; kernels are [in, out]."""
    noise = rng.normal(size=shape).astype(np.float32)
    if role == "kernel":
        return noise / np.float32(np.sqrt(shape[-2]))
    return {"embedding": 0.05 * noise, "scale": 1 + 0.3 * noise, "bias": 0.2 * noise}[role]


def assert_attention_is_sharp(model: Any, batch: Mapping[str, np.ndarray]) -> None:
    """Checks that the attention of a model of `transformers` is far from uniform.

    Uniform attention has the entropy log(number of visible keys); tokens with a single visible key are skipped.
    """
    import torch

    model.set_attn_implementation("eager")  # other implementations do not return probabilities
    names = ["input_ids", "attention_mask"]
    inputs = {name: torch.tensor(batch[name], dtype=torch.long) for name in names}
    with torch.no_grad():
        layers = model.base_model(**inputs, output_attentions=True).attentions
    assert len(layers) == model.config.num_hidden_layers
    shares = []
    for layer in layers:
        probabilities = layer.double().numpy().transpose(0, 2, 1, 3)[batch["attention_mask"] == 1]
        visible = np.sum(probabilities > 0, axis=-1)
        logs = np.log(np.where(probabilities > 0, probabilities, 1))
        entropy = -np.sum(probabilities * logs, axis=-1)[visible > 1]
        shares.append(np.mean(entropy / np.log(visible[visible > 1])))
    assert np.mean(shares) <= _HIGHEST_ENTROPY, shares


def difference(actual: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference of two arrays of scores, in tolerances; at most 1 counts as equal."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    return float(np.max(np.abs(actual - expected)) / (_TOLERANCE * max(1, np.max(np.abs(expected)))))
