"""What long input costs: a layer of attention that sees a window of 128 tokens, and one that sees all, by length.

python benchmarks/long_input.py [--lengths=1024,2048,4096,8192] [--rounds=3]

One row of each length, forward and backward, f32, 256 wide, four heads. Medians of rounds; the last columns are the
time over that of the shortest length.
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
    from bertjax.cli import keep_memory

    keep_memory()
    print("| length | local, s | global, s | local, over the shortest | global |\n|---|---|---|---|---|")
    first: list[float] = []
    for length in map(int, arguments.lengths.split(",")):
        found = [median(length, local, arguments.rounds) for local in (True, False)]
        first = first or found
        ratios = [one / base for one, base in zip(found, first, strict=True)]
        print(f"| {length} | {found[0]:.3f} | {found[1]:.3f} | {ratios[0]:.1f} | {ratios[1]:.1f} |", flush=True)


def median(length: int, local: bool, rounds: int) -> float:
    """Seconds of a gradient."""
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
    some, every = (SharedInputs(jnp.ones((1, size), jnp.int32)) for size in (8, length))
    params = layer.init(jax.random.key(0), x[:, :8], x[:, :8], some, 0)
    gradient = jax.jit(jax.grad(lambda params, x: jnp.mean(layer.apply(params, x, x, every, 0) ** 2), (0, 1)))
    jax.block_until_ready(gradient(params, x))
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        jax.block_until_ready(gradient(params, x))
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


if __name__ == "__main__":
    main()
