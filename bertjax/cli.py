"""What all commands share: flag parsing, logging to stderr, errors as one line with exit code 2.

Only this module configures logging, warnings and environment for a whole process; the packages below it do not.
"""

import gc
import logging
import os
import re
import select
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from absl import app, flags

from bertjax.environment import quiet_libraries, tune_cpu_malloc
from bertjax.errors import UserError, print_error, short_repr

# New objects before Python looks for cycles; imports and JAX's tracing make millions, hardly any of them garbage.
_GC_THRESHOLD = 50_000

_DEBUG = flags.DEFINE_bool("debug", False, "Show tracebacks and the messages of third-party libraries.")
_IMPORT = flags.DEFINE_multi_string("import", [], "Module or .py file to import first, which registers an extension.")


def run(main: Callable[[list[str]], object], keep_freed_memory: bool = False) -> None:
    """Parses the flags and runs `main(args)`; `args` are the positional arguments without the program name.

    A UserError or an invalid flag ends the process with one line on stderr and exit code 2, Ctrl-C with one line and
    exit code 130. `keep_freed_memory`: see `tune_cpu_malloc`; for commands that compute on the CPU.
    """
    # Before the flags are parsed: that executes the config file, which may import JAX.
    if not any(word.startswith("--debug") for word in sys.argv):
        _silence_libraries()
    _cache_compiled_programs()
    gc.set_threshold(_GC_THRESHOLD)
    if keep_freed_memory:
        tune_cpu_malloc()
    _show_shared_flags()
    try:
        app.run(lambda argv: _run_main(main, argv[1:]), flags_parser=_parse_flags)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        if not _stdout_is_closed():
            raise
        _redirect_to_null(sys.stdout.fileno())
        sys.exit(141)


def define_config_flag() -> flags.FlagHolder:
    """Defines `--config=FILE` with its `--config.KEY=VALUE` overrides; the flag's value is a ConfigDict."""
    from ml_collections import config_flags

    return config_flags.DEFINE_config_file(
        "config", None, "Config file, e.g. configs/base.py; --config.KEY=VALUE overrides a key."
    )


def config_value(flag: flags.FlagHolder) -> dict[str, object] | None:
    """Returns the values of a config flag as a plain dict; None if the flag was not given.

    Raises:
      UserError: the file cannot be loaded.
    """
    try:
        return flag.value and flag.value.to_dict()
    except OSError as error:  # ml_collections raises it when a value is first asked for
        raise UserError(f"--config: cannot be loaded ({error.__cause__ or error}); check the path") from error


def usage_error(args: Sequence[str], required: Mapping[str, object], usage: str) -> UserError:
    """Returns the error for unexpected arguments or, if there are none, for the values of `required` that are missing.

    Args:
      args: the unexpected arguments.
      required: the values by name; None, False or empty if missing.
      usage: how to call the command.
    """
    missing = [name for name, value in required.items() if not value]
    verb = "is" if len(missing) == 1 else "are"
    problem = f"unexpected argument {short_repr(args[0])}" if args else f"{' and '.join(missing)} {verb} missing"
    return UserError(f"{problem}; usage: {usage}")


def debug() -> bool:
    """Whether to show tracebacks and the messages of third-party libraries."""
    return _DEBUG.value


def cores() -> int:
    """Returns the number of CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def show_progress() -> bool:
    """Whether to draw progress bars (on a terminal) instead of logging lines (to a file or pipe)."""
    return sys.stderr.isatty()


def silence_native() -> None:
    """Discards what C++ libraries write to stderr from here on; Python still writes to it. Not with --debug."""
    if not _DEBUG.value:
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
        _redirect_to_null(2)


def _redirect_to_null(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)


def _stdout_is_closed() -> bool:
    """Whether the reader of stdout has gone, as after `| head`; other pipes may break for other reasons."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def log_errors_only() -> None:
    """Drops log messages below errors from now on, for the processes of a run other than the first."""
    for handler in logging.getLogger("bertjax").handlers:
        handler.addFilter(lambda record: record.levelno >= logging.ERROR)


def _show_shared_flags() -> None:
    """Has --help list the flags of this module too; absl lists those of the main module only."""
    for flag in flags.FLAGS.get_flags_for_module(__name__):
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)


