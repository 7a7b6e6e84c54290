"""Corpora, batches and tokenizers in Python."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from bertjax.config.finetuning import FinetuneConfig
from bertjax.config.parse import checked
from bertjax.config.pretraining import Config
from bertjax.corpus import staging
from bertjax.corpus.format import Corpus
from bertjax.data.batch import HostBatch
from bertjax.errors import UserError
from bertjax.pretraining.build import open_training_data
from bertjax.storage.files import local_path
from bertjax.text import tokenizer
from bertjax.text.tokenizer import Tokenizer

T = TypeVar("T", Config, FinetuneConfig)


def load_tokenizer(path: str | Path, lowercase: bool | None = None) -> Tokenizer:
    """Loads a tokenizer.

    >>> tokenizer = bertjax.load_tokenizer("data/books")
    >>> tokenizer.decode(tokenizer("the value of a list"))
    'the value of a list'

    Args:
      path: a tokenizer file or the folder that holds it: `tokenizer.json`, `vocab.txt`, or a SentencePiece model. Of a
        corpus or workdir, its folder `tokenizer`.
      lowercase: whether to lower-case text, for a file that does not record it; None: as its folder or entries suggest.

    Raises:
      UserError: there is no tokenizer, or bertjax cannot reproduce how the tokenizer's original library reads it.
    """
    path = local_path(path, "path")
    folder = path / "tokenizer"
    return tokenizer.load_tokenizer(folder if folder.is_dir() else path, lowercase)


def open_corpus(path: str | Path, split: str = "train") -> Corpus:
    """Opens a split of a corpus that `python -m bertjax.prepare` wrote, memory-mapped.

    >>> corpus = bertjax.open_corpus("data/books")
    >>> corpus.documents > 1 and corpus.tokens > corpus.sentences
    True

    Args:
      path: the corpus folder, or its URL, which is copied to this machine once.
      split: "train" or "heldout".

    Raises:
      UserError: there is no corpus, or it is damaged.
    """
    return Corpus.open(staging.local_copy(str(path)), split)


def iter_batches(config: Config, start: int = 0, stop: int | None = None) -> Iterator[HostBatch]:
    """Returns an iterator of the global batches of a pre-training run, from step `start` to `stop`.

    The batch of a step is a function of corpus, seed and step alone, so iteration can start anywhere.

    >>> config = bertjax.load_config("configs/quickstart.py", corpus="data/books")
    >>> batch = next(bertjax.iter_batches(config, start=3))
    >>> batch["input_ids"].shape, batch["masked_lm_positions"].shape
    ((32, 32), (32, 8))

    Args:
      config: a pre-training config; the batches depend on its `corpus`, `seed`, `phases`, pairs, packing and masking.
      start: first step, from 0.
      stop: step to stop before; None: the last step of the config.

    Returns:
      Dicts of NumPy arrays as `bertjax.data.batch` lists them.

    Raises:
      UserError: the corpus cannot be read or does not fit the config.
    """
    config = checked_config(config, Config, "iter_batches")
    if not 0 <= start <= config.total_steps:
        raise UserError(f"start is {start}; the config has steps 0 to {config.total_steps}")
    last = config.total_steps if stop is None else min(stop, config.total_steps)
    return open_training_data(config).source.iterate(start, last, threads=config.reader_threads)


def checked_config(config: object, cls: type[T], caller: str) -> T:
    """Returns a config with its settings checked, as `dataclasses.replace` does not check them.

    Raises:
      UserError: a setting is invalid, or the config is not of the class that the function `caller` needs.
    """
    if not isinstance(config, cls):
        raise UserError(f"{caller}: config is of type {type(config).__name__}; give a {cls.__name__} (load_config)")
    return checked(cls, dataclasses.asdict(config))
