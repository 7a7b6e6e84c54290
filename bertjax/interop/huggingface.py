"""Reads and writes models as Hugging Face folders: `config.json`, `model.safetensors` and tokenizer files.

`pytorch_model.bin` and Google's TensorFlow checkpoints are read, but not written.
"""

import functools
import json
import logging
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bertjax.arrays.trees import tree_bytes
from bertjax.arrays.types import Params
from bertjax.checkpoints import store
from bertjax.checkpoints.pretrained import Pretrained
from bertjax.config.model import ModelConfig
from bertjax.errors import UserError
from bertjax.interop import configs, export_seal, sentence_transformers, weights
from bertjax.interop.families import FAMILIES, Family
from bertjax.interop.parameter_map import TensorMapping, finetuned_mappings, pretraining_mappings
from bertjax.model.pretraining import PretrainingModel, pairs_of
from bertjax.storage.files import check_room
from bertjax.tasks.kinds.catalog import kind_named
from bertjax.tasks.metadata import SentenceMetadata, TaskMetadata

_LOG = logging.getLogger(__name__)


class ImportedModel(NamedTuple):
    """The model of a folder."""

    config: ModelConfig
    params: Params  # f32, NumPy
    task: TaskMetadata | None  # None: not fine-tuned
    untrained_heads: tuple[str, ...]  # heads of pre-training that the folder lacks


def import_model(folder: str | Path) -> ImportedModel:
    """Returns the model in a folder.

    Accepts encoders without heads (BertModel, RobertaModel, …), pre-training models and fine-tuned models of all
    families, with or without the encoder's prefix (`bert.`), the old names `gamma` and `beta`, and Google's TensorFlow
    checkpoints. Missing pre-training heads are initialized from a fixed key. Without a pooler in the folder, or a
    sentence-pair task in the family, the model has no sentence-pair head.

    The task is None for a pre-trained model. A fine-tuned model, recognized by its class, has a task with `name` ("" if
    unknown), `kind` and `labels`, and a `task_head` instead of the pre-training heads.

    Tensors without a counterpart in the model are ignored. Both these and new heads are logged.

    Raises:
      UserError: there is no model, it needs computations that bertjax lacks, or its files are damaged.
    """
    folder = Path(folder)
    export_seal.check_seal(folder)
    config, task, pad_id = configs.read_config(folder)
    family = FAMILIES[config.model_type]
    file_tensors, path = weights.read_weights(folder)
    renamed = {_current_name(name, family): tensor for name, tensor in file_tensors.items()}
    tensors = _without_tied_copies(renamed, family, folder)
    pairs = family.pair_task if f"{family.prefix}{family.pooler}.weight" in tensors else ""
    mappings = _mappings(config, task, pairs, pad_id)
    new_params = functools.partial(_new_params, config, task, pairs)
    new_heads = [] if task else _missing_heads(mappings, tensors)
    stored = [mapping for mapping in mappings if mapping.path[0] not in new_heads]
    abstract = jax.eval_shape(new_params)
    _check_tensors(abstract, stored, tensors, path)
    params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), abstract)
    for parameter, tensor in _views(stored, params, tensors):
        parameter[...] = tensor
    if new_heads:
        heads = jax.jit(lambda: {head: new_params()[head] for head in new_heads})()
        params |= jax.tree.map(np.array, heads)
        missing = [mapping.tensor for mapping in mappings if mapping.path[0] in new_heads]
        _LOG.info(f"{folder}: {_list(missing)} missing, initialized randomly; train the model before it fills masks")
    if unused := sorted(tensors.keys() - {mapping.tensor for mapping in mappings}):
        _LOG.info(f"{folder}: ignored {_list(unused)}, which the model does not have")
    return ImportedModel(config, params, task, tuple(new_heads))


def export_model(model: Pretrained, output: str | Path) -> None:
    """Writes a folder that `transformers` loads, and `sentence-transformers` if the model's pooling is known.

    A pre-trained model is written as the pre-training class of its `model_type`: BertForPreTraining or
    AlbertForPreTraining if it has a pooler, else …ForMaskedLM. Heads that were never trained are left out; without any
    trained head it is the encoder's class, such as BertModel. A fine-tuned model is written as the class of its kind of
    task. The weights are f32 and bit-for-bit identical to the model's. The folder is renamed to `output` once it is
    complete.

    Raises:
      UserError: `output` exists and is not empty, or cannot be written, or `transformers` has no such model.
    """
    output = Path(output).absolute()
    config, params, task, pad_id = model.config.model, model.params, model.task, model.tokenizer.pad_id
    features = task.features if task else ""
    if features not in ("", "last"):
        raise UserError(
            f"{model.path}: the model is feature-based ({features}), which transformers does not support; fine-tune "
            "with features=last"
        )
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output}: already exists; choose another folder")
    if task and (source := model.extensions.get("task kind")):
        _LOG.warning(
            f"{output}: the export is a {kind_named(task.kind).transformers_class}, without the code of the task kind "
            f"{task.kind} in {source}"
        )
    pairs = pairs_of(params)
    mappings = [m for m in _mappings(config, task, pairs, pad_id) if m.path[0] not in model.untrained_heads]
    encoder_only = not any(mapping.path[0].endswith("_head") for mapping in mappings)
    values = configs.config_values(config, task, pairs, pad_id, encoder_only)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        check_room(output.parent, "folder", tree_bytes(params), "the model")
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as scratch:
            folder = Path(scratch) / "export"
            folder.mkdir()
            _write_weights(mappings, params, folder / weights.SAFETENSORS)
            content = json.dumps(values | export_seal.KEYS, indent=2, ensure_ascii=False)
            (folder / "config.json").write_text(content + "\n", encoding="utf-8")
            length = config.max_position_embeddings
            sentence = model.sentence or (task.sentence if task else None)
            if sentence or (task and kind_named(task.kind).bi_encoder):
                sentence = sentence or SentenceMetadata()
                length = sentence.length or (task.limits.length if task and task.limits else length)
                dense = params.get("sentence_dense", {})
                sentence_transformers.write(folder, config.hidden_size, length, sentence, dense)
            store.write_tokenizer(model.tokenizer_files, folder)
            model.tokenizer.save(folder, length)  # adds settings that transformers needs
            export_seal.write_seal(folder)
            if output.exists():
                output.rmdir()
            folder.rename(output)
    except OSError as error:
        raise UserError(
            f"{output}: cannot be written ({error.strerror or error}); free space, or choose another folder"
        ) from error


