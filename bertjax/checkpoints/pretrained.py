"""A trained model with its tokenizer and configs, loaded from checkpoints and saved as one."""

import dataclasses
import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from bertjax.arrays.trees import named_leaves
from bertjax.arrays.types import Params
from bertjax.checkpoints import store
from bertjax.checkpoints.checksums import checksums
from bertjax.checkpoints.meta import REMEDY, CheckpointMeta, StoredTokenizer
from bertjax.config.pretraining import Config
from bertjax.errors import UserError
from bertjax.model.shapes import encoder_shapes
from bertjax.tasks.kinds.catalog import KINDS, kind_named
from bertjax.tasks.metadata import SentenceMetadata, TaskMetadata
from bertjax.text.tokenizer import Tokenizer, load_tokenizer

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """Parameters with everything needed to use them."""

    path: Path  # of the folder they were loaded from
    config: Config  # of the run; for an imported model only `model` and the task of pairs are meaningful
    params: Params  # NumPy arrays
    tokenizer: Tokenizer
    tokenizer_files: Mapping[str, str]  # name → base64
    step: int
    task: TaskMetadata | None = None  # None: not fine-tuned
    sentence: SentenceMetadata | None = None  # None: unknown
    extensions: Mapping[str, str] = dataclasses.field(default_factory=dict)  # what was registered → its module
    untrained_heads: tuple[str, ...] = ()  # heads of pre-training that the source lacks: their parameters are random

    @property
    def lacks_masked_lm_head(self) -> bool:
        """Whether the source has no masked-LM head, so that the one in `params` is random."""
        return "masked_lm_head" in self.untrained_heads

    def fingerprint(self, parts: Sequence[str] = ()) -> str:
        """Returns a digest that is equal for equal outputs, of all parameters or of `parts` of them."""
        sums = checksums({name: self.params[name] for name in parts or self.params})
        fields = dataclasses.asdict(self.config.model)
        # Without the settings of dropout and initialization, and `model_type`: outputs do not depend on them.
        computed = {name: fields[name] for name in fields if not name.endswith(("_prob", "_range", "_type"))}
        return hashlib.sha256(json.dumps([sums, computed], sort_keys=True).encode()).hexdigest()


def tokenizer_files(tokenizer: Tokenizer) -> dict[str, str]:
    """Returns the files that a tokenizer is saved as, name → base64."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(folder)
        return store.tokenizer_files(Path(folder))


def check_pretraining(model: Pretrained) -> None:
    """Checks that a model is not fine-tuned and thus has the heads of pre-training.

    Raises:
      UserError: the model is fine-tuned.
    """
    if model.task is not None:
        raise UserError(
            f"{model.path}: fine-tuned ({model.task.kind}), has no heads of pre-training; use the model that it was "
            "fine-tuned from"
        )


def check_masked_lm(model: Pretrained) -> None:
    """Checks that a model predicts masked tokens: it is not fine-tuned, and its masked-LM head is trained.

    Raises:
      UserError: the model is fine-tuned, or its source has no masked-LM head.
    """
    check_pretraining(model)
    if model.lacks_masked_lm_head:
        raise UserError(
            f"{model.path}: the model has no masked-LM head (its source lacks one); train it first (config.init_from), "
            "or use a model with one"
        )


def save(directory: str | Path, model: Pretrained) -> Path:
    """Writes a workdir with one checkpoint of parameters at step `model.step`; returns the checkpoint's path.

    Raises:
      UserError: the directory is not empty, or cannot be written.
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
        for name in ("checkpoints", "tokenizer"):  # an incomplete model would block the next attempt
            shutil.rmtree(directory / name, ignore_errors=True)
        if isinstance(error, OSError):
            raise UserError(
                f"{directory}: cannot be written ({error.strerror}); fix the cause, or choose another folder"
            ) from error
        raise
    return target


