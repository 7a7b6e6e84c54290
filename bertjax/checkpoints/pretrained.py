"""A trained model from wherever it lies: a run's workdir, one checkpoint of it, a Hugging Face folder or Google's."""

import dataclasses
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from bertjax.checkpoints import store
from bertjax.checkpoints.checksums import checksums
from bertjax.config.data import PAIR_TASKS
from bertjax.config.parse import from_config_dict, to_dict
from bertjax.config.pretraining import Config
from bertjax.errors import UserError
from bertjax.text.tokenizer import Tokenizer, load_tokenizer

_ROUNDED_UP = 128  # to a multiple of this the rows of a vocabulary may be rounded up


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """Parameters and all that is needed to use them."""

    path: Path  # where they were found
    config: Config  # of the run; of an imported model only `model` and the task of pairs mean something
    params: Any  # nested dict of NumPy arrays
    tokenizer: Tokenizer
    tokenizer_files: dict[str, str]  # name → base64
    step: int
    task: dict[str, Any] | None = None  # what it is fine-tuned for: name ("" where unknown), kind and labels
    sentence: dict[str, Any] = dataclasses.field(
        default_factory=dict
    )  # how its texts become vectors, where that is known

    def fingerprint(self, parts: Sequence[str] = ()) -> str:
        """Of the parameters, or of these parts, and of what is computed with them: the same one, the same answers."""
        params = {name: self.params[name] for name in parts or self.params}
        sums = {name: int(value) for name, value in jax.device_get(checksums(params)).items()}
        fields = dataclasses.asdict(self.config.model)
        # Answers do not drop, and nothing begins anew; where they lie decides as whose model they count.
        computed = {name: fields[name] for name in fields if not name.endswith(("_prob", "_range", "_type"))}
        return hashlib.sha256(json.dumps([sums, computed], sort_keys=True).encode()).hexdigest()


def is_imported(path: str | Path) -> bool:
    """Whether a folder looks like a model of another framework: Hugging Face's, or a TensorFlow checkpoint."""
    path = Path(path)
    config = any((path / name).is_file() for name in ("config.json", "bert_config.json"))
    return not (path / "checkpoints").is_dir() and (config or any(path.glob("*.index")))


def load(path: str | Path, say: Callable[[str], None]) -> Pretrained:
    """The model at `path`; of a workdir the last checkpoint that can be read.

    `say` is told of broken checkpoints, and of what a model of another framework lacks.

    Raises:
      UserError: there is no model, or none that can be read.
    """
    path = Path(path).absolute()
    if (path / "checkpoints").is_dir():
        return _from_workdir(path, say)
    if (path / "meta").is_dir() and (path / "params").is_dir():
        try:
            return _from_checkpoint(path)
        except store.BrokenCheckpoint as error:
            raise UserError(f"checkpoint {path} is broken ({error}); take another one") from error
    if is_imported(path):
        return _imported(path, say)
    raise UserError(
        f"there is no model in {path}; give a workdir of bertjax.train, one of its checkpoints/STEP, "
        "a Hugging Face folder, or the folder of a TensorFlow checkpoint"
    )


def check_pretraining(model: Pretrained) -> None:
    """Refuses a fine-tuned model where the heads of pre-training are needed.

    Raises:
      UserError: it is fine-tuned.
    """
    if model.task is not None:
        raise UserError(
            f"{model.path} is fine-tuned ({model.task['kind']}) and has no heads of pre-training; give the model that "
            "it was made from"
        )


def save(directory: str | Path, model: Pretrained) -> Path:
    """Writes a workdir with one checkpoint of parameters, step `model.step`; returns the checkpoint's path.

    Raises:
      UserError: there is something already, or it cannot be written.
    """
    directory = Path(directory).absolute()
    if directory.exists() and any(directory.iterdir()):
        raise UserError(f"{directory} is not empty; choose another folder")
    target = directory / "checkpoints" / str(model.step)
    try:
        store.write_params(target, model.params, _meta(model))
        (directory / "tokenizer").mkdir()
        store.write_tokenizer(_meta(model), directory / "tokenizer")
    except BaseException as error:
        for made in ("checkpoints", "tokenizer"):  # half of a model would be in the way of the next try
            shutil.rmtree(directory / made, ignore_errors=True)
        if isinstance(error, OSError):
            raise UserError(
                f"cannot write {directory}: {error.strerror}; put that right or choose another folder"
            ) from error
        raise
    return target


