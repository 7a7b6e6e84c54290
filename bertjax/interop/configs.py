"""`config.json` of a Hugging Face folder (`bert_config.json` in Google's checkpoints): the model, and its task."""

import dataclasses
import functools
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from bertjax import decoding
from bertjax.config.model import ACTIVATIONS, ModelConfig
from bertjax.config.validation import validate
from bertjax.decoding import ShortText, Size
from bertjax.errors import UserError
from bertjax.interop import weights
from bertjax.interop.families import FAMILIES, Family
from bertjax.tasks.kinds.catalog import KINDS, kind_named
from bertjax.tasks.metadata import TaskMetadata

_LOG = logging.getLogger(__name__)

_CURE = "get the folder again, or put it right as the model was trained"
_MAX_LABELS = 1_000_000
_LayerCount = Annotated[int, msgspec.Meta(ge=1, le=10_000)]  # whose parameters are named before weights are read
_TYPES = {
    int: Size,
    float: Annotated[float, msgspec.Meta(ge=-1, le=1e9)],
    str: ShortText,
}
# What `transformers` computes by other names; the approximations differ in rounding alone.
_SAME_ACTIVATIONS = {
    "gelu_python": "gelu",
    "gelu_pytorch_tanh": "gelu_new",
    "gelu_python_tanh": "gelu_new",
    "gelu_fast": "gelu_new",
    "gelu_accurate": "gelu_new",
}
# Our config fields carry Hugging Face's names; these have no default there that could be trusted.
_REQUIRED = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
)
_OPTIONAL = (
    "type_vocab_size",
    "embedding_size",
    "num_hidden_groups",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "attention_output_dropout_prob",
    "layer_norm_eps",
    "initializer_range",
)
_NEEDED = ("type_vocab_size", "embedding_size", "num_hidden_groups")  # that must not be 0, unless they are fixed
# What any of these models may have in theirs that ours have not.
_OTHER_MATHEMATICS = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "inner_group_num": 1,
}


def read(folder: Path) -> tuple[ModelConfig, TaskMetadata | None, int]:
    """The ModelConfig of a folder, the task (name, kind, labels) if its model is fine-tuned, and the id of padding.

    A config without `model_type`, as `transformers` loads it by the class that it is told, is of the family that its
    architectures or its tensors are named as.

    Raises:
      UserError: there is no config, it is unreadable, of another family, or asks for mathematics that bertjax does not
        have.
    """
    path = folder / "config.json"
    if not path.is_file() and (folder / "bert_config.json").is_file():
        path = folder / "bert_config.json"
    if not path.is_file():
        raise UserError(
            f"there is no {path}; give the folder of a Hugging Face model, or of a TensorFlow checkpoint with its "
            "bert_config.json"
        )
    values = decoding.read(path, dict[str, Any], _CURE, foreign=True)
    if path.name == "bert_config.json":
        values = {"model_type": "bert"} | values
    said = decoding.convert(values, _Said, path, _CURE, foreign=True)
    kind = said.model_type or _recognised(said, folder, path)
    if kind not in FAMILIES:
        raise UserError(f"{path} describes a model of type {kind!r}; bertjax has {', '.join(FAMILIES)}")
    family = FAMILIES[kind]
    values = family.defaults | values
    pad_id = family.pad_id if said.pad_token_id is None else said.pad_token_id
    return _model(kind, values, pad_id, path), _task(family, said, path), pad_id


@dataclasses.dataclass(frozen=True)
class _Said:
    """What a config of any family may say beside the model's shape."""

    model_type: ShortText | None = None
    architectures: list[ShortText] | None = None
    pad_token_id: Annotated[int, msgspec.Meta(ge=0, lt=2**31)] | None = None
    id2label: dict[ShortText, ShortText | int | float | bool | None] | None = None
    num_labels: Size | None = None
    problem_type: ShortText | None = None
    finetuning_task: ShortText | None = None

    @property
    def architecture(self) -> str:
        """The class that the model was saved as; "" where that is not said."""
        return next(iter(self.architectures or ()), "")


def _recognised(said: _Said, folder: Path, path: Path) -> str:
    """The family of a config without `model_type`."""
    for name, family in FAMILIES.items():
        if re.fullmatch(f"{family.classes}(Model|For[A-Z].*)", said.architecture):
            return name
    tensors, _ = weights.read(folder)
    found = [name for name, family in FAMILIES.items() if any(key.startswith(family.named) for key in tensors)]
    if len(found) != 1:
        raise UserError(
            f"{path} has no model_type, and its architectures and tensors do not show one; write "
            f'"model_type": "bert" (or {", ".join(FAMILIES)}) into it'
        )
    return found[0]


def written(config: ModelConfig, task: TaskMetadata | None, pairs: str, pad_id: int) -> dict[str, Any]:
    """The config of an exported model; `task` as `read` gives it, `pairs` is the task of its head for pairs.

    Raises:
      UserError: models of the family in `transformers` cannot be like this one.
    """
    family = FAMILIES[config.model_type]
    others = [f"model.{name}={only!r}" for name, only in family.fixed.items() if getattr(config, name) != only]
    others += [f"model.{name}>0" for name in _NEEDED if not (getattr(config, name) or name in family.fixed)]
    if others:
        raise UserError(
            f"the {family.classes} of transformers has {', '.join(others)}, which this model has not; choose the "
            "model.model_type that fits, or keep the model in bertjax"
        )
    if pairs not in ("", family.pairs):
        raise UserError(
            f"the {family.classes} of transformers has no head for {pairs}; pre-train with {pairs}=False, or keep the "
            "model in bertjax"
        )
    values = {theirs: getattr(config, ours) for ours, theirs in _keys(family).items()}
    values["max_position_embeddings"] += family.position_offset(pad_id)
    kind = kind_named(task.kind) if task else None
    return {
        "architectures": [family.class_name(kind, bool(pairs))],
        "model_type": config.model_type,
        **values,
        **family.constants,
        **family.written(config),
        "pad_token_id": pad_id,
        "tie_word_embeddings": True,
        "dtype": "float32",
        **(_task_values(task) if task else {}),
    }


