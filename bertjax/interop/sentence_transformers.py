"""Reads and writes the files of a `sentence-transformers` model: how hidden states become one vector per text.

Reads folders of versions 2 to 6.2; all of these versions read the exports.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
import numpy as np

from bertjax import decoding
from bertjax.arrays.types import Params
from bertjax.config.model import POOLINGS, DenseLayer
from bertjax.decoding import PATH_PART, ShortText, Size
from bertjax.errors import UserError
from bertjax.interop import weights
from bertjax.tasks.metadata import SentenceMetadata

_T = TypeVar("_T")

_MODULE = "sentence_transformers.models."
_REMEDY = "download the folder again, or restore it from a copy"
_MODES = {"pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max", "pooling_mode_mean_tokens": "mean"}
_TorchActivation = Literal[
    "torch.nn.modules.linear.Identity",
    "torch.nn.modules.activation.Tanh",
    "torch.nn.modules.activation.ReLU",
    "torch.nn.modules.activation.GELU",
]
_ACTIVATIONS: dict[str, _TorchActivation] = {
    "identity": "torch.nn.modules.linear.Identity",
    "tanh": "torch.nn.modules.activation.Tanh",
    "relu": "torch.nn.modules.activation.ReLU",
    "gelu": "torch.nn.modules.activation.GELU",
}
# Names of the file with a Transformer module's settings in past versions; the first that exists is read.
_TRANSFORMER_FILES = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
_ModulePath = Annotated[str, msgspec.Meta(pattern=rf"\A(?:{PATH_PART})?\Z")]  # "": the folder itself
_Vector = Literal["sentence_embedding"]


@dataclasses.dataclass(frozen=True)
class _Module:
    type: ShortText
    path: _ModulePath = ""

    @property
    def name(self) -> str:
        """The name of its class, without the Python module."""
        return self.type.rpartition(".")[2]


@dataclasses.dataclass(frozen=True)
class _Pooling:
    pooling_mode: ShortText | list[ShortText] | None = None
    pooling_mode_cls_token: bool = False
    pooling_mode_max_tokens: bool = False
    pooling_mode_mean_tokens: bool = False
    pooling_mode_mean_sqrt_len_tokens: bool = False
    pooling_mode_weightedmean_tokens: bool = False
    pooling_mode_lasttoken: bool = False
    include_prompt: bool = True

    @property
    def modes(self) -> list[str]:
        """The poolings whose results are concatenated; older versions store flags, whose default is the mean."""
        if self.pooling_mode is not None:
            return [self.pooling_mode] if isinstance(self.pooling_mode, str) else self.pooling_mode
        flags = [name for name, value in vars(self).items() if name.startswith("pooling_mode_") and value]
        return [_MODES.get(name, name) for name in flags] or ["mean"]


@dataclasses.dataclass(frozen=True)
class _Dense:
    in_features: Size
    out_features: Size
    bias: bool = True
    activation_function: _TorchActivation = _ACTIVATIONS["tanh"]
    module_input_name: _Vector = "sentence_embedding"
    module_output_name: _Vector | None = None
    use_residual: Literal[False] = False


@dataclasses.dataclass(frozen=True)
class _Transformer:
    max_seq_length: Size | None = None
    do_lower_case: bool = False
    transformer_task: Literal["feature-extraction"] = "feature-extraction"


@dataclasses.dataclass(frozen=True)
class _Model:
    prompts: dict[ShortText, ShortText | None] = dataclasses.field(default_factory=dict)
    default_prompt_name: ShortText | None = None
    model_type: Literal["SentenceTransformer"] | None = None


@dataclasses.dataclass(frozen=True)
class _Tokenizer:
    model_max_length: float | None = None


def write(folder: Path, hidden_size: int, length: int, sentence: SentenceMetadata, dense: Params) -> None:
    """Writes modules.json and the settings of the modules into the folder of an exported encoder.

    Args:
      folder: the folder.
      hidden_size: the width of the encoder's hidden states.
      length: maximum number of tokens per text.
      sentence: pooling, dense layers and prompts.
      dense: the parameters of `sentence.dense`.
    """
    modules = [("Transformer", ""), ("Pooling", "1_Pooling")]
    _write_json(folder / "sentence_bert_config.json", {"max_seq_length": length, "do_lower_case": False})
    prompts = {"prompts": dict(sentence.prompts), "default_prompt_name": sentence.prompt or None}
    _write_json(folder / "config_sentence_transformers.json", {"similarity_fn_name": "cosine", **prompts})
    flags = {flag: name == sentence.pooling for flag, name in _MODES.items()}
    pooling = {"word_embedding_dimension": hidden_size, **flags, "include_prompt": sentence.include_prompt}
    _write_json(folder / "1_Pooling" / "config.json", pooling)
    width = hidden_size
    for number, layer in enumerate(sentence.dense):
        modules.append(("Dense", f"{number + 2}_Dense"))
        settings = _Dense(width, layer.features, activation_function=_ACTIVATIONS[layer.activation])
        _write_dense(folder / modules[-1][1], settings, dense[f"layer_{number}"])
        width = layer.features
    if sentence.normalize:
        modules.append(("Normalize", f"{len(modules)}_Normalize"))
        (folder / modules[-1][1]).mkdir()
    entries = [
        {"idx": number, "name": str(number), "path": path, "type": _MODULE + name}
        for number, (name, path) in enumerate(modules)
    ]
    _write_json(folder / "modules.json", entries)


def read(folder: Path, hidden_size: int) -> tuple[SentenceMetadata, Params] | None:
    """Returns the pooling, dense layers and prompts of a folder, and the parameters of the dense layers.

    None if it is not a folder of `sentence-transformers`.

    Raises:
      UserError: its files cannot be read, or need computations that bertjax lacks.
    """
    if not (folder / "modules.json").is_file():
        return None
    modules = decoding.read(folder / "modules.json", list[_Module], _REMEDY, foreign=True)
    _check_modules(folder, modules)
    path = folder / modules[1].path / "config.json"
    pooling = decoding.read(path, _Pooling, _REMEDY, foreign=True)
    if len(pooling.modes) != 1 or pooling.modes[0] not in POOLINGS:
        modes = " + ".join(pooling.modes) or "none"
        raise UserError(f"{path}: pooling by {modes} is not supported; expected one of {', '.join(POOLINGS)}")
    files = [folder / name for name in _TRANSFORMER_FILES if (folder / name).is_file()]
    transformer = _read_optional(files[0], _Transformer) if files else _Transformer()
    if transformer.do_lower_case:
        raise UserError(
            f"{files[0]}: do_lower_case=true is not supported; choose a model whose tokenizer lower-cases the text"
        )
    model_file = folder / "config_sentence_transformers.json"
    model = _read_optional(model_file, _Model)
    prompts = {name: text for name, text in model.prompts.items() if text is not None}
    if model.default_prompt_name is not None and model.default_prompt_name not in prompts:
        raise UserError(
            f"{model_file}: the default prompt {model.default_prompt_name!r} is not one of the prompts "
            f"({', '.join(prompts)}); {_REMEDY}"
        )
    layers, params, width = [], {}, hidden_size
    for number, module in enumerate(module for module in modules if module.name == "Dense"):
        layer, params[f"layer_{number}"] = _read_dense(folder / module.path, width)
        layers.append(layer)
        width = layer.features
    sentence = SentenceMetadata(
        pooling.modes[0],
        modules[-1].name == "Normalize",
        length=transformer.max_seq_length or _tokenizer_length(folder),
        dense=tuple(layers),
        prompts=prompts,
        prompt=model.default_prompt_name or "",
        include_prompt=pooling.include_prompt,
    )
    return sentence, params


def _check_modules(folder: Path, modules: Sequence[_Module]) -> None:
    """Checks that the modules are Transformer, Pooling, any number of Dense and at most one Normalize."""
    names = [module.name for module in modules]
    dense = names[2:-1] if names[-1:] == ["Normalize"] else names[2:]
    supported = names[:2] == ["Transformer", "Pooling"] and set(dense) <= {"Dense"}
    if not supported or any(not module.type.startswith("sentence_transformers.") for module in modules):
        types = ", ".join(module.type for module in modules) or "none"
        raise UserError(
            f"{folder}/modules.json: unsupported modules ({types}); expected Transformer, Pooling, Dense and Normalize "
            "of sentence_transformers, in this order"
        )
    if modules[0].path:
        raise UserError(
            f"{folder}/modules.json: the encoder is in {modules[0].path}, not in the folder itself; save the model "
            "again with sentence-transformers 2 or newer"
        )


def _tokenizer_length(folder: Path) -> int | None:
    """The tokenizer's maximum number of tokens per text; None if unknown, for which files have a huge number."""
    length = _read_optional(folder / "tokenizer_config.json", _Tokenizer).model_max_length
    return int(length) if length is not None and 1 <= length < 2**31 else None


