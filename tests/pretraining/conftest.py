"""What the tests of pretraining share."""

from collections.abc import Iterator

import pytest
from accelerate.state import AcceleratorState


@pytest.fixture(autouse=True)
def _fresh_accelerator() -> Iterator[None]:
    """accelerate keeps its precision for the whole process; a run has a process to itself."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
