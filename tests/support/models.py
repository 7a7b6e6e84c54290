"""Models for tests, put together from their parts."""

import types
from pathlib import Path
from typing import Any

from bertjax.checkpoints import store
from bertjax.checkpoints.pretrained import Pretrained
from bertjax.config.model import ModelConfig
from bertjax.config.pretraining import Config
from bertjax.tasks.metadata import TaskMetadata


def from_parts(
    config: ModelConfig,
    params: Any,
    tokenizer_folder: Path | None = None,
    task: TaskMetadata | None = None,
    pad_id: int = 0,
) -> Pretrained:
    """A model with the files of a tokenizer that is never used."""
    files = store.tokenizer_files(tokenizer_folder) if tokenizer_folder else {}
    tokenizer = types.SimpleNamespace(pad_id=pad_id)
    return Pretrained(Path("model"), Config(model=config), params, tokenizer, files, step=0, task=task)
