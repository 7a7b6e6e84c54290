"""Config files, which are Python, read without absl: for the Python API and the commands' error messages."""

import inspect
import os
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from bertjax.config.finetuning import FinetuneConfig
from bertjax.config.parse import checked
from bertjax.config.pretraining import Config
from bertjax.config.registry import execute_file
from bertjax.errors import UserError


def load(path: str, changes: Mapping[str, object]) -> Config | FinetuneConfig:
    """Returns the config of a file, `FILE[:ARGUMENT]`, with `changes` by dotted key.

    Raises:
      UserError: the file cannot be loaded, or a key or value is wrong.
    """
    file, _, argument = path.partition(":")
    values = _get_config(_execute(file), file, argument)
    is_finetuning = "task" in values
    for key, value in changes.items():
        *sections, name = key.split(".")
        section: object = values
        for part in sections:
            section = section.get(part) if isinstance(section, dict) else None
        if not isinstance(section, dict):
            raise UserError(f"config.{key}: config has no section {'.'.join(sections)}; correct the key")
        section[name] = os.fspath(value) if isinstance(value, os.PathLike) else value
    return checked(FinetuneConfig if is_finetuning else Config, values)


def problem(path: str) -> str:
    """Returns why a config file cannot be loaded, as far as that shows without executing it; "" if nothing does."""
    file = Path(path.partition(":")[0])
    if not file.exists() or file.is_dir():
        return f"{file}: there is no such file; give the path of a config file, e.g. configs/base.py"
    if not file.is_file():
        return ""  # a pipe, which can be read only once
    try:
        code = compile(file.read_text(encoding="utf-8"), str(file), "exec")
    except (SyntaxError, UnicodeDecodeError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        return f"{file}{line}: not valid Python ({getattr(error, 'msg', error)}); correct it"
    if "get_config" not in code.co_names:
        return f"{file}: no function get_config; define one that returns the config, as configs/base.py does"
    return ""


def raised_in(file: str, error: BaseException) -> str:
    """Returns a message for an exception that the code of a config file raised, with its line; "" if it did not."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).resolve() == Path(file).resolve()
    ]
    return f"{file}, line {lines[-1]}: {type(error).__name__}: {error}; correct the config file" if lines else ""


def _execute(file: str) -> ModuleType:
    if message := problem(file):
        raise UserError(message)
    try:
        return execute_file(Path(file))
    except UserError:
        raise
    except Exception as error:  # whatever the file's code raises
        raise UserError(raised_in(file, error) or f"{file}: {error}; correct the config file") from error


def _get_config(module: ModuleType, file: str, argument: str) -> dict[str, object]:
    parameters = inspect.signature(module.get_config).parameters
    if argument and not parameters:
        raise UserError(f"{file}:{argument}: the file takes no argument; leave it out")
    try:
        config = module.get_config(argument) if argument else module.get_config()
    except UserError:
        raise
    except Exception as error:  # whatever the file's code raises
        raise UserError(raised_in(file, error) or f"{file}: {error}; correct the config file") from error
    values = config.to_dict() if hasattr(config, "to_dict") else config
    if not isinstance(values, dict):
        raise UserError(f"{file}: get_config returns a {type(config).__name__}; start from default_config()")
    return values
