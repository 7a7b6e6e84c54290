"""BERT from and to a Hugging Face folder: `config.json`, `model.safetensors`, tokenizer files.

Only safetensors are read; pickled weights (`pytorch_model.bin`) can run code and are refused.
"""

import functools
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bertjax.config import ACTIVATIONS, ModelConfig
from bertjax.errors import UserError
from bertjax.interop.names import Name, bert_names
from bertjax.model.pretraining import PretrainingModel

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
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "layer_norm_eps",
    "initializer_range",
)
_WEIGHTS = "model.safetensors"


def import_bert(folder: str | Path, say: Callable[[str], None]) -> tuple[ModelConfig, dict[str, Any]]:
    """The config and the f32 parameters (NumPy) of the BERT in a Hugging Face folder.

    Takes BertModel, BertForMaskedLM, BertForPreTraining and what is built on them, with or without the prefix `bert.`
    and with the old names `gamma` and `beta`. Heads of pre-training that the folder lacks are initialised afresh
    (always alike), and tensors that pre-training has no place for are left out; `say` is told of both. A folder without
    a pooler gives a model without `next_sentence`.

    Raises:
      UserError: no such model, one with other mathematics, or damaged files.
    """
    folder = Path(folder)
    config = read_config(folder)
    tensors = _tied({_modern(name): tensor for name, tensor in _read_tensors(folder).items()}, folder)
    next_sentence = "bert.pooler.dense.weight" in tensors
    names = bert_names(config, next_sentence)
    missing = _missing_heads(names, tensors)
    there = [name for name in names if name.theirs not in missing]
    _check_shapes(config, next_sentence, there, tensors, folder)
    params = _initial_params(config, next_sentence)
    for name in there:
        _take(params, name)[...] = tensors[name.theirs]
    if missing:
        say(f"{folder} lacks {_list(missing)}: initialised afresh, train before use")
    unused = sorted(tensors.keys() - {name.theirs for name in names})
    if unused:
        say(f"{folder}: left out {_list(unused)}, which pre-training has no place for")
    return config, params


def read_config(folder: str | Path) -> ModelConfig:
    """The ModelConfig of `config.json` in a Hugging Face folder.

    Raises:
      UserError: it is missing, unreadable, not BERT's, or asks for mathematics that bertjax does not have.
    """
    path = Path(folder) / "config.json"
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"there is no {path}; give the folder of a Hugging Face BERT model") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); get the folder again") from error
    if not isinstance(values, dict) or values.get("model_type") != "bert":
        kind = values.get("model_type") if isinstance(values, dict) else None
        raise UserError(f"{path} describes a model of type {kind!r}; only 'bert' can be converted")
    for key, only in (
        ("position_embedding_type", "absolute"),
        ("is_decoder", False),
        ("add_cross_attention", False),
    ):
        if values.get(key, only) != only:
            raise UserError(f"{path} has {key}={values[key]!r}; bertjax's BERT has only {only!r}")
    if not values.get("tie_word_embeddings", True):
        raise UserError(f"{path} has tie_word_embeddings=false; bertjax ties the decoder to the embeddings")
    missing = [key for key in _REQUIRED if key not in values]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}; get the folder again")
    return _checked_config({key: values[key] for key in _REQUIRED + _OPTIONAL if key in values}, path)


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


def export_bert(
    config: ModelConfig,
    params: Mapping[str, Any],
    tokenizer_folder: str | Path | None,
    output: str | Path,
    pad_id: int = 0,
) -> None:
    """Writes a folder that `transformers` loads as BertForPreTraining, or without pooler as BertForMaskedLM.

    The weights are f32 and equal to the bit; `tokenizer_folder`'s files are copied beside them. The folder appears only
    when it is whole.

    Raises:
      UserError: `output` is there already and not empty, or cannot be written.
    """
    output = Path(output).absolute()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output} is there already; choose another folder")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as scratch:
            whole = Path(scratch) / "export"
            whole.mkdir()
            _write(config, params, tokenizer_folder, whole, pad_id)
            if output.exists():
                output.rmdir()
            whole.rename(output)
    except OSError as error:
        raise UserError(
            f"cannot write {output}: {error.strerror or error}; free space or choose another folder"
        ) from error


def _write(
    config: ModelConfig,
    params: Mapping[str, Any],
    tokenizer_folder: str | Path | None,
    folder: Path,
    pad_id: int,
) -> None:
    from safetensors.numpy import save

    has_pooler = "pooler" in params
    names = bert_names(config, has_pooler)
    tensors = {name.theirs: np.ascontiguousarray(_take(params, name)) for name in names}
    (folder / _WEIGHTS).write_bytes(save(tensors, metadata={"format": "pt"}))
    values = {
        "architectures": ["BertForPreTraining" if has_pooler else "BertForMaskedLM"],
        "model_type": "bert",
        **{key: getattr(config, key) for key in _REQUIRED + _OPTIONAL},
        "pad_token_id": pad_id,
        "tie_word_embeddings": True,
        "dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n")
    if tokenizer_folder is not None:
        for path in sorted(Path(tokenizer_folder).iterdir()):
            if path.is_file():
                shutil.copyfile(path, folder / path.name)


