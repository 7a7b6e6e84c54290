"""What `sentence-transformers` wants beside a model of `transformers`: how states become one vector.

Folders are read as version 6.2 reads them, also those of versions from 2 on; what is written all of them read.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from bertjax import decoding
from bertjax.config.model import POOLINGS, DenseLayer
from bertjax.decoding import PATH_PART, ShortText, Size
from bertjax.errors import UserError
from bertjax.interop import weights
from bertjax.tasks.metadata import SentenceMetadata

_MODULE = "sentence_transformers.models."
_CURE = "get the folder again"
_MODES = {"pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max", "pooling_mode_mean_tokens": "mean"}
# Names of activations and PyTorch's classes.
_ACTIVATIONS = {
    "identity": "torch.nn.modules.linear.Identity",
    "tanh": "torch.nn.modules.activation.Tanh",
    "relu": "torch.nn.modules.activation.ReLU",
    "gelu": "torch.nn.modules.activation.GELU",
}
# Where a Transformer's settings have been written; the first file that is there counts.
_TEXT_FILES = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
_Part = Annotated[str, msgspec.Meta(pattern=rf"\A(?:{PATH_PART})?\Z")]  # "": the folder itself
_VECTOR = Literal["sentence_embedding"]


@dataclasses.dataclass(frozen=True)
class _Module:
    type: ShortText
    path: _Part = ""

    @property
    def name(self) -> str:
        """The name of its class."""
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
        """What is pooled, one behind the other; older versions say it by flags, and nothing is the mean."""
        if self.pooling_mode is not None:
            return [self.pooling_mode] if isinstance(self.pooling_mode, str) else self.pooling_mode
        flags = [name for name, value in vars(self).items() if name.startswith("pooling_mode_") and value]
        return [_MODES.get(name, name) for name in flags] or ["mean"]


@dataclasses.dataclass(frozen=True)
class _Dense:
    in_features: Size
    out_features: Size
    bias: bool = True
    activation_function: Literal[tuple(_ACTIVATIONS.values())] = _ACTIVATIONS["tanh"]
    module_input_name: _VECTOR = "sentence_embedding"
    module_output_name: _VECTOR | None = None
    use_residual: Literal[False] = False


@dataclasses.dataclass(frozen=True)
class _Texts:
    max_seq_length: Size | None = None
    do_lower_case: bool = False
    transformer_task: Literal["feature-extraction"] = "feature-extraction"


@dataclasses.dataclass(frozen=True)
class _Sentences:
    prompts: dict[ShortText, ShortText | None] = dataclasses.field(default_factory=dict)
    default_prompt_name: ShortText | None = None
    model_type: Literal["SentenceTransformer"] | None = None


@dataclasses.dataclass(frozen=True)
class _Tokenizer:
    model_max_length: float | None = None


def write(
    folder: Path, hidden_size: int, length: int, sentence: SentenceMetadata, dense: Mapping[str, Any] | None
) -> None:
    """Writes modules.json and the modules' settings into the folder of an exported encoder.

    Args:
      folder: of the encoder.
      hidden_size: the width of its states.
      length: tokens of a text, at most.
      sentence: how its states become vectors.
      dense: the parameters of `sentence.dense`.
    """
    modules = [("Transformer", ""), ("Pooling", "1_Pooling")]
    _write(folder / "sentence_bert_config.json", {"max_seq_length": length, "do_lower_case": False})
    said = {"prompts": dict(sentence.prompts), "default_prompt_name": sentence.prompt or None}
    _write(folder / "config_sentence_transformers.json", {"similarity_fn_name": "cosine", **said})
    chosen = {flag: name == sentence.pooling for flag, name in _MODES.items()}
    pooling = {"word_embedding_dimension": hidden_size, **chosen, "include_prompt": sentence.include_prompt}
    _write(folder / "1_Pooling" / "config.json", pooling)
    width = hidden_size
    for number, layer in enumerate(sentence.dense):
        modules.append(("Dense", f"{number + 2}_Dense"))
        settings = _Dense(width, layer.features, activation_function=_ACTIVATIONS[layer.activation])
        _write_dense(folder / modules[-1][1], settings, dense[f"layer_{number}"])
        width = layer.features
    if sentence.normalize:
        modules.append(("Normalize", f"{len(modules)}_Normalize"))
        (folder / modules[-1][1]).mkdir()
    described = [
        {"idx": number, "name": str(number), "path": path, "type": _MODULE + name}
        for number, (name, path) in enumerate(modules)
    ]
    _write(folder / "modules.json", described)


def read(folder: Path, hidden_size: int) -> tuple[SentenceMetadata, dict[str, Any]] | None:
    """How such a folder turns texts into vectors, and the parameters of its Dense layers; None for any other folder.

    Raises:
      UserError: its files cannot be read, or make vectors in a way that bertjax has not.
    """
    if not (folder / "modules.json").is_file():
        return None
    modules = decoding.read(folder / "modules.json", list[_Module], _CURE, foreign=True)
    _check_modules(folder, modules)
    path = folder / modules[1].path / "config.json"
    pooling = decoding.read(path, _Pooling, _CURE, foreign=True)
    if len(pooling.modes) != 1 or pooling.modes[0] not in POOLINGS:
        raise UserError(f"{path} pools by {', '.join(pooling.modes) or 'nothing'}; bertjax has {', '.join(POOLINGS)}")
    texts = next((_optional(folder / name, _Texts) for name in _TEXT_FILES if (folder / name).is_file()), _Texts())
    if texts.do_lower_case:
        raise UserError(
            f"{folder} lower-cases texts before they are tokenized, which bertjax has not; take another model"
        )
    said = _optional(folder / "config_sentence_transformers.json", _Sentences)
    prompts = {name: text for name, text in said.prompts.items() if text is not None}
    if said.default_prompt_name is not None and said.default_prompt_name not in prompts:
        raise UserError(
            f"{folder}/config_sentence_transformers.json has the default prompt {said.default_prompt_name!r}, which is "
            f"none of its prompts ({', '.join(prompts)}); {_CURE}"
        )
    layers, params, width = [], {}, hidden_size
    for number, module in enumerate(module for module in modules if module.name == "Dense"):
        layer, params[f"layer_{number}"] = _read_dense(folder / module.path, width)
        layers.append(layer)
        width = layer.features
    sentence = SentenceMetadata(
        pooling.modes[0],
        modules[-1].name == "Normalize",
        length=texts.max_seq_length or _tokenizer_length(folder),
        dense=tuple(layers),
        prompts=prompts,
        prompt=said.default_prompt_name or "",
        include_prompt=pooling.include_prompt,
    )
    return sentence, params


def _check_modules(folder: Path, modules: Sequence[_Module]) -> None:
    """Refuses another way to a vector than Transformer, Pooling, Dense layers if any, and perhaps Normalize."""
    names = [module.name for module in modules]
    rest = names[2:-1] if names[-1:] == ["Normalize"] else names[2:]
    known = names[:2] == ["Transformer", "Pooling"] and set(rest) <= {"Dense"}
    if not known or any(not module.type.startswith("sentence_transformers.") for module in modules):
        raise UserError(
            f"{folder} makes vectors with {', '.join(module.type for module in modules)}; bertjax has Transformer, "
            "Pooling, Dense and Normalize of sentence_transformers, in this order; take another model"
        )
    if modules[0].path:
        raise UserError(
            f"{folder} has its encoder in {modules[0].path}; save it again with sentence-transformers 2 or newer"
        )


def _tokenizer_length(folder: Path) -> int | None:
    """What the tokenizer says of the tokens of a text, at most; it has a huge number where that is not known."""
    length = _optional(folder / "tokenizer_config.json", _Tokenizer).model_max_length
    return int(length) if length is not None and 1 <= length < 2**31 else None


def _read_dense(folder: Path, width: int) -> tuple[DenseLayer, dict[str, np.ndarray]]:
    settings = decoding.read(folder / "config.json", _Dense, _CURE, foreign=True)
    tensors, where = weights.read(folder)
    expected = {"linear.weight": (settings.out_features, width)}
    expected |= {"linear.bias": (settings.out_features,)} if settings.bias else {}
    for name, shape in expected.items():
        found = tensors[name].shape if name in tensors else "missing"
        if found != shape or not np.isfinite(tensors[name]).all():
            raise UserError(f"{where}: {name} is {found}, expected finite numbers of shape {shape}; {_CURE}")
    bias = tensors["linear.bias"] if settings.bias else np.zeros(settings.out_features, np.float32)
    activation = next(name for name, theirs in _ACTIVATIONS.items() if theirs == settings.activation_function)
    kernel = np.ascontiguousarray(tensors["linear.weight"].T)
    return DenseLayer(settings.out_features, activation), {"kernel": kernel, "bias": bias}


def _write_dense(folder: Path, settings: _Dense, params: Mapping[str, Any]) -> None:
    from safetensors.numpy import save

    values = dataclasses.asdict(dataclasses.replace(settings, module_output_name="sentence_embedding"))
    del values["use_residual"]  # older versions do not know it
    _write(folder / "config.json", values)
    tensors = {"linear.weight": np.ascontiguousarray(np.asarray(params["kernel"]).T), "linear.bias": params["bias"]}
    (folder / weights.SAFETENSORS).write_bytes(save(tensors, metadata={"format": "pt"}))


def _optional(path: Path, cls: type) -> Any:
    return decoding.read(path, cls, _CURE, foreign=True) if path.is_file() else cls()


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
