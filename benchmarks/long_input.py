"""Measures the time of a local (window of 128 tokens) and a global attention layer by sequence length.

python benchmarks/long_input.py [--lengths=1024,2048,4096,8192] [--rounds=3]

One row per batch, forward and backward pass, f32, width 256, four heads. Medians of the rounds; the last columns are
the times relative to the shortest length.
"""

import argparse
import os
import statistics
import time

import numpy as np


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", default="1024,2048,4096,8192")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    from bertjax.cli import tune_cpu_malloc

    tune_cpu_malloc()
    print("| length | local, s | global, s | local, relative | global, relative |\n|---|---|---|---|---|")
    first: list[float] = []
    for length in map(int, arguments.lengths.split(",")):
        seconds = [median_seconds(length, local, arguments.rounds) for local in (True, False)]
        first = first or seconds
        ratios = [value / base for value, base in zip(seconds, first, strict=True)]
        print(f"| {length} | {seconds[0]:.3f} | {seconds[1]:.3f} | {ratios[0]:.1f} | {ratios[1]:.1f} |", flush=True)


def median_seconds(length: int, local: bool, rounds: int) -> float:
    """The median time of a forward and backward pass."""
    import jax
    import jax.numpy as jnp

    from bertjax.config.model import ModelConfig
    from bertjax.model.attention import SelfAttention, SharedInputs
    from bertjax.model.computation import Computation

    config = ModelConfig(
        hidden_size=256, num_attention_heads=4, attention_probs_dropout_prob=0.0, local_attention=128, pre_norm=True
    )
    layer = SelfAttention(config, Computation(), local=local)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, length, 256)), jnp.float32)
    short_inputs, inputs = (SharedInputs(jnp.ones((1, size), jnp.int32)) for size in (8, length))
    params = layer.init(jax.random.key(0), x[:, :8], x[:, :8], short_inputs, 0)
    gradient = jax.jit(jax.grad(lambda params, x: jnp.mean(layer.apply(params, x, x, inputs, 0) ** 2), (0, 1)))
    jax.block_until_ready(gradient(params, x))
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        jax.block_until_ready(gradient(params, x))
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


if __name__ == "__main__":
    main()
