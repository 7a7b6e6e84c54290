"""Measures the share of padding, and the speed of a train step, with packed and with padded rows.

python benchmarks/packing.py --corpus=DIR [--lengths=128,512,8192] [--step_length=512] [--rounds=3]

DIR is a prepared corpus. The first table shows the share of padding for BERT's sentence pairs and for single segments,
the second the text tokens per second in the train step of a small BERT (4 layers, width 256), as medians of alternating
rounds.
"""

import argparse
import dataclasses
import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

LAYOUTS = {"padded": 0, "packed": None}  # None: sequences per row chosen by length
_ROWS = 2000


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--lengths", default="128,512,8192")
    parser.add_argument("--step_length", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    from bertjax.cli import tune_cpu_malloc

    tune_cpu_malloc()
    print("| length | rows | padded | packed |\n|---|---|---|---|")
    for length in map(int, arguments.lengths.split(",")):
        for pairs in ("next_sentence", ""):
            shares = [padding_share(arguments.corpus, pairs, length, layout) for layout in LAYOUTS]
            print(f"| {length} | {pairs or 'segments'} | {shares[0]:.2%} | {shares[1]:.2%} |", flush=True)
    print("\n| length | layout | text tokens/s | relative to padded |\n|---|---|---|---|")
    runs = {layout: Step(arguments.corpus, arguments.step_length, layout) for layout in LAYOUTS}
    speeds: dict[str, list[float]] = {layout: [] for layout in LAYOUTS}
    for _ in range(arguments.rounds):
        for layout, run in runs.items():
            speeds[layout].append(run.tokens_per_second())
    medians = {layout: statistics.median(values) for layout, values in speeds.items()}
    for layout, speed in medians.items():
        print(f"| {arguments.step_length} | {layout} | {speed:,.0f} | {speed / medians['padded']:.2f} |")


def stream(corpus: str, pairs: str, length: int, layout: str) -> Any:
    """The rows of a layout, with BERT's share of short sequences."""
    from bertjax.config.data import MaskingConfig, Sequencing
    from bertjax.corpus.format import Corpus
    from bertjax.data.stream import RowFormat, Stream
    from bertjax.data.token_info import Vocabulary
    from bertjax.text.tokenizer import load_tokenizer

    packing = max(4, length // 64) if LAYOUTS[layout] is None else 0
    vocabulary = Vocabulary.of(load_tokenizer(Path(corpus) / "tokenizer"))
    row_format = RowFormat(length, MaskingConfig(), Sequencing(pairs, packing=packing))
    return Stream(Corpus.open(corpus), vocabulary, row_format, 0, "phase 0")


def padding_share(corpus: str, pairs: str, length: int, layout: str) -> float:
    """The share of padding in the rows of a layout."""
    rows = stream(corpus, pairs, length, layout)
    return rows.padding_share(np.arange(min(_ROWS, rows.epochs.count(0))))


class Step:
    """A compiled train step and some batches."""

    def __init__(self, corpus: str, length: int, layout: str) -> None:
        from bertjax.config.layout import MeshConfig
        from bertjax.config.model import ModelConfig
        from bertjax.config.pretraining import Config, Phase
        from bertjax.parallel.mesh import make_mesh
        from bertjax.pretraining import build
        from bertjax.trainer.step import initial_state, make_init, make_train_step

        rows = stream(corpus, "next_sentence", length, layout)
        model = ModelConfig(
            vocab_size=rows.corpus.vocab_size,
            hidden_size=256,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=1024,
            max_position_embeddings=length,
        )
        config = dataclasses.replace(Config(), model=model, phases=(Phase(1, length, 8),), dtype="float32")
        self._mesh = make_mesh(MeshConfig())
        objective = build.make_objective(config)
        optimizer, schedule = build.make_optimizer(config)
        self._batches = [rows.batch(np.arange(i * 8, i * 8 + 8)) for i in range(6)]
        self._tokens = sum(np.count_nonzero(batch["attention_mask"]) for batch in self._batches)
        self._state = make_init(initial_state(objective, optimizer, self._batches[0], seed=0), self._mesh)()
        self._step = make_train_step(objective, optimizer, schedule, self._mesh, 0)
        self.tokens_per_second()  # compiles

    def tokens_per_second(self) -> float:
        """Runs all batches once and returns the speed."""
        import jax

        from bertjax.parallel.mesh import put_batch

        begin = time.perf_counter()
        for batch in self._batches:
            self._state, metrics = self._step(self._state, put_batch(batch, self._mesh))
        jax.block_until_ready(metrics)
        return self._tokens / (time.perf_counter() - begin)


if __name__ == "__main__":
    main()
