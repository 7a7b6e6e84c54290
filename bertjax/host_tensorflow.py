"""TensorFlow as bertjax uses it, to carry input and to write event files: on the host only."""

import os
from typing import Any


def load() -> Any:
    """The module, kept off the accelerators, which are JAX's."""
    # It would import Keras, which nothing here uses and which takes as long as a third of TensorFlow itself.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    import tensorflow as tf

    for kind in ("GPU", "TPU"):
        tf.config.set_visible_devices([], kind)
    return tf
