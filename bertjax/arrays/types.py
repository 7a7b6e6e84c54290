"""Types of the arrays and trees that functions exchange."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from jaxtyping import Array

# Nested dicts of parameters as in Flax. The leaves are arrays, or stand for them: shapes, shardings, names.
Params: TypeAlias = dict[str, Any]

# The arrays of one batch by name, on the device. `bertjax.data.batch` defines the names, and `HostBatch` on the host.
Batch: TypeAlias = Mapping[str, Array]