def overwrite(directory: str | Path, model: Pretrained) -> Path:
    """Writes the checkpoint of step `model.step` into a workdir and removes all others; returns its path.

    Raises:
      UserError: the checkpoint cannot be written.
    """
    folder = Path(directory).absolute() / "checkpoints"
    target = folder / str(model.step)
    shutil.rmtree(target, ignore_errors=True)  # left by a killed process
    store.write_params(target, model.params, _meta(model))
    for step in store.steps(folder):
        if step != model.step:
            shutil.rmtree(folder / str(step))
    return target


def _meta(model: Pretrained) -> CheckpointMeta:
    tokenizer = StoredTokenizer(model.tokenizer.hash(), model.tokenizer_files)
    return CheckpointMeta(
        model.config,
        tokenizer,
        task=model.task,
        sentence=model.sentence,
        extensions=model.extensions,
        untrained_heads=model.untrained_heads,
    )


def load_workdir(workdir: Path) -> Pretrained:
    """Loads the model of the last readable checkpoint of a run.

    Raises:
      UserError: there is no readable checkpoint.
    """
    for step in reversed(store.steps(workdir / "checkpoints")):
        try:
            return load_checkpoint(workdir / "checkpoints" / str(step))
        except store.BrokenCheckpoint as error:
            _LOG.info(f"checkpoint {step} is broken ({error}); using the one before")
    raise UserError(
        f"{workdir}/checkpoints: no readable checkpoint; continue the training until it saves one, or give another "
        "model"
    )


def load_checkpoint(path: Path) -> Pretrained:
    """Loads the model of one checkpoint, `DIR/STEP`.

    Raises:
      BrokenCheckpoint: the checkpoint is damaged or incomplete.
      UserError: its parts contradict each other.
    """
    params, meta = store.read_params(path)
    with tempfile.TemporaryDirectory() as folder:
        store.write_tokenizer(meta.tokenizer.files, Path(folder))
        try:
            tokenizer = load_tokenizer(folder)
        except UserError as error:
            raise UserError(f"{path}: its tokenizer cannot be used ({error}); {REMEDY}") from error
    if meta.task:
        KINDS.require(meta.task.kind, meta.extensions.get("task kind", ""), str(path))
    if problem := _contradiction(params, meta, tokenizer):
        raise UserError(f"{path}: {problem}; {REMEDY}")
    return Pretrained(
        path=path,
        config=_config_at_step(meta.config, meta.step),
        params=params,
        tokenizer=tokenizer,
        tokenizer_files=meta.tokenizer.files,
        step=meta.step,
        task=meta.task,
        sentence=meta.sentence,
        extensions=meta.extensions,
        untrained_heads=meta.untrained_heads,
    )


def _contradiction(params: Params, meta: CheckpointMeta, tokenizer: Tokenizer) -> str:
    """Describes a contradiction between the parts of a checkpoint; "" if there is none."""
    model, task = meta.config.model, meta.task
    if tokenizer.vocab_size > model.vocab_size:
        return f"its tokenizer has {tokenizer.vocab_size} entries, its model {model.vocab_size}"
    if task and kind_named(task.kind).has_classes:
        outputs = params["task_head"]["bias"].shape[-1] if "task_head" in params else len(task.labels)
        if outputs != len(task.labels):
            return f"its head has {outputs} outputs for {len(task.labels)} labels"
    encoder = {name: params[name] for name in ("embeddings", "encoder") if name in params}
    actual = {name: leaf.shape for name, leaf in named_leaves(encoder).items()}
    expected = encoder_shapes(model)
    for name in sorted(expected.keys() | actual.keys()):
        if actual.get(name) != expected.get(name):
            shapes = [shape or "no such parameter" for shape in (actual.get(name), expected.get(name))]
            return f"{name}: {shapes[0]} in the checkpoint, {shapes[1]} by its config"
    return ""


def _config_at_step(config: Config, step: int) -> Config:
    """Returns `config` with the model as trained at `step`: phases may have different rotary bases."""
    if not any(phase.global_rope_theta for phase in config.phases):
        return config
    trained = config.for_phase(config.phases[config.locate(max(0, step - 1))[0]])
    phases = tuple(dataclasses.replace(phase, global_rope_theta=0.0) for phase in config.phases)
    return dataclasses.replace(trained, phases=phases)
