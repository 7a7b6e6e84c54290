"""Reads and writes `config.json` of a Hugging Face folder, or Google's `bert_config.json`: the model and its task."""

import dataclasses
import functools
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

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

_REMEDY = "download the folder again, restore it from a copy, or set the values that the model was trained with"
_MAX_LABELS = 1_000_000
# Bounded: the names of all parameters are listed before the weights are read.
_LayerCount = Annotated[int, msgspec.Meta(ge=1, le=10_000)]
_TYPES = {
    int: Size,
    float: Annotated[float, msgspec.Meta(ge=-1, le=1e9)],
    str: ShortText,
}
# Other names of `transformers` for the same functions; the approximations differ in rounding only.
_ACTIVATION_ALIASES = {
    "gelu_python": "gelu",
    "gelu_pytorch_tanh": "gelu_new",
    "gelu_python_tanh": "gelu_new",
    "gelu_fast": "gelu_new",
    "gelu_accurate": "gelu_new",
}
# Fields of ModelConfig, which carry Hugging Face's names. The required ones have no safe default there.
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
_NON_ZERO = ("type_vocab_size", "embedding_size", "num_hidden_groups")  # unless the family fixes them
# Options of all families that bertjax lacks, and the only supported value.
_UNSUPPORTED_OPTIONS = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "inner_group_num": 1,
}


def read_config(folder: Path) -> tuple[ModelConfig, TaskMetadata | None, int]:
    """Returns the ModelConfig of a folder, the task of a fine-tuned model (name, kind, labels) and the padding id.

    `transformers` loads a config without `model_type` by the class it is given. Here the family is inferred from the
    architectures or the tensor names.

    Raises:
      UserError: the config is missing, unreadable, of another family, or needs computations that bertjax lacks.
    """
    path = folder / "config.json"
    if not path.is_file() and (folder / "bert_config.json").is_file():
        path = folder / "bert_config.json"
    if not path.is_file():
        raise UserError(
            f"{folder}: no config.json or bert_config.json; give the folder of a Hugging Face model or of a TensorFlow "
            "checkpoint"
        )
    values = decoding.read(path, dict[str, object], _REMEDY, foreign=True)
    if path.name == "bert_config.json":
        values = {"model_type": "bert"} | values
    header = decoding.convert(values, _Header, path, _REMEDY, foreign=True)
    model_type = header.model_type or _infer_model_type(header, folder, path)
    if model_type not in FAMILIES:
        raise UserError(f"{path}: unsupported model_type {model_type!r}; expected one of {', '.join(FAMILIES)}")
    family = FAMILIES[model_type]
    pad_id = family.pad_id if header.pad_token_id is None else header.pad_token_id
    return _model_config(model_type, {**family.defaults, **values}, pad_id, path), _task(family, header, path), pad_id


@dataclasses.dataclass(frozen=True)
class _Header:
    """The keys of a config of any family, except those of the model's shape."""

    model_type: ShortText | None = None
    architectures: list[ShortText] | None = None
    pad_token_id: Annotated[int, msgspec.Meta(ge=0, lt=2**31)] | None = None
    id2label: dict[ShortText, ShortText | int | float | bool | None] | None = None
    num_labels: Size | None = None
    problem_type: ShortText | None = None
    finetuning_task: ShortText | None = None

    @property
    def architecture(self) -> str:
        """The class that the model was saved as; "" if unknown."""
        return next(iter(self.architectures or ()), "")


def _infer_model_type(header: _Header, folder: Path, path: Path) -> str:
    for model_type, family in FAMILIES.items():
        if re.fullmatch(f"{family.class_prefix}(Model|For[A-Z].*)", header.architecture):
            return model_type
    tensors, _ = weights.read_weights(folder)
    candidates = [
        model_type
        for model_type, family in FAMILIES.items()
        if any(name.startswith(family.unique_prefixes) for name in tensors)
    ]
    if len(candidates) != 1:
        raise UserError(
            f"{path}: no model_type, and neither architectures nor tensor names identify it; add "
            f'"model_type": "bert" (or {", ".join(FAMILIES)})'
        )
    return candidates[0]


def config_values(
    config: ModelConfig, task: TaskMetadata | None, pairs: str, pad_id: int, encoder_only: bool = False
) -> dict[str, object]:
    """Returns the content of `config.json` for an exported model.

    Args:
      config: the model.
      task: the task of a fine-tuned model, as `read_config` returns it.
      pairs: the sentence-pair task that the model has a head for; "" for none.
      pad_id: the id of the padding token.
      encoder_only: whether the model is exported without any head.

    Raises:
      UserError: `transformers` cannot represent the model.
    """
    family = FAMILIES[config.model_type]
    class_name = f"{family.class_prefix} in transformers"
    required = [f"model.{name}={value!r}" for name, value in family.fixed.items() if getattr(config, name) != value]
    required += [f"model.{name}>0" for name in _NON_ZERO if not (getattr(config, name) or name in family.fixed)]
    if required:
        raise UserError(
            f"model.model_type={config.model_type}: {class_name} requires {', '.join(required)}; choose the "
            "model.model_type that fits, or use the model with bertjax only"
        )
    if pairs not in ("", family.pair_task):
        raise UserError(
            f"model.model_type={config.model_type}: {class_name} has no head for {pairs}; pre-train a new "
            f"model with --config.{pairs}=False, or use this one with bertjax only"
        )
    values = {key: getattr(config, field) for field, key in _config_keys(family).items()}
    values["max_position_embeddings"] += family.position_offset(pad_id)
    kind = kind_named(task.kind) if task else None
    return {
        "architectures": [family.encoder_class if encoder_only else family.class_name(kind, bool(pairs))],
        "model_type": config.model_type,
        **values,
        **family.constants,
        **family.config_values(config),
        "pad_token_id": pad_id,
        "tie_word_embeddings": True,
        "dtype": "float32",
        **(_task_values(task) if task else {}),
    }


