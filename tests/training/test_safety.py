"""Safety of a run: a folder that cannot be made is refused with its reason."""

from pathlib import Path

import pytest

from sqzb.errors import UserError
from sqzb.training.engine import start_accelerator
from sqzb.training.safety import claimed_folder


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    wanted = tmp_path / "file" / "run"
    with (
        pytest.raises(UserError, match=r"/file cannot be used: a file .* is there.*give another"),
        claimed_folder(wanted, start_accelerator("fp32"), "never"),
    ):
        pass
