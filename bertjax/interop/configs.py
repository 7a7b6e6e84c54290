"""`config.json` of a Hugging Face folder (`bert_config.json` in Google's checkpoints): the model, and its task."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bertjax.config.model import ACTIVATIONS, ModelConfig
from bertjax.config.validation import validate
from bertjax.errors import UserError
from bertjax.interop.families import FAMILIES, Family
from bertjax.tasks.kinds.catalog import KINDS, kind_named
from bertjax.tasks.metadata import TaskMetadata

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

    Raises:
      UserError: there is no config, it is unreadable, of another family, or asks for mathematics that bertjax does not
        have.
    """
    path = folder / "config.json"
    if not path.is_file() and (folder / "bert_config.json").is_file():
        path = folder / "bert_config.json"
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(
            f"there is no {path}; give the folder of a Hugging Face model, or of a TensorFlow checkpoint with its "
            "bert_config.json"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); get the folder again") from error
    if isinstance(values, dict) and path.name == "bert_config.json":
        values = {"model_type": "bert"} | values
    kind = values.get("model_type") if isinstance(values, dict) else None
    if kind not in FAMILIES:
        raise UserError(f"{path} describes a model of type {kind!r}; bertjax has {', '.join(FAMILIES)}")
    pad_id = values.get("pad_token_id", FAMILIES[kind].pad_id)
    if type(pad_id) is not int or pad_id < 0:
        raise UserError(f"{path} has pad_token_id={pad_id!r}; expected the id of padding")
    return _model(values, pad_id, path), _task(values, path), pad_id


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


def _model(values: Mapping[str, Any], pad_id: int, path: Path) -> ModelConfig:
    family = FAMILIES[values["model_type"]]
    values = family.defaults | values
    for key, only in (_OTHER_MATHEMATICS | dict(family.fixed) | dict(family.constants)).items():
        if values.get(key, only) != only:
            raise UserError(f"{path} has {key}={values[key]!r}; bertjax's {family.classes} has only {only!r}")
    if not values.get("tie_word_embeddings", True):
        raise UserError(f"{path} has tie_word_embeddings=false; bertjax ties the decoder to the embeddings")
    keys = _keys(family)
    if missing := [keys[key] for key in _REQUIRED if keys[key] not in values]:
        raise UserError(f"{path} lacks {', '.join(missing)}; get the folder again")
    config = _checked_config({ours: values[theirs] for ours, theirs in keys.items() if theirs in values}, path)
    settled = family.read(values, path) | dict(family.fixed)
    places = config.max_position_embeddings - family.position_offset(pad_id)
    config = dataclasses.replace(config, model_type=values["model_type"], max_position_embeddings=places, **settled)
    try:
        validate(config, "model.")
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return config


def _checked_config(values: dict[str, Any], path: Path) -> ModelConfig:
    for key, value in values.items():
        default = getattr(ModelConfig(), key)
        fits = isinstance(value, (int, float) if isinstance(default, float) else type(default))
        if not fits or isinstance(value, bool) or (isinstance(default, int) and not 1 <= value < 2**31):
            raise UserError(f"{path} has {key}={value!r}; expected a value like {default!r}")
        if isinstance(default, float):
            values[key] = float(value)
    config = ModelConfig(**values)
    if config.hidden_act not in ACTIVATIONS:
        raise UserError(f"{path} has hidden_act={config.hidden_act!r}; bertjax has {', '.join(ACTIVATIONS)}")
    if config.hidden_size % config.num_attention_heads:
        raise UserError(
            f"{path}: hidden_size {config.hidden_size} is no multiple of "
            f"num_attention_heads {config.num_attention_heads}"
        )
    return config


def _task(values: Mapping[str, Any], path: Path) -> TaskMetadata | None:
    """What the model is fine-tuned for, by the rules of `transformers`; None for a pre-trained one."""
    architectures = values.get("architectures") or [None]
    if not isinstance(architectures, list):
        raise UserError(f"{path} has architectures={architectures!r}; expected a list with the name of a class")
    family = FAMILIES[values["model_type"]]
    kinds = [kind for kind in KINDS.values() if not kind.bi_encoder and family.class_name(kind) == architectures[0]]
    if not kinds:
        return None
    labels = _labels(values, path) if any(kind.has_classes for kind in kinds) else []
    kind = kinds[0]
    if len(kinds) > 1:
        usual = "regression" if len(labels) == 1 else "single_label_classification"
        problem = values.get("problem_type") or usual
        by_problem = {kind.problem_type: kind for kind in kinds}
        if problem not in by_problem:
            raise UserError(f"{path} has problem_type={problem!r}; expected one of {', '.join(by_problem)}")
        kind = by_problem[problem]
    if labels and not kind.has_classes:
        if len(labels) != 1:
            raise UserError(f"{path}: a {kind.name} with {len(labels)} outputs; bertjax's has one")
        labels = []
    return TaskMetadata(str(values.get("finetuning_task") or ""), kind.name, tuple(labels))


def _labels(values: Mapping[str, Any], path: Path) -> list[str]:
    """The names of the outputs in their order; those that `transformers` gives where the config has none."""
    names = values.get("id2label")
    if names is None:
        number = values.get("num_labels", 2)
        if type(number) is not int or not 1 <= number < 2**31:
            raise UserError(f"{path} has num_labels={number!r}; expected the number of labels")
        return [f"LABEL_{i}" for i in range(number)]
    if not isinstance(names, dict) or not names or set(names) != {str(i) for i in range(len(names))}:
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
