"""A file that grows is what numpy would have written at once."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples import scaled
from sqzb.data.arrays import open_array


@given(sizes=st.lists(st.integers(0, 20), max_size=5), width=st.integers(1, 4))
@settings(max_examples=scaled(12))
def test_a_file_in_pieces_is_one_array(
    sizes: list[int], width: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("array") / "rows.npy"
    rows = np.arange(sum(sizes) * width, dtype=np.float32).reshape(-1, width)
    with open_array(path, width) as writer:
        for piece in np.split(rows, np.cumsum(sizes)):
            writer.write(piece)
    found = np.load(path, allow_pickle=False)
    assert found.dtype == np.float32 and found.shape == rows.shape
    np.testing.assert_array_equal(found, rows)


def test_a_file_is_whole_or_absent(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), open_array(tmp_path / "rows.npy", 2) as writer:
        writer.write(np.zeros((3, 2), np.float32))
        raise ZeroDivisionError
    assert [*tmp_path.iterdir()] == []
    (tmp_path / "file").touch()
    with (
        pytest.raises(FileExistsError, match=r"/file'"),
        open_array(tmp_path / "file/a.npy", 1),
    ):
        pass
