"""The tensors of a folder, by the names of a Hugging Face BERT: safetensors, `pytorch_model.bin`, or Google's TF1.

Safetensors are taken where there are any. Pickled weights can run code; only PyTorch's loader that reads nothing but
weights gets to see them.
"""

import dataclasses
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from bertjax import decoding
from bertjax.decoding import FileName, ShortText
from bertjax.errors import UserError
from bertjax.interop import google

SAFETENSORS = "model.safetensors"
_PICKLED = "pytorch_model.bin"
_FIRST_SAFE_TORCH = (2, 6)  # before, weights_only=True could be got round (CVE-2025-32434)


@dataclasses.dataclass(frozen=True)
class _Index:
    """What an index says of the files that weights are spread over."""

    weight_map: Mapping[ShortText, FileName]  # tensor → file


def read(folder: Path) -> tuple[dict[str, np.ndarray], Path]:
    """All floating-point tensors of a folder as f32, and the file that stands for them in messages.

    Raises:
      UserError: there are none, or they are damaged, or no weights.
    """
    for name, reader in ((SAFETENSORS, _safetensors), (_PICKLED, _pickled)):
        if files := _files(folder, name):
            return {key: value for file in files for key, value in reader(folder / file)}, folder / name
    if prefix := google.find_checkpoint(folder):
        return google.read(prefix), prefix
    raise UserError(f"there is no {folder / SAFETENSORS}, {_PICKLED} or TensorFlow checkpoint; get the folder again")


def _files(folder: Path, name: str) -> list[str]:
    """The files that weights are spread over; none where the folder has no such weights."""
    if (folder / name).is_file():
        return [name]
    index = folder / f"{name}.index.json"
    if not index.is_file():
        return []
    return sorted(set(decoding.read(index, _Index, "get the folder again", foreign=True).weight_map.values()))


def _safetensors(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "flax") as handle:
            for name in handle.keys():  # noqa: SIM118 - a handle is not iterable
                tensor = handle.get_tensor(name)
                if jnp.issubdtype(tensor.dtype, jnp.floating):
                    yield name, np.asarray(tensor, np.float32)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read ({error}); get it again") from error


def _pickled(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    try:
        import torch
    except ImportError:
        raise UserError(
            f"{path} holds pickled weights, which only PyTorch can read safely; pip install torch, or save the model "
            "again as safetensors"
        ) from None
    if tuple(map(int, torch.__version__.split(".")[:2])) < _FIRST_SAFE_TORCH:
        raise UserError(
            f"PyTorch {torch.__version__} cannot keep {path} from running code; install PyTorch "
            f"{'.'.join(map(str, _FIRST_SAFE_TORCH))} or newer"
        )
    try:
        # Only the newer of its two formats, a zip file, can be mapped into memory.
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        for name, tensor in tensors.items():
            if tensor.is_floating_point():
                yield name, tensor.to(torch.float32).numpy()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}); get it again") from error
    except Exception as error:  # a file that is no such thing can end in nearly any exception
        # What PyTorch says then is how to read the file all the same.
        raise UserError(
            f"the pickled weights {path} are damaged, or hold more than weights and could run code: not read; get the "
            "model again from a source that you trust, or as safetensors"
        ) from error
