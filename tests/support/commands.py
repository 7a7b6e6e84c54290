"""Runs commands of bertjax in a new process; settings of a tiny model; a damaged file."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# A model that compiles and trains in seconds; all other settings are those of the config file.
TINY_MODEL = {
    "model.vocab_size": 0,
    "model.hidden_size": 32,
    "model.num_hidden_layers": 2,
    "model.num_attention_heads": 2,
    "model.intermediate_size": 64,
    "model.max_position_embeddings": 64,
}


def overrides(settings: dict) -> list[str]:
    """Returns settings as flags."""
    return [f"--config.{key}={value}" for key, value in settings.items()]


def command(module: str, *arguments: str) -> list[str]:
    """Returns the command line of a bertjax command."""
    return [sys.executable, "-m", f"bertjax.{module}", *map(str, arguments)]


def run(module: str, *arguments: str, **options) -> subprocess.CompletedProcess:
    """Runs a bertjax command in a new process."""
    options = {"cwd": ROOT} | options
    return subprocess.run(
        command(module, *arguments), capture_output=True, text=True, timeout=300, check=False, **options
    )


def assert_refused(result: subprocess.CompletedProcess, *parts: str) -> None:
    """Checks that a command refused its input: exit code 2 and one line that contains `parts`, without traceback."""
    assert result.returncode == 2, result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and errors[0] == result.stderr.splitlines()[-1], result.stderr
    assert "Traceback" not in result.stderr
    for part in parts:
        assert str(part) in errors[0]


def flip_a_bit(path: Path, where: int | None = None) -> None:
    """Flips a bit of a file, in byte `where` or in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if where is None else where] ^= 0x10
    path.write_bytes(content)
