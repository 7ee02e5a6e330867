"""The house that the tests damage."""

from pathlib import Path

import pytest

from house import build_house
from shared import shared_folder


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with one of each kind of file that a command reads."""
    return shared_folder(tmp_path_factory, "house", build_house)
