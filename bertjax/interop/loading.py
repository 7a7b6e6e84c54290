"""Loads a trained model from any folder: a workdir, a checkpoint, a Hugging Face folder or a TensorFlow checkpoint."""

import dataclasses
import logging
from pathlib import Path

from bertjax.checkpoints import pretrained, store
from bertjax.checkpoints.pretrained import Pretrained
from bertjax.config.data import PAIR_TASKS
from bertjax.config.pretraining import Config
from bertjax.errors import UserError
from bertjax.interop import huggingface, sentence_transformers
from bertjax.storage.files import local_path
from bertjax.text.tokenizer import load_tokenizer

_LOG = logging.getLogger(__name__)

_DOWNLOAD_HINT = "; bertjax downloads no models, so download one first: hf download NAME --local-dir=DIR"
_VOCABULARY_PADDING = 128  # models may round the size of their vocabulary up to a multiple of this


def is_imported(path: str | Path) -> bool:
    """Whether a folder looks like a model of another framework: Hugging Face's, or a TensorFlow checkpoint."""
    path = Path(path)
    has_config = any((path / name).is_file() for name in ("config.json", "bert_config.json"))
    return not (path / "checkpoints").is_dir() and (has_config or any(path.glob("*.index")))


def load_model(path: str | Path, lowercase: bool | None = None) -> Pretrained:
    """Returns the model at `path`; of a workdir, the last readable checkpoint.

    Logs broken checkpoints, and missing parts of an imported model. `lowercase` as in `load_tokenizer`.

    Raises:
      UserError: there is no model, or it cannot be read.
    """
    path = local_path(path, "the model").absolute()
    if is_imported(path):
        return _import(path, lowercase)
    if lowercase is not None:
        raise UserError(f"{path}: the tokenizer of this model defines lower-casing; remove --lowercase")
    if (path / "checkpoints").is_dir():
        return pretrained.load_workdir(path)
    if (path / "meta").is_dir() and (path / "params").is_dir():
        try:
            return pretrained.load_checkpoint(path)
        except store.BrokenCheckpoint as error:
            raise UserError(f"{path}: checkpoint is broken ({error}); use another one") from error
    hint = "" if path.exists() else _DOWNLOAD_HINT
    raise UserError(
        f"{path}: no model; give a workdir of bertjax.train, one of its checkpoints/STEP, a Hugging Face or "
        f"sentence-transformers folder, or the folder of a TensorFlow checkpoint{hint}"
    )


def _import(folder: Path, lowercase: bool | None) -> Pretrained:
    model, params, task, untrained_heads = huggingface.import_model(folder)
    tokenizer = load_tokenizer(folder, lowercase)
    _check_tokenizer(model.vocab_size, tokenizer.vocab_size, folder)
    pairs = {pair_task: f"{pair_task}_head" in params for pair_task in PAIR_TASKS}
    sentence, dense = sentence_transformers.read(folder, model.hidden_size) or (None, {})
    phases = tuple(
        dataclasses.replace(phase, length=min(phase.length, model.max_position_embeddings)) for phase in Config().phases
    )
    return Pretrained(
        path=folder,
        config=dataclasses.replace(Config(), model=model, phases=phases, **pairs),
        params=params | ({"sentence_dense": dense} if dense else {}),
        tokenizer=tokenizer,
        tokenizer_files=pretrained.tokenizer_files(tokenizer),
        step=0,
        task=task,
        sentence=sentence,
        untrained_heads=untrained_heads,
    )


def _check_tokenizer(model_size: int, tokenizer_size: int, folder: Path) -> None:
    """Refuses a tokenizer whose vocabulary cannot be the model's, and logs one that may not be."""
    entries = f"{folder}: the tokenizer has {tokenizer_size} entries"
    remedy = "restore the model's own tokenizer"
    if tokenizer_size > model_size:
        raise UserError(f"{entries}, the model only {model_size}; {remedy}")
    if model_size - tokenizer_size < _VOCABULARY_PADDING:
        return
    if 2 * tokenizer_size < model_size:
        raise UserError(f"{entries}, less than half of the model's {model_size}; {remedy}")
    _LOG.info(f"{entries}, the model {model_size}; check that it is the model's own tokenizer")
