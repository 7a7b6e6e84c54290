"""TensorFlow 1 checkpoints as Google published BERT: `bert_model.ckpt.*` beside `bert_config.json` and `vocab.txt`."""

import re
from pathlib import Path

import numpy as np

from bertjax import host_tensorflow
from bertjax.errors import UserError, first_line

# What training keeps beside the weights: the optimizer's moments, its step, and the state of loss scaling.
_BOOKKEEPING = re.compile(
    r"(^|/)(adam_[mv]|lamb_[mv]|beta[12]_power|global_step|good_steps|bad_steps|(current_)?loss_scale)$"
)


def find_checkpoint(folder: Path) -> Path | None:
    """The prefix of a folder's only TensorFlow checkpoint, `…/bert_model.ckpt`; None where there is none.

    Raises:
      UserError: there are several.
    """
    prefixes = sorted(path.with_suffix("") for path in folder.glob("*.index"))
    if len(prefixes) > 1:
        names = ", ".join(prefix.name for prefix in prefixes[:3])
        raise UserError(f"{folder} holds {len(prefixes)} TensorFlow checkpoints ({names}, …); leave only one there")
    return prefixes[0] if prefixes else None


def read(prefix: Path) -> dict[str, np.ndarray]:
    """The weights of a checkpoint as f32, by the names and in the orientation of a Hugging Face BERT.

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
            f"the TensorFlow checkpoint {prefix} cannot be read ({first_line(error)}); get its files again"
        ) from error
    return tensors


def _huggingface_name(name: str) -> str:
    """`bert/encoder/layer_3/output/dense/kernel` → `bert.encoder.layer.3.output.dense.weight`.

    The norms' `gamma` and `beta` stay, as early Hugging Face files have them too.
    """
    name = name.removeprefix("module/")  # of TensorFlow Hub
    name = re.sub(r"/layer_(\d+)/", r"/layer.\1/", name)
    name = re.sub(r"_embeddings$", "_embeddings/weight", name)
    name = re.sub(r"/(kernel|output_weights)$", "/weight", name)
    name = re.sub(r"/output_bias$", "/bias", name)
    return name.replace("/", ".")
