"""TensorFlow on the host only, for TensorFlow Datasets and TF1 checkpoints."""

import os
from types import ModuleType


def load() -> ModuleType:
    """Returns the module `tensorflow`, with all accelerators hidden from it: JAX owns them."""
    # Prevents the import of Keras, which is not needed and takes a third as long as TensorFlow itself.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    import tensorflow as tf

    for kind in ("GPU", "TPU"):
        tf.config.set_visible_devices([], kind)
    return tf
