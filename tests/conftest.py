"""Shared fixtures: a small real corpus and a trained model."""

import gc
import logging
import os
import pydoc_data.topics
import tempfile
from pathlib import Path

import pytest

from tests.support import shape_checks
from tests.support.commands import TINY_MODEL, run

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
# All processes that the tests start share compiled programs.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(tempfile.gettempdir()) / f"bertjax-tests-{os.getuid()}")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
# Optimization would take most of the time for such small models; XLA_FLAGS="" enables it.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false")
gc.set_threshold(50_000)  # as bertjax.cli does; tracing allocates millions of objects
shape_checks.install()


@pytest.fixture(scope="session")
def text_file(tmp_path_factory) -> Path:
    """Real English: topics of the Python documentation, one document each."""
    topics = sorted(pydoc_data.topics.topics.items(), key=lambda item: len(item[1]))[-60:-10]
    documents = ["\n".join(line for line in text.splitlines() if line.strip()) for _, text in topics]
    path = tmp_path_factory.mktemp("text") / "topics.txt"
    path.write_text("\n\n".join(documents))
    return path


@pytest.fixture(scope="session")
def corpus(text_file, tmp_path_factory) -> Path:
    """A prepared corpus of about 60,000 tokens with a vocabulary of 600."""
    folder = tmp_path_factory.mktemp("corpus") / "corpus"
    result = run(
        "prepare", f"--source=text:{text_file}", "--tokenizer=new:wordpiece:600", "--heldout=0.1", f"--output={folder}"
    )
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="session")
def tiny_config(corpus):
    """A Config of a run of a few steps, for tests that call Python functions instead of commands."""
    from bertjax.config.model import ModelConfig
    from bertjax.config.optimizer import OptimizerConfig
    from bertjax.config.pretraining import Config, Phase

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
    """A workdir with a finished run of `tiny_config`; tests must copy it before they change it."""
    from bertjax.pretraining.run import train

    workdir = tmp_path_factory.mktemp("trained") / "run"
    train(tiny_config, workdir)
    return workdir


@pytest.fixture
def messages(request) -> list[str]:
    """The messages of level INFO or higher that bertjax logs during the test, as its commands would print them."""
    messages, log = [], logging.getLogger("bertjax")
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: messages.append(record.getMessage())
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield messages
    log.removeHandler(handler)
    log.setLevel(level)