def _read_dense(folder: Path, width: int) -> tuple[DenseLayer, dict[str, np.ndarray]]:
    settings = decoding.read(folder / "config.json", _Dense, _REMEDY, foreign=True)
    tensors, path = weights.read_weights(folder)
    expected: dict[str, tuple[int, ...]] = {"linear.weight": (settings.out_features, width)}
    expected |= {"linear.bias": (settings.out_features,)} if settings.bias else {}
    for name, shape in expected.items():
        actual = tensors[name].shape if name in tensors else "missing"
        if actual != shape or not np.isfinite(tensors[name]).all():
            raise UserError(f"{path}: {name} is {actual}, expected finite numbers of shape {shape}; {_REMEDY}")
    bias = tensors["linear.bias"] if settings.bias else np.zeros(settings.out_features, np.float32)
    activation = next(name for name, cls in _ACTIVATIONS.items() if cls == settings.activation_function)
    kernel = np.ascontiguousarray(tensors["linear.weight"].T)
    layer = DenseLayer(
        settings.out_features,
        activation,  # pyright: ignore[reportArgumentType]  # the keys of _ACTIVATIONS are those of the Literal
    )
    return layer, {"kernel": kernel, "bias": bias}


def _write_dense(folder: Path, settings: _Dense, params: Params) -> None:
    from safetensors.numpy import save

    values = dataclasses.asdict(dataclasses.replace(settings, module_output_name="sentence_embedding"))
    del values["use_residual"]  # unknown to older versions
    _write_json(folder / "config.json", values)
    tensors = {"linear.weight": np.ascontiguousarray(np.asarray(params["kernel"]).T), "linear.bias": params["bias"]}
    (folder / weights.SAFETENSORS).write_bytes(save(tensors, metadata={"format": "pt"}))


def _read_optional(path: Path, cls: type[_T]) -> _T:
    return decoding.read(path, cls, _REMEDY, foreign=True) if path.is_file() else cls()


def _write_json(path: Path, content: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