def _mappings(config: ModelConfig, task: TaskMetadata | None, pairs: str, pad_id: int) -> list[TensorMapping]:
    if task:
        return finetuned_mappings(config, kind_named(task.kind), pad_id)
    return pretraining_mappings(config, bool(pairs), pad_id)


def _write_weights(mappings: list[TensorMapping], params: Params, path: Path) -> None:
    from safetensors.numpy import save

    tensors = {name: np.zeros(shape, np.float32) for name, shape in _tensor_shapes(mappings, params).items()}
    for parameter, tensor in _views(mappings, params, tensors):
        tensor[...] = parameter
    path.write_bytes(save(tensors, metadata={"format": "pt"}))


def _tensor_shapes(mappings: list[TensorMapping], params: Params) -> dict[str, tuple[int, ...]]:
    """The shapes of the mapped tensors; `params` may be abstract."""
    shapes: dict[str, tuple[int, ...]] = {}
    for mapping in mappings:
        shape = _leaf(params, mapping.path).shape
        shape = shape if mapping.repeat is None else shape[1:]
        rows, *rest = shape[::-1] if mapping.transposed else shape
        end = mapping.begin + (rows if mapping.rows is None else mapping.rows)
        previous_end = shapes.get(mapping.tensor, (0,))[0]
        shapes[mapping.tensor] = (max(previous_end, end), *rest)
    return shapes


def _current_name(name: str, family: Family) -> str:
    """A tensor's name in the family's current classes with heads."""
    name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
    name = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)
    return family.prefix + name if name.startswith(family.encoder_prefixes) else name


def _without_tied_copies(tensors: dict[str, np.ndarray], family: Family, folder: Path) -> dict[str, np.ndarray]:
    """Drops the tensors that tying duplicates, after checking that they are equal."""
    originals = {
        f"{family.decoder}.weight": f"{family.prefix}{family.word_embeddings}.weight",
        f"{family.decoder}.bias": family.masked_lm[2],
    }
    tensors = dict(tensors)
    for copy, original in originals.items():
        if copy not in tensors or copy == original:
            continue
        tensor = tensors.pop(copy)
        if not np.array_equal(tensors.setdefault(original, tensor), tensor):
            raise UserError(
                f"{folder}: {copy} differs from {original}; bertjax supports only decoders that are tied to the "
                "embeddings"
            )
    return tensors


def _missing_heads(mappings: list[TensorMapping], tensors: Mapping[str, np.ndarray]) -> list[str]:
    """The pre-training heads without any tensor."""
    heads = dict.fromkeys(mapping.path[0] for mapping in mappings if mapping.path[0].endswith("_head"))
    stored = {mapping.path[0] for mapping in mappings if mapping.tensor in tensors}
    return [head for head in heads if head not in stored]


def _check_tensors(
    abstract: Params, mappings: list[TensorMapping], tensors: Mapping[str, np.ndarray], path: Path
) -> None:
    """Checks that all tensors are present, finite and of the config's shapes, before parameters are allocated."""
    if missing := [mapping.tensor for mapping in mappings if mapping.tensor not in tensors]:
        raise UserError(
            f"{path}: lacks {_list(missing)}; download the folder again, restore it from a copy, or correct its config"
        )
    for name, expected in _tensor_shapes(mappings, abstract).items():
        if tensors[name].shape != expected:
            raise UserError(
                f"{path}: {name} has shape {tensors[name].shape}, but the config says {expected}; download "
                "the folder again, restore it from a copy, or correct its config"
            )
        if not np.isfinite(tensors[name]).all():
            raise UserError(
                f"{path}: {name} holds numbers that are not finite; download the folder again, or restore it from a "
                "copy"
            )


def _new_params(config: ModelConfig, task: TaskMetadata | None, pairs: str) -> Params:
    """The parameters of a new model, from a fixed key."""
    model = kind_named(task.kind).model(config, task.labels) if task else PretrainingModel(config, pairs)
    inputs = ("input_ids", "token_type_ids", "attention_mask", "masked_lm_positions")
    batch = dict.fromkeys(inputs, jnp.zeros((1, 1), jnp.int32))
    return dict(model.init(jax.random.key(0), batch)["params"])


def _views(
    mappings: list[TensorMapping], params: Params, tensors: Mapping[str, np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields for each mapping views of the parameter and the tensor, of equal shape and orientation."""
    for mapping in mappings:
        array = np.asarray(_leaf(params, mapping.path))
        array = array if mapping.repeat is None else array[mapping.repeat]
        array = array if mapping.rows is None else array[: mapping.rows]
        parameter = array.T if mapping.transposed else array
        yield parameter, tensors[mapping.tensor][mapping.begin : mapping.begin + len(parameter)]


def _leaf(params: Params, path: tuple[str, ...]) -> np.ndarray | jax.Array | jax.ShapeDtypeStruct:
    *modules, name = path
    for module in modules:
        params = params[module]
    return params[name]


def _list(names: list[str]) -> str:
    """The first names, and the number of the others."""
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
