"""Reads TensorFlow 1 checkpoints as published by Google: `bert_model.ckpt.*`, `bert_config.json` and `vocab.txt`."""

import re
from pathlib import Path

import numpy as np

from bertjax import host_tensorflow
from bertjax.errors import UserError, first_line

# Training state beside the weights: the optimizer's moments, its step, and the state of loss scaling.
_BOOKKEEPING = re.compile(
    r"(^|/)(adam_[mv]|lamb_[mv]|beta[12]_power|global_step|good_steps|bad_steps|(current_)?loss_scale)$"
)


def find_checkpoint(folder: Path) -> Path | None:
    """Returns the prefix of the TensorFlow checkpoint in a folder, `…/bert_model.ckpt`; None if there is none.

    Raises:
      UserError: the folder holds several.
    """
    prefixes = sorted(path.with_suffix("") for path in folder.glob("*.index"))
    if len(prefixes) > 1:
        names = ", ".join(prefix.name for prefix in prefixes[:3])
        raise UserError(f"{folder}: {len(prefixes)} TensorFlow checkpoints ({names}, …); leave only one in the folder")
    return prefixes[0] if prefixes else None


def read_checkpoint(prefix: Path) -> dict[str, np.ndarray]:
    """Returns the weights of a checkpoint as f32, with the names and orientation of a Hugging Face BERT.

    Raises:
      UserError: a file is missing or damaged.
    """
    tf = host_tensorflow.load()
    tensors = {}
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        for name, dtype in reader.get_variable_to_dtype_map().items():
            if dtype.is_floating and not _BOOKKEEPING.search(name):
                tensor = np.asarray(reader.get_tensor(name), np.float32)
                tensors[_huggingface_name(name)] = tensor.T if name.endswith("/kernel") else tensor
    except (tf.errors.OpError, RuntimeError, ValueError, LookupError) as error:
        raise UserError(
            f"{prefix}: unreadable TensorFlow checkpoint ({first_line(error)}); download its files again, or restore "
            "them from a copy"
        ) from error
    return tensors


def _huggingface_name(name: str) -> str:
    """`bert/encoder/layer_3/output/dense/kernel` → `bert.encoder.layer.3.output.dense.weight`.

    `gamma` and `beta` of LayerNorms stay; early Hugging Face files use them too.
    """
    name = name.removeprefix("module/")  # of TensorFlow Hub
    name = re.sub(r"/layer_(\d+)/", r"/layer.\1/", name)
    name = re.sub(r"_embeddings$", "_embeddings/weight", name)
    name = re.sub(r"/(kernel|output_weights)$", "/weight", name)
    name = re.sub(r"/output_bias$", "/bias", name)
    return name.replace("/", ".")