def _read_tensors(folder: Path) -> dict[str, np.ndarray]:
    """All floating-point tensors of a folder, as f32."""
    from safetensors import SafetensorError, safe_open

    index = folder / f"{_WEIGHTS}.index.json"
    if (folder / _WEIGHTS).is_file():
        files = [_WEIGHTS]
    elif index.is_file():
        files = _index_files(index)
    elif any(folder.glob("*.bin")):
        raise UserError(
            f"{folder} has only pickled weights, which can run code and are not read; save the model again with "
            "save_pretrained(..., safe_serialization=True)"
        )
    else:
        raise UserError(f"there is no {folder / _WEIGHTS}; get the folder again")
    tensors = {}
    for file in files:
        try:
            with safe_open(folder / file, "flax") as handle:
                for name in handle.keys():  # noqa: SIM118 - a handle is not iterable
                    tensor = handle.get_tensor(name)
                    if jnp.issubdtype(tensor.dtype, jnp.floating):
                        tensors[name] = np.asarray(tensor, np.float32)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{folder / file} cannot be read ({error}); get it again") from error
    return tensors


def _index_files(index: Path) -> list[str]:
    try:
        files = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{index} cannot be read ({error}); get the folder again") from error
    for file in files:
        if not isinstance(file, str) or Path(file).name != file:
            raise UserError(f"{index} names {file!r}, which is not a file of its folder; get the folder again")
    return files


def _modern(name: str) -> str:
    """A tensor's name as BertForPreTraining has it today."""
    name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
    name = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)
    return f"bert.{name}" if name.startswith(("embeddings.", "encoder.", "pooler.")) else name


def _tied(tensors: dict[str, np.ndarray], folder: Path) -> dict[str, np.ndarray]:
    """Drops the copies that tying makes, once it is sure that they are copies."""
    copies = {
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }
    tensors = dict(tensors)
    for copy, original in copies.items():
        if copy not in tensors:
            continue
        tensor = tensors.pop(copy)
        if not np.array_equal(tensors.setdefault(original, tensor), tensor):
            raise UserError(f"{folder}: {copy} differs from {original}; bertjax ties the decoder to the embeddings")
    return tensors


def _missing_heads(names: list[Name], tensors: Mapping[str, np.ndarray]) -> list[str]:
    """The tensors of those heads of which none is there."""
    missing = []
    for head in ("masked_lm_head", "next_sentence_head"):
        theirs = [name.theirs for name in names if name.path[0] == head]
        if not any(name in tensors for name in theirs):
            missing += theirs
    return missing


def _check_shapes(
    config: ModelConfig,
    next_sentence: bool,
    names: list[Name],
    tensors: Mapping[str, np.ndarray],
    folder: Path,
) -> None:
    """That all `names` are there as the config says; before memory is taken for what a config claims."""
    weights = folder / _WEIGHTS
    lacking = [name.theirs for name in names if name.theirs not in tensors]
    if lacking:
        raise UserError(f"{weights} lacks {_list(lacking)}; get the folder again, or correct its config.json")
    abstract = jax.eval_shape(lambda: _new_params(config, next_sentence))
    for name in names:
        expected = functools.reduce(lambda tree, key: tree[key], name.path, abstract).shape
        expected = expected if name.repeat is None else expected[1:]
        expected = expected[::-1] if name.transposed else expected
        expected = expected if name.rows is None else (name.rows, *expected[1:])
        if tensors[name.theirs].shape != expected:
            raise UserError(
                f"{weights}: {name.theirs} has shape {tensors[name.theirs].shape}, but config.json says {expected}"
            )


def _new_params(config: ModelConfig, next_sentence: bool) -> dict[str, Any]:
    """The parameters of a new model, from a fixed key."""
    model = PretrainingModel(config, next_sentence=next_sentence)
    one = jnp.zeros((1, 1), jnp.int32)
    batch = dict.fromkeys(("input_ids", "token_type_ids", "attention_mask", "masked_lm_positions"), one)
    return model.init(jax.random.key(0), batch)["params"]


def _initial_params(config: ModelConfig, next_sentence: bool) -> dict[str, Any]:
    """The same, as NumPy arrays to write into."""
    return jax.tree.map(np.array, jax.jit(lambda: _new_params(config, next_sentence))())


def _take(params: Mapping[str, Any], name: Name) -> np.ndarray:
    """A view of the tensor in our tree, in their orientation."""
    for part in name.path:
        params = params[part]
    array = np.asarray(params)
    array = array if name.repeat is None else array[name.repeat]
    array = array if name.rows is None else array[: name.rows]
    return array.T if name.transposed else array


def _list(names: list[str]) -> str:
    """A few names, and how many more there are."""
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