def replace(directory: str | Path, model: Pretrained) -> Path:
    """Writes the checkpoint of step `model.step` into a workdir, in place of all that are there; returns its path.

    Raises:
      UserError: it cannot be written.
    """
    folder = Path(directory).absolute() / "checkpoints"
    target = folder / str(model.step)
    shutil.rmtree(target, ignore_errors=True)  # what a killed process left
    store.write_params(target, model.params, _meta(model))
    for step in store.steps(folder):
        if step != model.step:
            shutil.rmtree(folder / str(step))
    return target


def _meta(model: Pretrained) -> dict[str, Any]:
    meta = {
        "seed": model.config.seed,
        "config": json.loads(json.dumps(to_dict(model.config))),
        "corpus": None,
        "tokenizer": {"hash": model.tokenizer.hash(), "files": model.tokenizer_files},
    }
    meta |= {"task": model.task} if model.task else {}
    return meta | ({"sentence": model.sentence} if model.sentence else {})


def _from_workdir(workdir: Path, say: Callable[[str], None]) -> Pretrained:
    for step in reversed(store.steps(workdir / "checkpoints")):
        try:
            return _from_checkpoint(workdir / "checkpoints" / str(step))
        except store.BrokenCheckpoint as error:
            say(f"checkpoint {step} is broken ({error}), the one before is taken")
    raise UserError(f"there is no checkpoint that can be read in {workdir}/checkpoints; train further, or take another")


def _from_checkpoint(path: Path) -> Pretrained:
    params, meta = store.read_params(path)
    with tempfile.TemporaryDirectory() as folder:
        store.write_tokenizer(meta, Path(folder))
        tokenizer = load_tokenizer(folder)
    return Pretrained(
        path=path,
        config=_as_trained(from_config_dict(meta["config"]), meta["step"]),
        params=params,
        tokenizer=tokenizer,
        tokenizer_files=meta["tokenizer"]["files"],
        step=meta["step"],
        task=meta.get("task"),
        sentence=meta.get("sentence") or (meta.get("task") or {}).get("sentence", {}),
    )


def _as_trained(config: Config, step: int) -> Config:
    """`config` with the model as it was trained until `step`: a phase may have a rotary base of its own."""
    if not any(phase.global_rope_theta for phase in config.phases):
        return config
    phase = config.phases[config.locate(max(0, step - 1))[0]]
    theta = phase.global_rope_theta or config.model.global_rope_theta
    phases = tuple(dataclasses.replace(phase, global_rope_theta=0.0) for phase in config.phases)
    model = dataclasses.replace(config.model, global_rope_theta=theta)
    return dataclasses.replace(config, model=model, phases=phases)


def _imported(folder: Path, say: Callable[[str], None]) -> Pretrained:
    from bertjax.interop import huggingface, sentence_transformers

    model, params, task = huggingface.import_model(folder, say)
    tokenizer = load_tokenizer(folder)
    _check_tokenizer(model.vocab_size, tokenizer.vocab_size, folder, say)
    with tempfile.TemporaryDirectory() as written:
        tokenizer.save(written)
        files = store.tokenizer_files(Path(written))
    pairs = {task: f"{task}_head" in params for task in PAIR_TASKS}
    longest = model.max_position_embeddings
    phases = tuple(dataclasses.replace(phase, length=min(phase.length, longest)) for phase in Config().phases)
    return Pretrained(
        path=folder,
        config=dataclasses.replace(Config(), model=model, phases=phases, **pairs),
        params=params,
        tokenizer=tokenizer,
        tokenizer_files=files,
        step=0,
        task=task,
        sentence=sentence_transformers.read(folder),
    )


def _check_tokenizer(words: int, pieces: int, folder: Path, say: Callable[[str], None]) -> None:
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
    say(f"{folder}: the tokenizer has {pieces} entries, the model {words}; is it the model's own?")
