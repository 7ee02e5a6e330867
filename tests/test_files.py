"""Files and folders appear whole or not at all."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqzb.files import claimed, locked, sha256, whole_file, whole_folder, write_json

Whole = Callable[[Path], AbstractContextManager[Path]]
BOTH = pytest.mark.parametrize("whole", [whole_file, whole_folder])


def put(path: Path, text: str, whole: Whole) -> None:
    """Write text to a file, or to a file inside a folder."""
    if whole is whole_file:
        path.write_text(text)
    else:
        (path / "deep").mkdir(parents=True, exist_ok=True)
        (path / "deep" / "file").write_text(text)


def text_in(path: Path) -> str:
    return path.read_text() if path.is_file() else (path / "deep" / "file").read_text()


@BOTH
def test_new_content_takes_the_place_of_old(tmp_path: Path, whole: Whole) -> None:
    path = tmp_path / "wanted"
    for text in ("first", "second"):
        with whole(path) as aside:
            put(aside, text, whole)
        assert text_in(path) == text and list(tmp_path.iterdir()) == [path]


@BOTH
def test_nothing_is_seen_before_the_end(tmp_path: Path, whole: Whole) -> None:
    path = tmp_path / "wanted"
    with whole(path) as aside:
        put(aside, "first", whole)
        assert not path.exists()
    with whole(path) as aside:
        put(aside, "second", whole)
        assert text_in(path) == "first"


@BOTH
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("old", [None, "old"])
def test_an_error_leaves_old_content_and_nothing_else(
    tmp_path: Path, whole: Whole, error: type[BaseException], old: str | None
) -> None:
    path = tmp_path / "wanted"
    if old is not None:
        with whole(path) as aside:
            put(aside, old, whole)
    with pytest.raises(error), whole(path) as aside:
        put(aside, "torn", whole)
        raise error
    if old is None:
        assert list(tmp_path.iterdir()) == []
    else:
        assert list(tmp_path.iterdir()) == [path] and text_in(path) == old


@BOTH
def test_a_kill_leaves_old_content_and_the_next_write_is_clean(
    tmp_path: Path, whole: Whole
) -> None:
    path = tmp_path / "wanted"
    with whole(path) as aside:
        put(aside, "old", whole)
    script = (
        "import os, sys; from pathlib import Path; from sqzb import files\n"
        f"with files.{whole.__name__}(Path(sys.argv[1])) as aside:\n"
        "    (aside / 'torn' if aside.is_dir() else aside).write_text('torn'); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(path)]).returncode == 9
    assert text_in(path) == "old"
    with whole(path) as aside:
        put(aside, "new", whole)
    assert text_in(path) == "new" and list(tmp_path.iterdir()) == [path]
    assert path.is_file() or [inside.name for inside in path.iterdir()] == ["deep"]


@BOTH
def test_folders_above_are_made(tmp_path: Path, whole: Whole) -> None:
    path = tmp_path / "one" / "two" / "wanted"
    with whole(path) as aside:
        put(aside, "text", whole)
    assert text_in(path) == "text"


def test_json_keeps_every_character(tmp_path: Path) -> None:
    value = {"ключ": ["é", 1.5, None, "line\nbreak"]}
    write_json(tmp_path / "value.json", value)
    text = (tmp_path / "value.json").read_text(encoding="utf-8")
    assert json.loads(text) == value and "ключ" in text and text.endswith("}\n")


def test_a_value_that_is_no_json_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(path, 1)
    with pytest.raises(TypeError):
        write_json(path, {"a": {1, 2}})
    assert list(tmp_path.iterdir()) == [path] and json.loads(path.read_text()) == 1


@given(st.binary(max_size=100), st.sampled_from([0, 1, 2**20 - 1, 2**20, 2**21 + 1]))
def test_sha256_is_that_of_the_content(
    tmp_path_factory: pytest.TempPathFactory, start: bytes, size: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "hashed"
    content = start + bytes(size)
    path.write_bytes(content)
    assert sha256(path) == hashlib.sha256(content).hexdigest()


HOLD = (
    "import sys; from pathlib import Path; from sqzb.files import locked\n"
    "with locked(Path(sys.argv[1])) as ours: print(ours, flush=True); sys.stdin.read()"
)


def test_one_process_holds_a_folder(tmp_path: Path) -> None:
    """And while it does nothing lies there, and when it is killed it holds nothing."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "True\n"
        with locked(tmp_path) as ours:
            assert not ours
        with locked(tmp_path) as ours:  # to be refused does not set it free
            assert not ours
        assert list(tmp_path.iterdir()) == []
        other.kill()
    with locked(tmp_path) as ours:
        assert ours


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt, BlockingIOError])
def test_a_folder_is_free_behind_the_block(
    tmp_path: Path, error: type[BaseException] | None
) -> None:
    for _ in range(2):
        try:
            with locked(tmp_path) as ours:
                assert ours
                with locked(tmp_path) as again:
                    assert not again
                if error is not None:
                    raise error
        except (ValueError, KeyboardInterrupt, BlockingIOError) as raised:
            assert type(raised) is error


def test_other_folders_are_free(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    with locked(tmp_path / "one") as ours, locked(tmp_path) as other:
        assert ours and other


CLAIM = HOLD.replace("locked", "claimed").replace("sys.argv[1])", "sys.argv[1]), 3")


def test_one_process_holds_a_byte_of_a_file(tmp_path: Path) -> None:
    """And no other byte, and nothing once it is killed; the file stays empty."""
    path = tmp_path / "file"
    path.touch()
    with subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "True\n"
        for number, free in ((3, False), (2, True), (3, False), (4, True)):
            with claimed(path, number) as ours:
                assert ours == free
        other.kill()
    with claimed(path, 3) as ours:
        assert ours
    assert path.read_bytes() == b""