def _keys(family: Family) -> dict[str, str]:
    """Ours → theirs, of the fields that a config of the family says."""
    return {key: family.keys.get(key, key) for key in _REQUIRED + _OPTIONAL if key not in family.fixed}


@functools.cache
def _shape(kind: str) -> type:
    """What a config of the family says of the fields of ModelConfig, by its own names."""
    family, fields = FAMILIES[kind], []
    for ours, theirs in _keys(family).items():
        needed = ours in _REQUIRED
        of_type = _LayerCount if ours == "num_hidden_layers" else _TYPES[type(getattr(ModelConfig(), ours))]
        fields.append((theirs, of_type, *([] if needed else [msgspec.UNSET])))
    return msgspec.defstruct(f"{family.classes}Config", fields, kw_only=True)


def _model(kind: str, values: Mapping[str, Any], pad_id: int, path: Path) -> ModelConfig:
    family = FAMILIES[kind]
    for key, only in (_OTHER_MATHEMATICS | dict(family.fixed) | dict(family.constants)).items():
        if values.get(key, only) != only:
            raise UserError(f"{path} has {key}={values[key]!r}; bertjax's {family.classes} has only {only!r}")
    if not values.get("tie_word_embeddings", True):
        raise UserError(f"{path} has tie_word_embeddings=false; bertjax ties the decoder to the embeddings")
    shape = decoding.convert(values, _shape(kind), path, _CURE, foreign=True)
    fields = {ours: getattr(shape, theirs) for ours, theirs in _keys(family).items()}
    fields = {ours: value for ours, value in fields.items() if value is not msgspec.UNSET}
    if act := fields.get("hidden_act"):
        fields["hidden_act"] = _SAME_ACTIVATIONS.get(act, act)
    settled = family.read(values, path) | dict(family.fixed)
    fields["max_position_embeddings"] -= family.position_offset(pad_id)
    config = ModelConfig(model_type=kind, **fields, **settled)
    if config.hidden_act not in ACTIVATIONS:
        raise UserError(f"{path} has hidden_act={config.hidden_act!r}; bertjax has {', '.join(ACTIVATIONS)}")
    if config.hidden_size % config.num_attention_heads:
        raise UserError(
            f"{path}: hidden_size {config.hidden_size} is no multiple of "
            f"num_attention_heads {config.num_attention_heads}; {_CURE}"
        )
    try:
        validate(config, "model.")
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return config


def _task(family: Family, said: _Said, path: Path) -> TaskMetadata | None:
    """What the model is fine-tuned for, by the rules of `transformers`; None for a pre-trained one."""
    name = said.architecture
    kinds = [kind for kind in KINDS.values() if not kind.bi_encoder and family.class_name(kind) == name]
    if not kinds:
        return None
    labels = _labels(said, path) if any(kind.has_classes for kind in kinds) else []
    kind = kinds[0]
    if len(kinds) > 1:
        usual = "regression" if len(labels) == 1 else "single_label_classification"
        problem = said.problem_type or usual
        by_problem = {kind.problem_type: kind for kind in kinds}
        if problem not in by_problem:
            raise UserError(f"{path} has problem_type={problem!r}; expected one of {', '.join(by_problem)}")
        kind = by_problem[problem]
    if labels and not kind.has_classes:
        if len(labels) != 1:
            raise UserError(f"{path}: a {kind.name} with {len(labels)} outputs; bertjax's has one")
        labels = []
    return TaskMetadata(said.finetuning_task or "", kind.name, tuple(labels))


def _labels(said: _Said, path: Path) -> list[str]:
    """The names of the outputs in their order; those that `transformers` gives where the config has none.

    It takes `num_labels` before an `id2label` of another size.
    """
    names = said.id2label
    if names is None or (said.num_labels is not None and said.num_labels != len(names)):
        if names is not None:
            _LOG.info(f"{path}: id2label has {len(names)} names for num_labels={said.num_labels}; they are left out")
        number = 2 if said.num_labels is None else said.num_labels
        if number > _MAX_LABELS:
            raise UserError(f"{path} has num_labels={number}; expected at most {_MAX_LABELS:,}")
        return [f"LABEL_{i}" for i in range(number)]
    if not names or set(names) != {str(i) for i in range(len(names))}:
        raise UserError(f"{path}: id2label has not exactly the keys 0, 1, …; put it right as the model was trained")
    return [str(names[str(i)]) for i in range(len(names))]


def _task_values(task: TaskMetadata) -> dict[str, Any]:
    """What a config says of a task; the rest is as `transformers` has it by default."""
    kind, labels = kind_named(task.kind), list(task.labels)
    values: dict[str, Any] = {"finetuning_task": task.name} if task.name else {}
    if kind.problem_type:
        values["problem_type"] = kind.problem_type
        labels = labels or ["LABEL_0"]
    if labels:
        values["id2label"] = {str(i): label for i, label in enumerate(labels)}
        values["label2id"] = {label: i for i, label in enumerate(labels)}
    return values
