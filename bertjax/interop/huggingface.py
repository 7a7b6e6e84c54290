"""Models from and to a Hugging Face folder: `config.json`, `model.safetensors`, tokenizer files.

Other weights (`pytorch_model.bin`, Google's TensorFlow checkpoints) are only read.
"""

import functools
import json
import logging
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bertjax.arrays.trees import size_of
from bertjax.checkpoints import store
from bertjax.checkpoints.pretrained import Pretrained
from bertjax.config.model import ModelConfig
from bertjax.errors import UserError
from bertjax.interop import configs, export_seal, sentence_transformers, weights
from bertjax.interop.families import FAMILIES, Family
from bertjax.interop.parameter_map import Name, fine_tuned_names, pretraining_names
from bertjax.model.pretraining import PretrainingModel, pairs_of
from bertjax.storage.files import check_room
from bertjax.tasks.kinds.catalog import kind_named
from bertjax.tasks.metadata import SentenceMetadata, TaskMetadata

_LOG = logging.getLogger(__name__)


def import_model(folder: str | Path) -> tuple[ModelConfig, dict[str, Any], TaskMetadata | None]:
    """The config, the f32 parameters (NumPy) and the task of the model in a folder.

    Takes the encoder of a family alone (BertModel, RobertaModel, …), with heads of pre-training and what is built on
    them, with or without the encoder's prefix (`bert.`) and with the old names `gamma` and `beta`, and Google's
    TensorFlow checkpoints. Heads of pre-training that the folder lacks are initialised afresh (always alike). A folder
    without a pooler, or of a family without a task of pairs, gives a model without.

    The classes that a kind of task names are fine-tuned models: the task has a `name` ("" where unknown), `kind` and
    `labels`, and there is a `task_head` in place of the heads of pre-training. Of other models it is None.

    Tensors that have no place in the model are left out, which is logged, as fresh heads are.

    Raises:
      UserError: no such model, one with other mathematics, or damaged files.
    """
    folder = Path(folder)
    export_seal.check(folder)
    config, task, pad_id = configs.read(folder)
    family = FAMILIES[config.model_type]
    found, where = weights.read(folder)
    tensors = _tied({_modern(name, family): tensor for name, tensor in found.items()}, family, folder)
    pairs = family.pairs if f"{family.base}{family.pooler}.weight" in tensors else ""
    names = _names(config, task, pairs, pad_id)
    new_params = functools.partial(_new_params, config, task, pairs)
    fresh = [] if task else _missing_heads(names, tensors)
    there = [name for name in names if name.path[0] not in fresh]
    abstract = jax.eval_shape(new_params)
    _check_tensors(abstract, there, tensors, where)
    params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), abstract)
    for ours, theirs in _views(there, params, tensors):
        ours[...] = theirs
    if fresh:
        heads = jax.jit(lambda: {head: new_params()[head] for head in fresh})()
        params |= jax.tree.map(np.array, heads)
        missing = [name.theirs for name in names if name.path[0] in fresh]
        _LOG.info(f"{folder} lacks {_list(missing)}: initialised afresh, train before use")
    if unused := sorted(tensors.keys() - {name.theirs for name in names}):
        _LOG.info(f"{folder}: left out {_list(unused)}, which the model has no place for")
    return config, params, task


def export_model(model: Pretrained, output: str | Path) -> None:
    """Writes a folder that `transformers` loads, as the class for pre-training of `model.config.model.model_type`.

    With a pooler this is BertForPreTraining or AlbertForPreTraining, else …ForMaskedLM. A fine-tuned model is written
    as the class of its task's kind. The weights are f32 and equal to the bit, beside them
    are the tokenizer's files. The folder appears only when it is whole. Where the model knows how texts become vectors,
    `sentence-transformers` loads the folder too.

    Raises:
      UserError: `output` is there already and not empty, or cannot be written, or `transformers` has no such model.
    """
    output = Path(output).absolute()
    config, params, task, pad_id = model.config.model, model.params, model.task, model.tokenizer.pad_id
    features = task.features if task else ""
    if features not in ("", "last"):
        raise UserError(f"the model is feature-based ({features}), which transformers has no class for; use last")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output} is there already; choose another folder")
    pairs = pairs_of(params)
    values = configs.written(config, task, pairs, pad_id)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        check_room(output.parent, "folder", size_of(params), "the model")
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as scratch:
            whole = Path(scratch) / "export"
            whole.mkdir()
            _write_weights(_names(config, task, pairs, pad_id), params, whole / weights.SAFETENSORS)
            content = json.dumps(values | export_seal.KEYS, indent=2, ensure_ascii=False)
            (whole / "config.json").write_text(content + "\n", encoding="utf-8")
            length = config.max_position_embeddings
            how = model.sentence or (task.sentence if task else None)
            if how or (task and kind_named(task.kind).bi_encoder):
                how = how or SentenceMetadata()
                length = how.length or (task.limits.length if task and task.limits else length)
                sentence_transformers.write(whole, config.hidden_size, length, how, params.get("sentence_dense"))
            store.write_tokenizer(model.tokenizer_files, whole)
            model.tokenizer.save(whole, length)  # what they say may be less than transformers needs
            export_seal.write(whole)
            if output.exists():
                output.rmdir()
            whole.rename(output)
    except OSError as error:
        raise UserError(
            f"cannot write {output}: {error.strerror or error}; free space or choose another folder"
        ) from error


