"""bertjax: pre-training of BERT-family encoders in JAX/Flax."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "bertjax/__init__.py").read_text()).group(1)

# Tested with the newest of each range; the upper ends are the next releases that may break an interface.
# TensorFlow only reads data sets and TF1 checkpoints, so Linux on x86 takes its build without GPU libraries.
SMALL = 'platform_system == "Linux" and platform_machine == "x86_64"'
FULL = 'platform_system != "Linux" or platform_machine != "x86_64"'
REQUIRED = [
    "absl-py>=2.1,<3",
    "flax>=0.12,<0.13",
    "fsspec>=2025.3",
    "jax>=0.10,<0.12",
    "jaxtyping>=0.3.5,<0.4",
    "matplotlib>=3.9,<4",
    "ml-collections>=1.0,<2",
    "msgspec>=0.19,<0.23",
    "mwparserfromhell>=0.6,<0.8",
    "numpy>=2.0,<3",
    "optax>=0.2.5,<0.3",
    "orbax-checkpoint>=0.12,<0.13",
    "protobuf>=7.36.1,<8",
    "pyarrow>=20,<27",
    "rich>=13,<16",
    "safetensors>=0.5,<0.9",
    "scikit-learn>=1.5,<2",
    "scipy>=1.14,<2",
    "sentencepiece>=0.2.3,<0.3",
    "sentencex>=1.0,<2",
    "seqeval>=1.2,<2",
    "tensorboard>=2.20,<2.22",
    f"tensorflow-cpu>=2.20,<2.22; {SMALL}",
    f"tensorflow>=2.20,<2.22; {FULL}",
    "tensorflow-datasets>=4.9,<5",
    "tokenizers>=0.22,<0.24",
]
DOCS = ["furo>=2024.8", "myst-parser>=4,<6", "sphinx>=8,<10"]
EXTRAS = {
    "docs": DOCS,
    "gpu": ["jax[cuda12]"],
    "tpu": ["jax[tpu]", "gcsfs>=2025.3"],
    "test": [
        *DOCS,  # tests/docs builds the site
        "beartype>=0.21,<0.24",
        "hypothesis>=6,<7",
        "import-linter>=2.5,<3",
        "jax[tpu]",  # its compiler, for tests/test_plan.py
        "psutil>=5,<8",
        "pyright[nodejs]>=1.1.400,<2",
        "pytest>=8,<10",
        "pytest-xdist>=3.8,<4",
        "ruff>=0.9,<0.18",
        "sentence-transformers>=6.2,<7",
        "torch==2.13.0",
        "transformers>=5,<6",
    ],
}

setup(
    name="bertjax",
    version=VERSION,
    description="Pre-training and fine-tuning of BERT-family encoders in JAX/Flax, TPU first",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["bertjax", "bertjax.*"]),
    install_requires=REQUIRED,
    extras_require=EXTRAS,
)
