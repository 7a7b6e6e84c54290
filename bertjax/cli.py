"""What every command shares: flags in, one readable main, errors as one line and exit code 2."""

import ctypes
import importlib.util
import logging
import os
import select
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from absl import app, flags

from bertjax.errors import UserError, print_error

_CUDA = ("jax_cuda12_plugin", "jax_cuda13_plugin")
_DEBUG = flags.DEFINE_bool("debug", False, "Show tracebacks and the messages of third-party libraries.")


def run(main: Callable[[list[str]], Any]) -> None:
    """Parses the flags and runs `main(args)`; `args` are the words that are not flags, without the program's name.

    A UserError, and flags that cannot be parsed, end in one line on stderr and exit code 2; Ctrl-C in one and 130.
    """
    try:
        app.run(lambda argv: _guarded(main, argv[1:]), flags_parser=_parse)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        if not _stdout_is_closed():
            raise
        _discard(sys.stdout.fileno())
        sys.exit(141)


def define_config_flag() -> Any:
    """The flag `--config=FILE` with its `--config.KEY=VALUE` overrides; its value is a ConfigDict."""
    from ml_collections import config_flags

    return config_flags.DEFINE_config_file("config", None, "A config file, e.g. configs/base.py.")


def config_value(flag: Any) -> dict[str, Any] | None:
    """The values of a config flag as a plain dict, None where the flag was not given.

    Raises:
      UserError: the file cannot be loaded.
    """
    try:
        return flag.value and flag.value.to_dict()
    except OSError as error:  # ml_collections raises it when a value is first asked for
        raise UserError(
            f"the file of --config cannot be loaded: {error.__cause__ or error}; is its path right?"
        ) from error


def debug() -> bool:
    """Whether tracebacks and third parties' messages are shown."""
    return _DEBUG.value


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def show_progress() -> bool:
    """Whether to draw bars (a terminal) or now and then a line (a file or a pipe)."""
    return sys.stderr.isatty()


def silence_native() -> None:
    """From now on only Python writes to stderr, not the C++ libraries, unless --debug is given."""
    if not _DEBUG.value:
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
        _discard(2)


def _discard(descriptor: int) -> None:
    """What is written there goes nowhere from now on."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _stdout_is_closed() -> bool:
    """Whether nobody reads stdout any more, as after `| head`; other pipes may break for other reasons."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def keep_memory() -> None:
    """Has this process keep the memory that it frees, where its programs run on the CPU (Linux with glibc).

    A step frees hundreds of megabytes and needs them again at once; given back to the system they come again page by
    page, which takes a sixth to a third of a step. Works only before there are threads and before JAX is imported.
    """
    platforms = os.environ.get("JAX_PLATFORMS")
    accelerated = _installed("libtpu", *_CUDA) if platforms is None else platforms != "cpu"
    mallopt = None if accelerated or sys.platform != "linux" else getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # the numbers are those of malloc.h
        mallopt(-8, 1)  # M_ARENA_MAX: one heap for all threads
        mallopt(-4, 0)  # M_MMAP_MAX: no request gets pages of its own
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: the heap's end is not given back


def _parse(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except SystemExit:  # absl has shown what --help asks for, and would end with 1
        sys.exit(0)
    except flags.Error as error:
        _fail(f"{error}; --help lists the flags")
    except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        # ml_collections raises these for --config.KEY of an unknown key or of another type.
        if "--debug" in argv:
            raise
        inner = error.args[0] if error.args else ""
        if isinstance(inner, KeyError):  # 'KEY', and the nearest one where one is near
            _fail(f"the config has no key {inner.args[0]}".replace("\n", "; "))
        _fail(f"the --config flags cannot be read: {error}")


def _guarded(main: Callable[[list[str]], Any], args: list[str]) -> None:
    _show_log()
    if not _DEBUG.value:
        _quiet()
    _keep_compiled_programs()
    try:
        main(args)
    except UserError as error:
        if _DEBUG.value:
            raise
        _fail(str(error))


def _fail(message: str) -> NoReturn:
    print_error(message)
    sys.exit(2)


class _StderrHandler(logging.Handler):
    """Prints messages to whatever stderr is at the time: a progress bar takes its place while it is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        print(prefix + record.getMessage(), file=sys.stderr, flush=True)


def _show_log() -> None:
    """Prints bertjax's own messages to stderr, where they cannot mix with results."""
    handler = _StderrHandler()
    for name in ("bertjax", "__main__"):  # the command itself is __main__
        log = logging.getLogger(name)
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False


def _quiet() -> None:
    """Keeps third-party noise off the terminal."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    warnings.filterwarnings("ignore")
    logging.getLogger().setLevel(logging.CRITICAL)
    sys.unraisablehook = _unraisablehook
    # libtpu, installed to plan with, complains at length where there is no TPU; JAX would then take the CPU anyway.
    if _installed("libtpu") and not _installed(*_CUDA) and not _tpu_is_here():
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from absl import logging as absl_logging

    absl_logging.set_verbosity(absl_logging.FATAL)
    absl_logging.set_stderrthreshold("fatal")


def _installed(*modules: str) -> bool:
    return any(importlib.util.find_spec(module) for module in modules)


def _tpu_is_here() -> bool:
    """Whether anything at all speaks for a TPU: a device, a PCI card of its maker, a setting."""
    vendors = (path.read_text().strip() for path in Path("/sys/bus/pci/devices").glob("*/vendor"))
    devices = (*Path("/dev").glob("accel*"), *Path("/dev/vfio").glob("[0-9]*"))
    return bool(devices) or "0x1ae0" in vendors or any(name.startswith("TPU_") for name in os.environ)


def _keep_compiled_programs() -> None:
    """Has JAX keep compiled programs on disk for the next start; to be called before JAX is imported.

    Where the user has set JAX's own variable, that counts; set to nothing, it keeps none.
    """
    # XLA lays a CPU's program out for its number of cores, which JAX leaves out of the name that it keeps it under.
    try:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError:  # there is no home
        return
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(caches / "bertjax" / "xla" / f"{cores()}-cores"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def _unraisablehook(unraisable: Any) -> None:
    """Shows errors that nobody can catch, except what TensorStore's threads say after a write has failed.

    That failure itself is reported by bertjax/checkpoints/store.py.
    """
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)
