"""A trained model with all that is needed to use it, read from checkpoints and written as one."""

import dataclasses
import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bertjax.arrays.trees import named_leaves
from bertjax.checkpoints import store
from bertjax.checkpoints.checksums import checksums
from bertjax.checkpoints.meta import CURE, CheckpointMeta, StoredTokenizer
from bertjax.config.pretraining import Config
from bertjax.errors import UserError
from bertjax.model.shapes import encoder_shapes
from bertjax.tasks.kinds.catalog import kind_named
from bertjax.tasks.metadata import SentenceMetadata, TaskMetadata
from bertjax.text.tokenizer import Tokenizer, load_tokenizer

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """Parameters and all that is needed to use them."""

    path: Path  # where they were found
    config: Config  # of the run; of an imported model only `model` and the task of pairs mean something
    params: Any  # nested dict of NumPy arrays
    tokenizer: Tokenizer
    tokenizer_files: Mapping[str, str]  # name → base64
    step: int
    task: TaskMetadata | None = None  # None: it is not fine-tuned
    sentence: SentenceMetadata | None = None  # None: unknown

    def fingerprint(self, parts: Sequence[str] = ()) -> str:
        """Of the parameters, or of these parts, and of what is computed with them: the same one, the same answers."""
        sums = checksums({name: self.params[name] for name in parts or self.params})
        fields = dataclasses.asdict(self.config.model)
        # Answers do not drop, and nothing begins anew; where they lie decides as whose model they count.
        computed = {name: fields[name] for name in fields if not name.endswith(("_prob", "_range", "_type"))}
        return hashlib.sha256(json.dumps([sums, computed], sort_keys=True).encode()).hexdigest()


def tokenizer_files(tokenizer: Tokenizer) -> dict[str, str]:
    """The files that a tokenizer is saved as, name → base64."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(folder)
        return store.tokenizer_files(Path(folder))


def check_pretraining(model: Pretrained) -> None:
    """Refuses a fine-tuned model where the heads of pre-training are needed.

    Raises:
      UserError: it is fine-tuned.
    """
    if model.task is not None:
        raise UserError(
            f"{model.path} is fine-tuned ({model.task.kind}) and has no heads of pre-training; give the model that "
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
        store.write_tokenizer(model.tokenizer_files, directory / "tokenizer")
    except BaseException as error:
        for made in ("checkpoints", "tokenizer"):  # half of a model would be in the way of the next try
            shutil.rmtree(directory / made, ignore_errors=True)
        if isinstance(error, OSError):
            raise UserError(
                f"cannot write {directory}: {error.strerror}; put that right or choose another folder"
            ) from error
        raise
    return target


def overwrite(directory: str | Path, model: Pretrained) -> Path:
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


def _meta(model: Pretrained) -> CheckpointMeta:
    tokenizer = StoredTokenizer(model.tokenizer.hash(), model.tokenizer_files)
    return CheckpointMeta(model.config, tokenizer, task=model.task, sentence=model.sentence)


def from_workdir(workdir: Path) -> Pretrained:
    """The model of the last readable checkpoint of a run.

    Raises:
      UserError: there is none.
    """
    for step in reversed(store.steps(workdir / "checkpoints")):
        try:
            return from_checkpoint(workdir / "checkpoints" / str(step))
        except store.BrokenCheckpoint as error:
            _LOG.info(f"checkpoint {step} is broken ({error}), the one before is taken")
    raise UserError(f"there is no checkpoint that can be read in {workdir}/checkpoints; train further, or take another")


def from_checkpoint(path: Path) -> Pretrained:
    """The model of one checkpoint, `DIR/STEP`.

    Raises:
      BrokenCheckpoint: it cannot be read back as it was written.
      UserError: it contradicts itself.
    """
    params, meta = store.read_params(path)
    with tempfile.TemporaryDirectory() as folder:
        store.write_tokenizer(meta.tokenizer.files, Path(folder))
        try:
            tokenizer = load_tokenizer(folder)
        except UserError as error:
            raise UserError(f"{path}: its tokenizer cannot be used ({error}); {CURE}") from error
    if problem := _contradiction(params, meta, tokenizer):
        raise UserError(f"{path}: contradicts itself ({problem}); {CURE}")
    return Pretrained(
        path=path,
        config=_as_trained(meta.config, meta.step),
        params=params,
        tokenizer=tokenizer,
        tokenizer_files=meta.tokenizer.files,
        step=meta.step,
        task=meta.task,
        sentence=meta.sentence,
    )


def _contradiction(params: Any, meta: CheckpointMeta, tokenizer: Tokenizer) -> str:
    """What of a checkpoint cannot be true beside the rest; "" where all can."""
    model, task = meta.config.model, meta.task
    if tokenizer.vocab_size > model.vocab_size:
        return f"its tokenizer has {tokenizer.vocab_size} entries, its model {model.vocab_size}"
    if task and kind_named(task.kind).has_classes:
        outputs = params["task_head"]["bias"].shape[-1] if "task_head" in params else len(task.labels)
        if outputs != len(task.labels):
            return f"its head has {outputs} outputs for {len(task.labels)} labels"
    encoder = {name: params[name] for name in ("embeddings", "encoder") if name in params}
    found = {name: leaf.shape for name, leaf in named_leaves(encoder).items()}
    expected = encoder_shapes(model)
    for name in sorted(expected.keys() | found.keys()):
        if found.get(name) != expected.get(name):
            shapes = [shape or "no such parameter" for shape in (found.get(name), expected.get(name))]
            return f"{name}: {shapes[0]} in the checkpoint, {shapes[1]} by its config"
    return ""


def _as_trained(config: Config, step: int) -> Config:
    """`config` with the model as it was trained until `step`: a phase may have a rotary base of its own."""
    if not any(phase.global_rope_theta for phase in config.phases):
        return config
    trained = config.in_phase(config.phases[config.locate(max(0, step - 1))[0]])
    phases = tuple(dataclasses.replace(phase, global_rope_theta=0.0) for phase in config.phases)
    return dataclasses.replace(trained, phases=phases)
