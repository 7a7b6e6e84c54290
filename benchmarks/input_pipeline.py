"""Measures the throughput of the input pipeline, and the time to the first batch of a large corpus.

    python benchmarks/input_pipeline.py [--tokens=50_000_000] [--large=1_000_000_000] [--threads=1,2]

Creates synthetic corpora (random ids, sentences of 5 to 39 tokens, documents of 400 tokens on average) in a temporary
folder; the large one takes 2.2 GB of disk, `--large=0` skips it. Speeds are medians over windows of half a second. Each
start is a new process; memory is as counted by the kernel, including mapped file pages.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bertjax.config.data import MaskingConfig
from bertjax.config.pretraining import Config, Phase
from bertjax.corpus import format
from bertjax.corpus.format import Corpus
from bertjax.corpus.manifest import write_manifest
from bertjax.data.pipeline import BatchSource
from bertjax.data.token_info import Vocabulary

VOCAB_SIZE = 30_522
BATCH = 256
SHARD_TOKENS = 900_000  # about as many as in shards of `prepare`
BATCHES_AFTER = 2000
TARGET = "target: 150,000 on 2 cores"


def write_corpus(directory: Path, tokens: int) -> None:
    shards = []
    for number in range(max(1, round(tokens / SHARD_TOKENS))):
        rng = np.random.default_rng(number)
        sentences = np.cumsum([0, *rng.integers(5, 40, min(tokens, SHARD_TOKENS) // 22)])
        documents = np.cumsum([0, *rng.geometric(22 / 400, len(sentences) // 18)])
        documents = np.append(documents[documents < len(sentences) - 1], len(sentences) - 1)
        ids = rng.integers(1000, VOCAB_SIZE, sentences[-1], dtype=np.uint16)
        shards.append(format.write_shard(directory / format.shard_name("train", number), documents, sentences, ids))
    write_manifest(directory, shards={"train": shards}, vocab_size=VOCAB_SIZE, tokenizer_hash="random", statistics={})


def make_source(directory: Path, length: int = 128, unit: str = "token") -> BatchSource:
    ordinary = np.setdiff1d(np.arange(VOCAB_SIZE, dtype=np.int32), [0, 100, 101, 102, 103])
    vocabulary = Vocabulary(VOCAB_SIZE, 101, 102, 103, 0, ordinary, np.arange(VOCAB_SIZE) % 10 < 7)
    config = Config(phases=(Phase(steps=10**9, length=length, batch=BATCH),), masking=MaskingConfig(unit=unit))
    return BatchSource(Corpus.open(directory), vocabulary, config)


def sequences_per_second(batches: Iterator, windows: int = 9, seconds: float = 0.5) -> float:
    for _ in range(50):
        next(batches)
    rates = []
    for _ in range(windows):
        count, begin = 0, time.perf_counter()
        while time.perf_counter() - begin < seconds:
            next(batches)
            count += BATCH
        rates.append(count / (time.perf_counter() - begin))
    return statistics.median(rates)


def print_speeds(directory: Path, threads: list[int]) -> None:
    tokens = Corpus.open(directory).tokens
    print(f"sequences/s from {tokens / 1e6:.0f}M tokens, batch {BATCH} ({TARGET})")
    print("length  masking  " + "".join(f"{count:>2} thread{'s' if count > 1 else ' '}  " for count in threads))
    for length, unit in [(128, "token"), (512, "token"), (128, "word"), (128, "span")]:
        source = make_source(directory, length, unit)
        rates = [sequences_per_second(source.iterate(0, 10**9, threads=count)) for count in threads]
        print(f"{length:>6}  {unit:<7}  " + "".join(f"{rate:>10,.0f}  " for rate in rates), flush=True)


def start(directory: Path) -> None:
    """Opens a corpus, reads batches and prints a JSON line; runs in a separate process."""
    begin = time.perf_counter()
    batches = make_source(directory).iterate(0, 10**9)
    next(batches)
    first = time.perf_counter()
    result = {"first": first - begin, **memory("first")}
    next(batches)
    result["second"] = time.perf_counter() - first
    begin = time.perf_counter()
    for _ in range(BATCHES_AFTER):
        next(batches)
    result["rate"] = BATCHES_AFTER * BATCH / (time.perf_counter() - begin)
    print(json.dumps({**result, **memory("after")}))


def memory(when: str) -> dict[str, float]:
    """GiB of anonymous memory, of mapped files, and of the peak of their sum."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    names = {"anonymous": "RssAnon", "file": "RssFile", "peak": "VmHWM"}
    return {f"{when} {name}": int(fields[field].split()[0]) / 2**20 for name, field in names.items()}


def print_starts(directory: Path) -> None:
    tokens = Corpus.open(directory).tokens
    print(f"\nstart on {tokens / 1e6:,.0f}M tokens (targets: 60 s at first, 5 s again, 4 GiB)")
    print("       first batch  second (TensorFlow starts)  peak of memory then", end="  ")
    print(f"after {BATCHES_AFTER} more: anonymous     files      peak  sequences/s")
    for name in ("first", "again", "again"):
        command = [sys.executable, __file__, f"--start={directory}"]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        row = json.loads(output.splitlines()[-1])
        print(
            f"{name:<6}{row['first']:>10.2f} s  {row['second']:>25.2f} s  {row['first peak']:>15.2f} GiB"
            f"{row['after anonymous']:>24.2f} GiB{row['after file']:>6.2f} GiB"
            f"{row['after peak']:>6.2f} GiB  {row['rate']:>11,.0f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=50_000_000)
    parser.add_argument("--large", type=int, default=1_000_000_000)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--start", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.start:
        start(options.start)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_corpus(Path(folder), options.tokens)
        print_speeds(Path(folder), [int(count) for count in options.threads.split(",")])
    if options.large:
        with tempfile.TemporaryDirectory() as folder:
            write_corpus(Path(folder), options.large)
            print_starts(Path(folder))


if __name__ == "__main__":
    main()
