"""What all commands share."""

import os
import subprocess
import sys

import pytest

from tests.support.commands import ROOT

# A command that compiles one program and says how that went.
COMMAND = """
from bertjax import cli
def main(args):
    import jax
    jax.monitoring.register_event_listener(lambda event, **_: "/cache_" in event and print(event.rsplit("/")[-1]))
    jax.jit(lambda x: x * 3 + 1)(2.0)
cli.run(main)
"""


def compiled(caches) -> str:
    environment = {name: value for name, value in os.environ.items() if "CACHE" not in name}
    environment["XDG_CACHE_HOME"] = str(caches)
    arguments = [sys.executable, "-c", COMMAND]
    result = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    return result.stdout.strip()


COMMANDS = ("adapt", "convert", "evaluate", "finetune", "plan", "predict", "prepare", "train")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_loads_nothing_but_flags(name):
    """`--help` answers at once because it imports no heavy library."""
    arguments = [sys.executable, "-X", "importtime", "-m", f"bertjax.{name}", "--help"]
    result = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    loaded = {line.split("|")[-1].strip().split(".")[0] for line in result.stderr.splitlines() if "|" in line}
    heavy = {"flax", "fsspec", "jax", "msgspec", "numpy", "orbax", "pyarrow", "rich", "tensorflow", "tokenizers"}
    assert "absl" in loaded and f"python -m bertjax.{name} " in result.stdout
    assert not loaded & heavy


def test_programs_are_compiled_once_and_again_where_they_cannot_be_used(tmp_path):
    assert compiled(tmp_path) == "cache_misses"
    assert compiled(tmp_path) == "cache_hits"
    (kept,) = (path for path in tmp_path.rglob("*") if path.is_file())
    kept.write_bytes(kept.read_bytes()[:100])  # what a process leaves that is killed while it writes
    assert compiled(tmp_path) == "cache_misses"
    (tmp_path / "file").touch()
    assert compiled(tmp_path / "file") == ""  # nothing can be kept there


# Page faults of the last of several requests for 80 MB, which lie in 20,000 pages of 4 KB.
FAULTS = """
from bertjax import cli
cli.keep_memory()
import resource
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"x" * 80_000_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of glibc")
@pytest.mark.parametrize(("platforms", "kept"), [("cpu", True), ("tpu", False)])
def test_memory_that_was_freed_is_kept_on_a_cpu(platforms, kept):
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    environment["JAX_PLATFORMS"] = platforms
    arguments = [sys.executable, "-c", FAULTS]
    result = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert (int(result.stdout) < 1000) == kept
