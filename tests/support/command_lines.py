"""Parses command lines of bertjax as the commands do, without running them.

`python -m tests.support.command_lines` reads [[module, arguments], …] as JSON from stdin and prints the error of each,
"" where there is none, as JSON. Every line is parsed in a process of its own, a fork, as flags are global.
"""

import importlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence

from tests.support.commands import ROOT

CommandLine = tuple[str, Sequence[str]]  # a command's module, and its arguments


def parse_errors(lines: Sequence[CommandLine]) -> list[str]:
    """The error of each command line, "" where flags and config are accepted."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.support.command_lines"],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def _parse(module: str, arguments: Sequence[str]) -> None:
    """Raises an error for flags, config keys or words that the command would refuse."""
    from absl import flags

    from bertjax import cli
    from bertjax.config import finetuning, parse
    from bertjax.errors import UserError
    from bertjax.inference.modes import MODES

    sys.argv = [module, *arguments]  # where ml_collections looks for --config.KEY
    command = importlib.import_module(f"bertjax.{module}")
    _, *words = flags.FLAGS(sys.argv)
    if "config" in flags.FLAGS:
        values = cli.config_value(flags.FLAGS["config"])
        if values is not None and module == "finetune":
            # A page may leave out the model that is fine-tuned.
            finetuning.from_config_dict(values | {"init_from": values["init_from"] or "DIR"})
        elif values is not None:
            parse.from_config_dict(values)
    if module == "predict" and words:
        mode, *words = words
        if mode not in MODES:
            raise UserError(f"{mode} is not a mode")
    elif words:
        raise UserError(f"{words[0]}: unexpected word")
    assert callable(command.main)


def _error(module: str, arguments: Sequence[str]) -> str:
    """The error of one command line, from a forked process."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        message = ""
        sys.stdout = sys.stderr = io.StringIO()
        try:
            _parse(module, arguments)
        except BaseException as error:
            message = f"{type(error).__name__}: {error}"
        os.write(write, message.encode()[:4000])
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as file:
        message = file.read().decode()
    os.waitpid(child, 0)
    return message


def main() -> None:
    """Serves `parse_errors`."""
    import ml_collections.config_flags  # noqa: F401 (imported once, for all forks)

    import bertjax.cli
    import bertjax.config.finetuning

    lines = json.load(sys.stdin)
    if any("examples/" in word for _, words in lines for word in words):  # they register, for which JAX is imported
        import bertjax.api.registration  # noqa: F401
    print(json.dumps([_error(*line) for line in lines]))


if __name__ == "__main__":
    main()
