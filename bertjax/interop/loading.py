"""A trained model from any folder: a workdir, one of its checkpoints, a Hugging Face folder or Google's."""

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

_ROUNDED_UP = 128  # to a multiple of this the rows of a vocabulary may be rounded up


def is_imported(path: str | Path) -> bool:
    """Whether a folder looks like a model of another framework: Hugging Face's, or a TensorFlow checkpoint."""
    path = Path(path)
    config = any((path / name).is_file() for name in ("config.json", "bert_config.json"))
    return not (path / "checkpoints").is_dir() and (config or any(path.glob("*.index")))


def load_model(path: str | Path, lowercase: bool | None = None) -> Pretrained:
    """The model at `path`; of a workdir the last checkpoint that can be read.

    Broken checkpoints, and what a model of another framework lacks, are logged. `lowercase` as in `load_tokenizer`.

    Raises:
      UserError: there is no model, or none that can be read.
    """
    path = local_path(path, "the model").absolute()
    if is_imported(path):
        return _imported(path, lowercase)
    if lowercase is not None:
        raise UserError(f"{path}: its tokenizer says whether text is lower-cased; leave --lowercase out")
    if (path / "checkpoints").is_dir():
        return pretrained.from_workdir(path)
    if (path / "meta").is_dir() and (path / "params").is_dir():
        try:
            return pretrained.from_checkpoint(path)
        except store.BrokenCheckpoint as error:
            raise UserError(f"checkpoint {path} is broken ({error}); take another one") from error
    raise UserError(
        f"there is no model in {path}; give a workdir of bertjax.train, one of its checkpoints/STEP, "
        "a Hugging Face folder, or the folder of a TensorFlow checkpoint"
    )


def _imported(folder: Path, lowercase: bool | None) -> Pretrained:
    model, params, task = huggingface.import_model(folder)
    tokenizer = load_tokenizer(folder, lowercase)
    _check_tokenizer(model.vocab_size, tokenizer.vocab_size, folder)
    pairs = {task: f"{task}_head" in params for task in PAIR_TASKS}
    sentence, dense = sentence_transformers.read(folder, model.hidden_size) or (None, {})
    longest = model.max_position_embeddings
    phases = tuple(dataclasses.replace(phase, length=min(phase.length, longest)) for phase in Config().phases)
    return Pretrained(
        path=folder,
        config=dataclasses.replace(Config(), model=model, phases=phases, **pairs),
        params=params | ({"sentence_dense": dense} if dense else {}),
        tokenizer=tokenizer,
        tokenizer_files=pretrained.tokenizer_files(tokenizer),
        step=0,
        task=task,
        sentence=sentence,
    )


def _check_tokenizer(words: int, pieces: int, folder: Path) -> None:
    """Refuses a tokenizer that is surely another model's, and tells of one that may be."""
    if pieces > words:
        raise UserError(
            f"{folder}: the tokenizer has {pieces} entries, the model only {words}; put the model's own tokenizer there"
        )
    if words - pieces < _ROUNDED_UP:
        return
    if 2 * pieces < words:
        raise UserError(
            f"{folder}: the tokenizer has {pieces} entries, less than half of the model's {words}; put the model's own "
            "tokenizer there"
        )
    _LOG.info(f"{folder}: the tokenizer has {pieces} entries, the model {words}; is it the model's own?")
