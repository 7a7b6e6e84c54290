"""What long input costs: a step of a narrow ModernBERT with local and with global attention, at growing lengths.

python benchmarks/long_input.py [--lengths=1024,2048,4096,8192] [--rounds=3]

One row of each length, forward and backward, f32, four layers of which three see windows of 128 tokens ("local"), or
all see all ("global"). Medians of rounds in turn; the last columns are the time over that of the shortest length.
"""

import argparse
import dataclasses
import os
import statistics
import time
from typing import Any

import numpy as np


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", default="1024,2048,4096,8192")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    from bertjax.command import keep_memory

    keep_memory()
    print("| length | local, s | global, s | local, over the shortest | global |\n|---|---|---|---|---|")
    first: list[float] = []
    for length in map(int, arguments.lengths.split(",")):
        found = [median(length, local, arguments.rounds) for local in (True, False)]
        first = first or found
        ratios = [one / base for one, base in zip(found, first, strict=True)]
        print(f"| {length} | {found[0]:.2f} | {found[1]:.2f} | {ratios[0]:.1f} | {ratios[1]:.1f} |", flush=True)


def median(length: int, local: bool, rounds: int) -> float:
    """Seconds of a gradient."""
    import jax
    import jax.numpy as jnp

    from bertjax.model.pretraining import PretrainingModel

    model = PretrainingModel(config(length, local), pairs="")
    ids = np.random.default_rng(0).integers(1, 1000, (1, length)).astype(np.int32)
    batch = {"input_ids": ids, "token_type_ids": 0 * ids, "attention_mask": 0 * ids + 1}
    batch["masked_lm_positions"] = np.arange(0, length, 8, dtype=np.int32)[None]
    params = jax.jit(lambda: model.init(jax.random.key(0), batch)["params"])()
    loss = lambda params: jnp.mean(model.apply({"params": params}, batch)["masked_lm_logits"] ** 2)  # noqa: E731
    gradient = jax.jit(jax.grad(loss))
    jax.block_until_ready(gradient(params))
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        jax.block_until_ready(gradient(params))
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def config(length: int, local: bool) -> Any:
    """Four layers, 64 wide; with `local` none but the first sees all."""
    from bertjax.config import ModelConfig

    narrow = ModelConfig(
        model_type="modernbert",
        vocab_size=1000,
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=96,
        max_position_embeddings=length,
        type_vocab_size=0,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pre_norm=True,
        use_bias=False,
        gated_mlp=True,
        prediction_head=True,
        global_rope_theta=160_000.0,
        local_rope_theta=10_000.0,
        local_attention=128,
        global_attn_every_n_layers=4,
    )
    return narrow if local else dataclasses.replace(narrow, local_attention=0, local_rope_theta=0.0)


if __name__ == "__main__":
    main()
