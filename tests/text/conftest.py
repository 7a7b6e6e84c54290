import itertools

import pytest

from bertjax.text import python_docs, sentences, tokenizer_training
from tests.support.tokenizers import KINDS


@pytest.fixture(scope="session")
def documents() -> list[str]:
    """Real English text: the language reference, 0.5 MB."""
    return list(itertools.islice(python_docs.documents(), 70))


@pytest.fixture(scope="session")
def real_sentences(documents) -> list[str]:
    return [sentence for document in documents for sentence in sentences.split(document)]


@pytest.fixture(scope="session")
def training_text(real_sentences) -> list[str]:
    """Real sentences, and runs of white space: byte-level BPE merges them, so a wrong split changes the ids."""
    return [*real_sentences, *["a   b     c  d \t\t e \t f    "] * 100]


@pytest.fixture(scope="session")
def tokenizers_of_each_kind(training_text, tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("tokenizers")
    return {
        kind: tokenizer_training.train_tokenizer(f"new:{kind}:2000", training_text, folder / kind) for kind in KINDS
    }


@pytest.fixture(scope="session")
def tokenizer_folders(tokenizers_of_each_kind, tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("saved")
    for kind, tokenizer in tokenizers_of_each_kind.items():
        tokenizer.save(folder / kind)
    return {kind: folder / kind for kind in KINDS}
