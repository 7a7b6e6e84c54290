"""Weights for comparisons with `transformers` under which every term of the architecture moves the scores.

At init scale attention is flat, biases are zero and norms do nothing, so that a missing term hides in the tolerance.
Here attention is sharp, biases, norms and tables are random, and the embeddings are so small that `layer_norm_eps`
counts.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from bertjax.arrays.trees import path_name

_TOLERANCE = 1e-4  # in f32, of the largest score, or of 1 where that is larger
_HIGHEST_ENTROPY = 0.7  # of attention, its mean as a share of that of uniform attention
# Large queries and keys make attention sharp. What it adds to a token is small, or the tokens of upper layers would be
# alike, and attention flat again.
_GAINS = {"query": 2.5, "key": 2.5, "value": 0.5, "q_lin": 2.5, "k_lin": 2.5, "v_lin": 0.5}


def random_params(model: nn.Module) -> dict[str, Any]:
    """Parameters of a model of ours, of which no two numbers are alike."""
    rng, vocab, one = np.random.default_rng(0), model.config.vocab_size, np.ones((1, 1), np.int32)
    batch = dict.fromkeys(("input_ids", "token_type_ids", "attention_mask", "masked_lm_positions"), one)
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
    """Gives a model of `transformers` such weights."""
    import torch

    rng = np.random.default_rng(0)
    for name, parameter in model.named_parameters():
        owner, _, kind = name.rpartition(".")
        module = model.get_submodule(owner)
        role = kind
        if kind == "weight":
            tables = isinstance(module, torch.nn.Embedding)
            role = "embedding" if tables else "kernel" if isinstance(module, torch.nn.Linear) else "scale"
        values = _draw(rng, role, tuple(parameter.shape)[::-1]).T
        last = owner.rpartition(".")[2]
        if last == "Wqkv":
            for part, like in zip(np.split(values, 3), ("query", "key", "value"), strict=True):
                part *= _GAINS[like]
        elif role == "kernel":
            values *= _GAINS.get(last, 1)
        with torch.no_grad():
            parameter.copy_(torch.tensor(values))


def _draw(rng: np.random.Generator, role: str, shape: tuple[int, ...]) -> np.ndarray:
    """One parameter; kernels are [in, out]."""
    noise = rng.normal(size=shape).astype(np.float32)
    if role == "kernel":
        return noise / np.float32(np.sqrt(shape[-2]))
    return {"embedding": 0.05 * noise, "scale": 1 + 0.3 * noise, "bias": 0.2 * noise}[role]


def assert_attention_is_sharp(model: Any, batch: Mapping[str, np.ndarray]) -> None:
    """Checks in a model of `transformers` that the weights have not drifted back to flat attention.

    Uniform attention has the entropy log(keys that a token sees); of tokens that see one alone there is nothing to say.
    """
    import torch

    model.set_attn_implementation("eager")  # others do not return it
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


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference of two arrays of scores, in tolerances: they are equal where it is at most 1."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    return float(np.max(np.abs(ours - theirs)) / (_TOLERANCE * max(1, np.max(np.abs(theirs)))))
