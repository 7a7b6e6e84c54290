"""The process before JAX and TensorFlow are imported: variables that keep them quiet, and malloc's behavior."""

import contextlib
import ctypes
import importlib.util
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

# JAX sets these wherever libtpu is installed.
_SET_BY_JAX = {"TPU_ML_PLATFORM", "TPU_ML_PLATFORM_VERSION", "TPU_SKIP_MDS_QUERY"}
_CUDA = ("jax_cuda12_plugin", "jax_cuda13_plugin")


def quiet_libraries() -> None:
    """Sets the variables that the user has not set. Libraries that are imported already ignore them."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    # libtpu, installed to plan with, complains at length where there is no TPU; JAX would then take the CPU anyway.
    if _is_installed("libtpu") and not _is_installed(*_CUDA) and not _has_tpu():
        os.environ.setdefault("JAX_PLATFORMS", "cpu")


@contextlib.contextmanager
def bare_root_logger() -> Iterator[None]:
    """Removes the handler that absl gives the root logger within the block, if the root logger had none.

    Orbax logs through absl, whose every message calls `logging.basicConfig()` for a bare root logger. A program's own
    `basicConfig` would then do nothing, and warnings would appear in another format.
    """
    root = logging.getLogger()
    bare, level = not root.handlers, root.level
    try:
        yield
    finally:
        # A handler that the program itself adds meanwhile has another type, format or level.
        if bare and root.level == level:
            for handler in list(root.handlers):
                format = handler.formatter._fmt if handler.formatter else ""
                if type(handler) is logging.StreamHandler and format == logging.BASIC_FORMAT:
                    root.removeHandler(handler)


def tune_cpu_malloc() -> None:
    """Makes malloc keep freed memory if computation runs on the CPU (Linux with glibc).

    A train step frees hundreds of megabytes and allocates them again at once. Returning them to the system costs a page
    fault per page, a sixth to a third of the step. Works only before threads start and before JAX is imported.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if _runs_on_cpu() and sys.platform == "linux" else None
    if mallopt is not None:  # the numbers are those of malloc.h
        mallopt(-8, 1)  # M_ARENA_MAX: one heap for all threads
        mallopt(-4, 0)  # M_MMAP_MAX: no separate mapping for any request
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: never shrink the heap


def _runs_on_cpu() -> bool:
    """Whether JAX will compute on the CPU, as far as variables and installed packages show."""
    platforms = os.environ.get("JAX_PLATFORMS")
    return not _is_installed("libtpu", *_CUDA) if platforms is None else platforms == "cpu"


def _is_installed(*modules: str) -> bool:
    """Whether any of these modules is installed."""
    return any(importlib.util.find_spec(module) for module in modules)


def _has_tpu() -> bool:
    """Whether anything indicates a TPU: a device file, a PCI card of its vendor, a variable."""
    try:
        vendors = {path.read_text().strip() for path in Path("/sys/bus/pci/devices").glob("*/vendor")}
    except OSError:  # a device that is being removed
        vendors = set()
    devices = (*Path("/dev").glob("accel*"), *Path("/dev/vfio").glob("[0-9]*"))
    variables = {name for name in os.environ if name.startswith("TPU_")} - _SET_BY_JAX
    return bool(devices) or "0x1ae0" in vendors or bool(variables)
