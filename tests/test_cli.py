"""Functions that all commands share."""

import os
import subprocess
import sys

import pytest

from tests.support.commands import ROOT

# A command that compiles one program and prints the events of the compilation cache.
COMMAND = """
from bertjax import cli
def main(args):
    import jax
    jax.monitoring.register_event_listener(lambda event, **_: "/cache_" in event and print(event.rsplit("/")[-1]))
    jax.jit(lambda x: x * 3 + 1)(2.0)
cli.run(main)
"""


def compile_once(caches) -> str:
    """Runs COMMAND with its cache below `caches`, and returns the printed events."""
    environment = {name: value for name, value in os.environ.items() if "CACHE" not in name}
    environment["XDG_CACHE_HOME"] = str(caches)
    arguments = [sys.executable, "-c", COMMAND]
    result = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    return result.stdout.strip()


COMMANDS = ("adapt", "convert", "evaluate", "finetune", "plan", "predict", "prepare", "train")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_imports_no_heavy_library(name):
    """Heavy imports would make `--help` slow."""
    arguments = [sys.executable, "-X", "importtime", "-m", f"bertjax.{name}", "--help"]
    result = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    loaded = {line.split("|")[-1].strip().split(".")[0] for line in result.stderr.splitlines() if "|" in line}
    heavy = {"flax", "fsspec", "jax", "msgspec", "numpy", "orbax", "pyarrow", "rich", "tensorflow", "tokenizers"}
    assert "absl" in loaded and f"python -m bertjax.{name} " in result.stdout
    assert "--import" in result.stdout and ("--config:" in result.stdout) == (name in ("finetune", "plan", "train"))
    assert not loaded & heavy


def test_programs_are_cached_and_recompiled_if_the_cache_is_damaged(tmp_path):
    assert compile_once(tmp_path) == "cache_misses"
    assert compile_once(tmp_path) == "cache_hits"
    (cached,) = (path for path in tmp_path.rglob("*") if path.is_file())
    cached.write_bytes(cached.read_bytes()[:100])  # as if the process was killed while writing
    assert compile_once(tmp_path) == "cache_misses"
    (tmp_path / "file").touch()
    assert compile_once(tmp_path / "file") == ""  # no folder: nothing is cached


# Prints the page faults of the last of several allocations of 80 MB, which are 20,000 pages of 4 KB.
FAULTS = """
from bertjax.environment import tune_cpu_malloc
tune_cpu_malloc()
import resource
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"x" * 80_000_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
@pytest.mark.parametrize(("platforms", "reused"), [("cpu", True), ("tpu", False)])
def test_freed_memory_is_reused_on_a_cpu(platforms, reused):
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    environment["JAX_PLATFORMS"] = platforms
    arguments = [sys.executable, "-c", FAULTS]
    result = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert (int(result.stdout) < 1000) == reused
