"""Synthetic corpora of random ids in the format of `prepare`."""

import itertools
from pathlib import Path

import numpy as np

from bertjax.corpus import format
from bertjax.corpus.format import Corpus
from bertjax.corpus.manifest import write_manifest
from bertjax.data.token_info import Vocabulary
from bertjax.text.tokenizer import token_type

PAD, UNKNOWN, CLS, SEP, MASK = range(5)
SPECIAL = (PAD, UNKNOWN, CLS, SEP, MASK)
VOCAB_SIZE = 1000


def vocabulary(size: int = VOCAB_SIZE) -> Vocabulary:
    """Five special ids, then pieces; seven in ten begin a word."""
    word_starts = np.arange(size) % 10 < 7
    return Vocabulary(size, CLS, SEP, MASK, PAD, np.arange(len(SPECIAL), size, dtype=np.int32), word_starts)


def write(directory: Path, splits: dict[str, list[list[list[list[int]]]]], vocab_size: int = VOCAB_SIZE) -> Path:
    """Writes a corpus: splits -> shards -> documents -> sentences -> ids."""
    directory.mkdir(parents=True, exist_ok=True)
    infos = {}
    for split, shards in splits.items():
        infos[split] = []
        for number, documents in enumerate(shards):
            sentences = list(itertools.chain.from_iterable(documents))
            infos[split].append(
                format.write_shard(
                    directory / format.shard_name(split, number),
                    np.cumsum([0, *map(len, documents)]),
                    np.cumsum([0, *map(len, sentences)]),
                    np.fromiter(itertools.chain.from_iterable(sentences), token_type(vocab_size)),
                )
            )
    write_manifest(directory, shards=infos, vocab_size=vocab_size, tokenizer_hash="numbers", statistics={})
    return directory


def text(rng: np.random.Generator, documents: int, mean_sentences: float) -> list[list[list[int]]]:
    """Documents shaped like prose: geometrically distributed numbers of sentences of 5 to 44 random ids."""
    return [
        [
            rng.integers(len(SPECIAL), VOCAB_SIZE, size).tolist()
            for size in rng.integers(5, 45, rng.geometric(1 / mean_sentences))
        ]
        for _ in range(documents)
    ]


def all_tokens(split: Corpus) -> np.ndarray:
    """The tokens of a split, in order."""
    return np.concatenate([shard.tokens for shard in split.shards])


def prose(directory: Path) -> Path:
    """A corpus of 3 shards: 3,000 documents of prose, a giant one and tiny ones; 1.9M tokens, 24,000 pairs of 128."""
    rng = np.random.default_rng(0)
    documents = text(rng, 3000, 25)
    giant = [list(itertools.chain.from_iterable(text(rng, 60, 25)))]
    tiny = [[[7]], [[8, 9]], [[10], [11]], [list(range(5, 900))]]
    train = [documents[:1000] + tiny, documents[1000:2900] + giant, documents[2900:]]
    return write(directory, {"train": train, "heldout": [text(rng, 40, 25)]})
