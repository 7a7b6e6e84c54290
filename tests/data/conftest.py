from pathlib import Path

import pytest

from tests.support import synthetic


@pytest.fixture(scope="session")
def prose(tmp_path_factory) -> Path:
    return synthetic.prose(tmp_path_factory.mktemp("prose"))