def _names(config: ModelConfig, task: TaskMetadata | None, pairs: str, pad_id: int) -> list[Name]:
    if task:
        return fine_tuned_names(config, kind_named(task.kind), pad_id)
    return pretraining_names(config, bool(pairs), pad_id)


def _write_weights(names: list[Name], params: Mapping[str, Any], path: Path) -> None:
    from safetensors.numpy import save

    tensors = {theirs: np.zeros(shape, np.float32) for theirs, shape in _shapes(names, params).items()}
    for ours, theirs in _views(names, params, tensors):
        theirs[...] = ours
    path.write_bytes(save(tensors, metadata={"format": "pt"}))


def _shapes(names: list[Name], params: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shapes of their tensors that hold ours; of our parameters only the shapes are read."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name in names:
        shape = _leaf(params, name).shape
        shape = shape if name.repeat is None else shape[1:]
        rows, *rest = shape[::-1] if name.transposed else shape
        end = name.begin + (rows if name.rows is None else name.rows)
        before = shapes.get(name.theirs, (0,))[0]
        shapes[name.theirs] = (max(before, end), *rest)
    return shapes


def _modern(name: str, family: Family) -> str:
    """A tensor's name as the family's classes with heads have it today."""
    name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
    name = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)
    return family.base + name if name.startswith(family.prefixes) else name


def _tied(tensors: dict[str, np.ndarray], family: Family, folder: Path) -> dict[str, np.ndarray]:
    """Drops the copies that tying makes, once it is sure that they are copies."""
    copies = {
        f"{family.decoder}.weight": f"{family.base}{family.words}.weight",
        f"{family.decoder}.bias": family.masked_lm[2],
    }
    tensors = dict(tensors)
    for copy, original in copies.items():
        if copy not in tensors or copy == original:
            continue
        tensor = tensors.pop(copy)
        if not np.array_equal(tensors.setdefault(original, tensor), tensor):
            raise UserError(f"{folder}: {copy} differs from {original}; bertjax ties the decoder to the embeddings")
    return tensors


def _missing_heads(names: list[Name], tensors: Mapping[str, np.ndarray]) -> list[str]:
    """Those heads of pre-training of which no tensor is there."""
    heads = dict.fromkeys(name.path[0] for name in names if name.path[0].endswith("_head"))
    found = {name.path[0] for name in names if name.theirs in tensors}
    return [head for head in heads if head not in found]


def _check_tensors(abstract: Any, names: list[Name], tensors: Mapping[str, np.ndarray], where: Path) -> None:
    """That all `names` are there, as the config says and finite; before memory is taken for what a config claims."""
    if lacking := [name.theirs for name in names if name.theirs not in tensors]:
        raise UserError(f"{where} lacks {_list(lacking)}; get the folder again, or correct its config")
    for theirs, expected in _shapes(names, abstract).items():
        if tensors[theirs].shape != expected:
            shape = tensors[theirs].shape
            raise UserError(
                f"{where}: {theirs} has shape {shape}, but the config says {expected}; get the folder again, or "
                "correct its config"
            )
        if not np.isfinite(tensors[theirs]).all():
            raise UserError(f"{where}: {theirs} holds numbers that are not finite; get the folder again")


def _new_params(config: ModelConfig, task: TaskMetadata | None, pairs: str) -> dict[str, Any]:
    """The parameters of a new model, from a fixed key."""
    model = kind_named(task.kind).model(config, task.labels) if task else PretrainingModel(config, pairs)
    one = jnp.zeros((1, 1), jnp.int32)
    batch = dict.fromkeys(("input_ids", "token_type_ids", "attention_mask", "masked_lm_positions"), one)
    return model.init(jax.random.key(0), batch)["params"]


def _views(
    names: list[Name], params: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each name the views of our tree, in their orientation, and of their tensors."""
    for name in names:
        array = np.asarray(_leaf(params, name))
        array = array if name.repeat is None else array[name.repeat]
        array = array if name.rows is None else array[: name.rows]
        ours = array.T if name.transposed else array
        yield ours, tensors[name.theirs][name.begin : name.begin + len(ours)]


def _leaf(params: Mapping[str, Any], name: Name) -> Any:
    return functools.reduce(lambda tree, key: tree[key], name.path, params)


def _list(names: list[str]) -> str:
    """A few names, and how many more there are."""
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