def _config_keys(family: Family) -> dict[str, str]:
    """Field of ModelConfig → key of a config of the family."""
    return {name: family.config_keys.get(name, name) for name in _REQUIRED + _OPTIONAL if name not in family.fixed}


@functools.cache
def _shape_struct(model_type: str) -> type:
    """The type of the keys of a family's config that hold fields of ModelConfig."""
    family, fields = FAMILIES[model_type], []
    for name, key in _config_keys(family).items():
        value_type = _LayerCount if name == "num_hidden_layers" else _TYPES[type(getattr(ModelConfig(), name))]
        fields.append((key, value_type, *([] if name in _REQUIRED else [msgspec.UNSET])))
    return msgspec.defstruct(f"{family.class_prefix}Config", fields, kw_only=True)


def _model_config(model_type: str, values: Mapping[str, object], pad_id: int, path: Path) -> ModelConfig:
    family = FAMILIES[model_type]
    for key, supported in {**_UNSUPPORTED_OPTIONS, **family.fixed, **family.constants}.items():
        if values.get(key, supported) != supported:
            raise UserError(
                f"{path}: {key}={values[key]!r} is not supported; bertjax's {family.class_prefix} has only "
                f"{supported!r}"
            )
    if not values.get("tie_word_embeddings", True):
        raise UserError(
            f"{path}: tie_word_embeddings=false is not supported; bertjax ties the decoder to the embeddings"
        )
    shape = decoding.convert(values, _shape_struct(model_type), path, _REMEDY, foreign=True)
    fields = {name: getattr(shape, key) for name, key in _config_keys(family).items()}
    fields = {name: value for name, value in fields.items() if value is not msgspec.UNSET}
    if activation := fields.get("hidden_act"):
        fields["hidden_act"] = _ACTIVATION_ALIASES.get(activation, activation)
    fields["max_position_embeddings"] -= family.position_offset(pad_id)
    family_fields = family.read_config(values, path) | dict(family.fixed)
    config = dataclasses.replace(ModelConfig(model_type=model_type), **fields, **family_fields)
    if config.hidden_act not in ACTIVATIONS:
        raise UserError(
            f"{path}: hidden_act={config.hidden_act!r} is not supported; expected one of {', '.join(ACTIVATIONS)}"
        )
    if config.hidden_size % config.num_attention_heads:
        raise UserError(
            f"{path}: hidden_size {config.hidden_size} is not a multiple of "
            f"num_attention_heads {config.num_attention_heads}; {_REMEDY}"
        )
    try:
        validate(config, "model.")
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return config


def _task(family: Family, header: _Header, path: Path) -> TaskMetadata | None:
    """The task of a fine-tuned model, by the rules of `transformers`; None for a pre-trained one."""
    name = header.architecture
    kinds = [kind for kind in KINDS.builtin() if not kind.bi_encoder and family.class_name(kind) == name]
    if not kinds:
        return None
    labels = _labels(header, path) if any(kind.has_classes for kind in kinds) else []
    kind = kinds[0]
    if len(kinds) > 1:
        default = "regression" if len(labels) == 1 else "single_label_classification"
        problem_type = header.problem_type or default
        by_problem_type = {kind.problem_type: kind for kind in kinds}
        if problem_type not in by_problem_type:
            raise UserError(
                f"{path}: problem_type={problem_type!r} is not supported; expected one of {', '.join(by_problem_type)}"
            )
        kind = by_problem_type[problem_type]
    if labels and not kind.has_classes:
        if len(labels) != 1:
            raise UserError(f"{path}: {kind.name} with {len(labels)} outputs is not supported; bertjax's has one")
        labels = []
    return TaskMetadata(header.finetuning_task or "", kind.name, tuple(labels))


def _labels(header: _Header, path: Path) -> list[str]:
    """The names of the outputs in order; LABEL_0, LABEL_1, … if the config has none, as in `transformers`.

    `num_labels` takes precedence over an `id2label` of another size.
    """
    names = header.id2label
    if names is None or (header.num_labels is not None and header.num_labels != len(names)):
        if names is not None:
            _LOG.info(
                f"{path}: id2label has {len(names)} names for num_labels={header.num_labels}; using LABEL_0, LABEL_1, …"
            )
        count = 2 if header.num_labels is None else header.num_labels
        if count > _MAX_LABELS:
            raise UserError(f"{path}: num_labels={count} is too large; expected at most {_MAX_LABELS:,}")
        return [f"LABEL_{i}" for i in range(count)]
    if not names or set(names) != {str(i) for i in range(len(names))}:
        raise UserError(
            f"{path}: the keys of id2label are not exactly 0, 1, …; restore the labels that the model was trained with"
        )
    return [str(names[str(i)]) for i in range(len(names))]


def _task_values(task: TaskMetadata) -> dict[str, object]:
    """The keys of a config that describe a task; `transformers` has defaults for the others."""
    kind, labels = kind_named(task.kind), list(task.labels)
    values: dict[str, object] = {"finetuning_task": task.name} if task.name else {}
    if kind.problem_type:
        values["problem_type"] = kind.problem_type
        labels = labels or ["LABEL_0"]
    if labels:
        values["id2label"] = {str(i): label for i, label in enumerate(labels)}
        values["label2id"] = {label: i for i, label in enumerate(labels)}
    return values
