"""Reads the tensors of a folder, from safetensors, `pytorch_model.bin` or a TensorFlow 1 checkpoint, in this order.

Pickled weights can run code; they are read only with PyTorch's `weights_only` loader.
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
_FIRST_SAFE_TORCH = (2, 6)  # older versions can be made to run code despite weights_only=True (CVE-2025-32434)
_REMEDY = "download the folder again, or restore it from a copy"


@dataclasses.dataclass(frozen=True)
class _Index:
    """The index of weights that are split over several files."""

    weight_map: Mapping[ShortText, FileName]  # tensor → file


def read_weights(folder: Path) -> tuple[dict[str, np.ndarray], Path]:
    """Returns all floating-point tensors of a folder as f32, with Hugging Face's names, and a path for messages.

    Raises:
      UserError: there are no weights, or they are damaged.
    """
    for name, reader in ((SAFETENSORS, _safetensors), (_PICKLED, _pickled)):
        if files := _files(folder, name):
            return {key: value for file in files for key, value in reader(folder / file)}, folder / name
    if prefix := google.find_checkpoint(folder):
        return google.read_checkpoint(prefix), prefix
    raise UserError(f"{folder}: no {SAFETENSORS}, {_PICKLED} or TensorFlow checkpoint; {_REMEDY}")


def _files(folder: Path, name: str) -> list[str]:
    """The names of the files that hold the weights in the format of `name`; empty if there are none."""
    if (folder / name).is_file():
        return [name]
    index = folder / f"{name}.index.json"
    if not index.is_file():
        return []
    return sorted(set(decoding.read(index, _Index, _REMEDY, foreign=True).weight_map.values()))


def _safetensors(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "flax") as handle:
            for name in handle.keys():  # noqa: SIM118 - a handle is not iterable
                tensor = handle.get_tensor(name)
                if jnp.issubdtype(tensor.dtype, jnp.floating):
                    yield name, np.asarray(tensor, np.float32)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); download the file again, or restore it from a copy"
        ) from error


def _pickled(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    try:
        import torch
    except ImportError:
        raise UserError(
            f"{path}: reading pickled weights requires PyTorch; pip install torch, or save the model again as "
            "safetensors"
        ) from None
    if tuple(map(int, torch.__version__.split(".")[:2])) < _FIRST_SAFE_TORCH:
        raise UserError(
            f"{path}: not read, because PyTorch {torch.__version__} cannot keep pickled weights from running code; "
            f"install PyTorch {'.'.join(map(str, _FIRST_SAFE_TORCH))} or newer"
        )
    try:
        # Of the two formats only the newer one, a zip file, can be memory-mapped.
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        for name, tensor in tensors.items():
            if tensor.is_floating_point():
                yield name, tensor.to(torch.float32).numpy()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror or error}); download the file again, or restore it from a copy"
        ) from error
    except Exception as error:  # other files can raise almost any exception
        # PyTorch's message is left out: it explains how to read the file nevertheless.
        raise UserError(
            f"{path}: the pickled weights are damaged, or hold other objects and could run code: not read; get the "
            "model again from a source that you trust, or as safetensors"
        ) from error
