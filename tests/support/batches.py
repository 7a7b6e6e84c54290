"""Random batches like those of the input pipeline, and a small model of each family."""

import dataclasses

import numpy as np

from bertjax.config.model import ModelConfig

# No size is a multiple of another, which exposes confused axes.
SMALL = ModelConfig(
    vocab_size=97,
    hidden_size=24,
    num_hidden_layers=3,
    num_attention_heads=3,
    intermediate_size=40,
    max_position_embeddings=36,
)

FAMILIES = {
    "bert": SMALL,
    "roberta": dataclasses.replace(SMALL, model_type="roberta", type_vocab_size=1),
    "albert": dataclasses.replace(
        SMALL,
        model_type="albert",
        embedding_size=10,
        num_hidden_layers=6,
        num_hidden_groups=2,
        hidden_act="gelu_new",
        hidden_dropout_prob=0.0,
    ),
    "distilbert": dataclasses.replace(SMALL, model_type="distilbert", type_vocab_size=0, pooler_act="relu"),
    # The first layer, two patterns and one further layer; a row has several windows.
    "modernbert": dataclasses.replace(
        SMALL,
        model_type="modernbert",
        num_hidden_layers=8,
        type_vocab_size=0,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        layer_norm_eps=1e-5,
        pre_norm=True,
        use_bias=False,
        gated_mlp=True,
        global_rope_theta=2_000.0,
        local_rope_theta=60.0,
        local_attention=6,
        global_attn_every_n_layers=3,
        prediction_head=True,
    ),
}


def random_batch(
    config: ModelConfig, batch: int, length: int, predictions: int, seed: int = 0, pad_id: int = 0
) -> dict[str, np.ndarray]:
    """Returns padded rows of two segments and several lengths, with some unused prediction slots."""
    rng, vocab = np.random.default_rng(seed), config.vocab_size
    pairs = "sentence_order" if config.model_type == "albert" else "next_sentence"
    lengths = rng.integers(length // 2, length + 1, batch)
    lengths[0] = length
    columns = np.arange(length)
    mask = columns < lengths[:, None]
    positions = np.stack([np.sort(rng.choice(n, predictions, replace=False)) for n in lengths])
    weights = np.ones((batch, predictions), np.float32)
    weights[1:, -1] = 0
    result = {
        # No token has the padding id, for whose embedding PyTorch computes no gradient.
        "input_ids": np.where(mask, (pad_id + rng.integers(1, vocab, (batch, length))) % vocab, pad_id),
        "token_type_ids": (columns > lengths[:, None] // 3) & mask & (config.type_vocab_size > 1),
        "attention_mask": mask,
        "masked_lm_positions": positions * (weights > 0),
        "masked_lm_ids": rng.integers(0, vocab, (batch, predictions)) * (weights > 0),
        f"{pairs}_labels": rng.integers(0, 2, batch),
    }
    return {name: value.astype(np.int32) for name, value in result.items()} | {"masked_lm_weights": weights}
