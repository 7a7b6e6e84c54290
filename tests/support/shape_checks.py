"""Checks the array shapes that bertjax's models and objectives declare, in this process."""

import jaxtyping
from beartype import BeartypeConf, beartype

CHECKED_PACKAGES = ("bertjax.model", "bertjax.objectives")

check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as for static type checkers


def install() -> None:
    """Checks each call of a function of CHECKED_PACKAGES; must run before they are imported."""
    import jax
    import numpy as np

    # Tests pass NumPy arrays outside `jax.jit`, where JAX accepts them too.
    jaxtyping.Array = jax.Array | np.ndarray
    jaxtyping.install_import_hook(CHECKED_PACKAGES, f"{__name__}.check")
