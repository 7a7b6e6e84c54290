"""What the tests share: a small real corpus, a tiny model's settings, and commands run as a user runs them."""

import os
import pydoc_data.topics
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
# Programs are compiled once for all the processes that the tests start.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(tempfile.gettempdir()) / f"bertjax-tests-{os.getuid()}")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
# Compiling for speed takes most of the time of models as small as those of tests; XLA_FLAGS="" does it nevertheless.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false")

ROOT = Path(__file__).parent.parent

# A model small enough to compile and train in seconds; every other setting stays the config file's.
TINY_MODEL = {
    "model.vocab_size": 0,
    "model.hidden_size": 32,
    "model.num_hidden_layers": 2,
    "model.num_attention_heads": 2,
    "model.intermediate_size": 64,
    "model.max_position_embeddings": 64,
}


def overrides(settings: dict) -> list[str]:
    """Settings as flags."""
    return [f"--config.{key}={value}" for key, value in settings.items()]


def command(module: str, *arguments: str) -> list[str]:
    """The command line of a bertjax command."""
    return [sys.executable, "-m", f"bertjax.{module}", *map(str, arguments)]


def run(module: str, *arguments: str, **options) -> subprocess.CompletedProcess:
    """Runs a bertjax command in a process of its own, as a user does."""
    options = {"cwd": ROOT} | options
    return subprocess.run(
        command(module, *arguments), capture_output=True, text=True, timeout=300, check=False, **options
    )


def assert_refused(result: subprocess.CompletedProcess, *parts: str) -> None:
    """The command ended as bad input should: exit code 2, one line, no traceback, saying `parts`."""
    assert result.returncode == 2, result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and errors[0] == result.stderr.splitlines()[-1], result.stderr
    assert "Traceback" not in result.stderr
    for part in parts:
        assert str(part) in errors[0]


def flip_a_bit(path: Path, where: int | None = None) -> None:
    """Damages a file as a failing disk does, at byte `where` or in its middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if where is None else where] ^= 0x10
    path.write_bytes(content)


@pytest.fixture(scope="session")
def text_file(tmp_path_factory) -> Path:
    """Real English: topics of Python's documentation, a document each."""
    topics = sorted(pydoc_data.topics.topics.items(), key=lambda item: len(item[1]))[-60:-10]
    documents = ["\n".join(line for line in text.splitlines() if line.strip()) for _, text in topics]
    path = tmp_path_factory.mktemp("text") / "topics.txt"
    path.write_text("\n\n".join(documents))
    return path


@pytest.fixture(scope="session")
def corpus(text_file, tmp_path_factory) -> Path:
    """A prepared corpus of about 60,000 tokens of a vocabulary of 600."""
    folder = tmp_path_factory.mktemp("corpus") / "corpus"
    result = run(
        "prepare", f"--source=text:{text_file}", "--tokenizer=new:wordpiece:600", "--heldout=0.1", f"--output={folder}"
    )
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="session")
def tiny_config(corpus):
    """A Config of a run of a few steps, for tests that call Python instead of a command."""
    from bertjax.config import Config, ModelConfig, OptimizerConfig, Phase

    model = ModelConfig(**{key.removeprefix("model."): value for key, value in TINY_MODEL.items()})
    return Config(
        corpus=str(corpus),
        model=model,
        phases=(Phase(steps=8, length=32, batch=8),),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=2),
        log_every=1,
        eval_every=0,
        checkpoint_every=4,
        eval_sequences=32,
    )


@pytest.fixture(scope="session")
def trained(tiny_config, tmp_path_factory) -> Path:
    """A workdir with a finished run of `tiny_config`; tests that change it copy it."""
    from bertjax.pretraining_run import train

    workdir = tmp_path_factory.mktemp("trained") / "run"
    train(tiny_config, workdir)
    return workdir
