"""The house that the tests damage."""

from pathlib import Path

import pytest

from house import build_house


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with one of each kind of file that a command reads."""
    folder = tmp_path_factory.mktemp("house")
    build_house(folder)
    return folder
