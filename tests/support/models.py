"""Builds models for tests."""

import tempfile
from pathlib import Path
from typing import Any

from bertjax.checkpoints import store
from bertjax.checkpoints.pretrained import Pretrained
from bertjax.config.model import ModelConfig
from bertjax.config.pretraining import Config
from bertjax.tasks.metadata import TaskMetadata
from bertjax.text.tokenizer import Tokenizer, load_tokenizer

SPECIAL = ("[UNK]", "[CLS]", "[SEP]", "[MASK]")


def from_parts(
    config: ModelConfig,
    params: Any,
    tokenizer_folder: Path | None = None,
    task: TaskMetadata | None = None,
    pad_id: int = 0,
) -> Pretrained:
    """Returns a model with the tokenizer of a folder; by default one of a few pieces, without tokenizer files."""
    files = store.tokenizer_files(tokenizer_folder) if tokenizer_folder else {}
    tokenizer = load_tokenizer(tokenizer_folder) if tokenizer_folder else _tokenizer(pad_id)
    return Pretrained(Path("model"), Config(model=config), params, tokenizer, files, step=0, task=task)


def _tokenizer(pad_id: int) -> Tokenizer:
    pieces = [*SPECIAL, "a", "##a"]
    pieces.insert(pad_id, "[PAD]")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "vocab.txt").write_text("\n".join(pieces) + "\n")
        return load_tokenizer(folder)