def _parse_flags(argv: list[str]) -> list[str]:
    _check_config_file(argv)
    try:
        return flags.FLAGS(argv)
    except SystemExit:  # absl has printed --help, and would exit with 1
        sys.exit(0)
    except BrokenPipeError:
        raise
    except flags.Error as error:
        _fail(f"{error}; --help lists the flags")
    except UserError as error:  # from the code of a config file
        _fail(str(error))
    except Exception as error:  # whatever ml_collections, or the code of a config file, raises
        if "--debug" in argv:
            raise
        _fail(_config_problem(argv, error))


def _config_path(argv: list[str]) -> str:
    """Returns the value of --config; "" if it is not given."""
    if "config" not in flags.FLAGS:
        return ""
    values = [word.partition("=")[2] for word in argv if re.match("--?config=", word)]
    values += [argv[i + 1] for i, word in enumerate(argv[:-1]) if word in ("--config", "-config")]
    return values[-1] if values else ""


def _check_config_file(argv: list[str]) -> None:
    """Fails if the config file cannot be loaded; ml_collections would report that at the first override."""
    from bertjax.config import config_file

    path = _config_path(argv)
    if path and (problem := config_file.problem(path)):
        _fail(problem)


def _config_problem(argv: list[str], error: Exception) -> str:
    """Returns the message for an error of a config file or of a `--config.KEY=VALUE` override."""
    from bertjax.config import config_file, equivalents

    file = _config_path(argv).partition(":")[0]
    if problem := config_file.raised_in(file, error):
        return problem
    cause = error.args[0] if error.args else ""
    if not isinstance(cause, KeyError):
        return f"--config: cannot be read ({error}); correct the flags that begin with --config"
    key = str(cause.args[0]).partition("\n")[0].strip("'\"")
    words = [
        word.lstrip("-").partition("=")[0] for word in argv if re.match(rf"--?config\.(.*\.)?{re.escape(key)}\b", word)
    ]
    name = words[0] if words else f"config.{key}"
    if ours := equivalents.suggestion(key, finetuning=Path(argv[0]).stem == "finetune"):
        return f"unknown key {name}; {ours}"
    nearest = re.search(r'Did you mean "(\w+)"', str(cause.args[0]))
    path = name.removesuffix(key)
    return f"unknown key {name}; " + (f"did you mean {path}{nearest[1]}?" if nearest else "correct or remove it")


def _run_main(main: Callable[[list[str]], object], args: list[str]) -> None:
    from bertjax.config.registry import load_extension

    _log_to_stderr()
    try:
        for source in _IMPORT.value:
            load_extension(source)
        main(args)
    except UserError as error:
        if _DEBUG.value:
            raise
        _fail(str(error))


def _fail(message: str) -> NoReturn:
    print_error(message)
    sys.exit(2)


class _StderrHandler(logging.Handler):
    """Prints messages to the current stderr, which a progress bar replaces while it is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        print(prefix + record.getMessage(), file=sys.stderr, flush=True)


def _log_to_stderr() -> None:
    """Logs the messages of bertjax to stderr, where they cannot mix with results."""
    handler = _StderrHandler()
    for name in ("bertjax", "__main__"):  # the command itself is __main__
        log = logging.getLogger(name)
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False


def _silence_libraries() -> None:
    """Keeps the messages of third-party libraries off the terminal."""
    quiet_libraries()
    warnings.filterwarnings("ignore")
    logging.getLogger().setLevel(logging.CRITICAL)
    sys.unraisablehook = _unraisablehook
    from absl import logging as absl_logging

    absl_logging.set_verbosity(absl_logging.FATAL)
    absl_logging.set_stderrthreshold("fatal")


def _cache_compiled_programs() -> None:
    """Has JAX cache compiled programs on disk for the next start; call it before JAX is imported.

    A variable of JAX that the user has set takes precedence; set to nothing, it disables the cache.
    """
    # XLA compiles a CPU program for the number of cores, which JAX's cache key does not include.
    try:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError:  # there is no home directory
        return
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(caches / "bertjax" / "xla" / f"{cores()}-cores"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def _unraisablehook(unraisable: "sys.UnraisableHookArgs") -> None:
    """Reports exceptions that nothing can catch, except those of TensorStore's threads after a failed write.

    The failed write itself is reported by bertjax/checkpoints/store.py.
    """
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)
