"""Files and folders appear whole or not at all."""

import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqzb.errors import UserError, explain
from sqzb.files import (
    ASIDE,
    check_output,
    check_output_folder,
    claimed,
    locked,
    parse_json_object,
    read_json_object,
    sha256,
    whole_file,
    whole_folder,
    write_json,
)

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
    value = {"ключ": ["é", 1.5, None, "line\nbreak", os.fsdecode(b"caf\xe9")]}
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


VICTIM = "of somebody else"


@pytest.mark.parametrize("kind", ["link", "broken link", "link to a folder", "left by a kill"])
def test_what_lies_at_the_temporary_name_is_never_written_through(
    tmp_path: Path, kind: str
) -> None:
    victim, aside = tmp_path / "victim", tmp_path / f"wanted{ASIDE}"
    if kind == "link to a folder":
        victim.mkdir()
        (victim / "file").write_text(VICTIM)
    elif kind == "link":
        victim.write_text(VICTIM)
    if kind == "left by a kill":
        aside.write_text("torn")
    else:
        aside.symlink_to(victim)
    write_json(tmp_path / "wanted", 1)
    assert (tmp_path / "wanted").read_text() == "1\n" and not aside.exists()
    if kind == "link to a folder":
        assert (victim / "file").read_text() == VICTIM
    elif kind == "link":
        assert victim.read_text() == VICTIM
    else:
        assert not victim.exists()

    folder = tmp_path / "folder"
    folder.with_name(f"folder{ASIDE}").symlink_to(victim)
    with whole_folder(folder) as inside:
        (inside / "new").touch()
    assert not folder.is_symlink() and [file.name for file in folder.iterdir()] == ["new"]


def test_two_processes_do_not_write_one_file(tmp_path: Path) -> None:
    """The second would put the first one's torn file into place."""
    path = tmp_path / "wanted"
    with whole_file(path) as aside:
        aside.write_text("first")
        with pytest.raises(BlockingIOError, match=r"wanted'") as raised, whole_file(path):
            pass
        assert "another process is writing it" in explain(raised.value)
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]


def test_a_new_file_has_the_permissions_that_the_shell_asks_for(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_json(tmp_path / "file", 1)
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_a_pipe_and_a_device_stay_what_they_are(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_text()))
    reader.start()
    check_output(pipe)
    write_json(pipe, "text")
    reader.join()
    assert found == ['"text"\n'] and pipe.is_fifo() and list(tmp_path.iterdir()) == [pipe]

    reading = threading.Thread(target=lambda: pipe.open("rb").close())
    reading.start()
    with pytest.raises(UserError, match="the reader of this pipe has ended"):
        write_json(pipe, "text" * 10**6)
    reading.join()

    link = tmp_path / "device"
    link.symlink_to("/dev/full")
    check_output(link)
    with pytest.raises(OSError, match="No space") as raised:
        write_json(link, 1)
    assert explain(raised.value).startswith(f"{link} cannot be written: its disk is full. ")
    assert link.is_char_device()


# Places that refuse a file or a folder: by name, how each is made below a folder. The message says
# why. The process may be root, whom no permission stops, so a read-only folder is not among them.
def _below_a_file(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file" / "inside" / "wanted"


def _below_a_broken_link(folder: Path) -> Path:
    (folder / "link").symlink_to(folder / "nowhere")
    return folder / "link" / "wanted"


def _in_a_circle(folder: Path) -> Path:
    (folder / "link").symlink_to(folder / "link")
    return folder / "link" / "wanted"


def _without_a_file_system(folder: Path) -> Path:
    return Path("/proc/self/wanted")


PLACES: dict[Callable[[Path], Path], str] = {
    _below_a_file: "a file or a broken link is there",
    _below_a_broken_link: "a file or a broken link is there",
    _in_a_circle: "a file or a broken link is there",
    _without_a_file_system: "there is no such file or folder",
}


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
@pytest.mark.parametrize("check", [check_output, check_output_folder])
def test_a_place_is_tried_before_any_work(
    tmp_path: Path, place: Callable[[Path], Path], check: Callable[[Path], None]
) -> None:
    path = place(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OSError) as raised:
        check(path)
    message = explain(raised.value)
    assert PLACES[place] in message and str(path.parent).startswith(message.split(" cannot ")[0])
    assert sorted(tmp_path.iterdir()) == before
    for whole in (whole_file, whole_folder):
        with pytest.raises(OSError), whole(path):
            pass
        assert sorted(tmp_path.iterdir()) == before


def test_a_place_that_can_be_written_is_left_as_it_was(tmp_path: Path) -> None:
    for path in (tmp_path / "new", tmp_path / "one" / "two" / "new"):
        check_output(path)
        check_output_folder(path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_overwritten_only_where_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("own")
    with pytest.raises(UserError, match=f"{path} exists and is not overwritten.*--overwrite"):
        check_output(path)
    check_output(path, overwrite=True)
    assert path.read_text() == "own"
    for wrong, reason in ((tmp_path, "it is a folder"), (tmp_path / "link", "no such file")):
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to(tmp_path / "nowhere")
        for overwrite in (False, True):
            with pytest.raises(OSError) as raised:
                check_output(wrong, overwrite)
            assert reason in explain(raised.value) and str(wrong) in explain(raised.value)


REFUSED = """
import resource, sys
from pathlib import Path
from sqzb import files
from sqzb.errors import explain
if sys.argv[2] == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for attempt in (files.check_output, lambda path: files.write_json(path, "x" * 10**6)):
    try:
        attempt(Path(sys.argv[1]))
        print("nothing")
    except OSError as error:
        print(explain(error))
"""


def test_a_limit_on_the_size_of_files_is_named(tmp_path: Path) -> None:
    """A process of its own, because the limit holds for all that it writes."""
    command = [sys.executable, "-c", REFUSED, str(tmp_path / "file"), "limit"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    tried, written = done.stdout.splitlines()
    assert tried.startswith(f"{tmp_path} cannot be written: the file is over the largest size")
    assert written.startswith(f"{tmp_path / 'file'} cannot be written: the file is over")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_the_permission_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    if os.access(tmp_path, os.W_OK):
        pytest.skip("no permission stops root")
    for attempt in (check_output, lambda path: write_json(path, 1)):
        with pytest.raises(PermissionError) as raised:
            attempt(tmp_path / "file")
        assert "permission is denied" in explain(raised.value)


@given(st.sampled_from(sorted(errno.errorcode)), st.booleans())
def test_every_error_of_the_system_is_a_message_with_advice(number: int, named: bool) -> None:
    message = explain(OSError(number, os.strerror(number), *(["some/path"] if named else [])))
    assert message.startswith("some/path cannot be " if named else "A file or folder cannot be ")
    assert message.endswith(".") and message.count(". ") == 1


@given(st.binary(max_size=60) | st.sampled_from([b"[" * 200_000, b'{"a":' * 50_000, b"9" * 5000]))
def test_what_is_no_object_is_one_error(content: bytes) -> None:
    try:
        value = parse_json_object(content)
    except ValueError:
        return
    assert json.loads(content) == value
    json.dumps(value, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "content", ["[1]", "null", '"a"', "", '{"a": "\\ud83d"}', '{"a": 1}}', '{"\\uDC00": 1}']
)
def test_an_object_of_whole_characters_is_asked_for(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError):
        read_json_object(tmp_path / "a.json")


def test_an_object_is_read(tmp_path: Path) -> None:
    for value in ({}, {"a": [1, None]}, {"😀": "\\ud83d as text, é"}):
        for ascii_only in (False, True):
            (tmp_path / "a.json").write_text(json.dumps(value, ensure_ascii=ascii_only))
            assert read_json_object(tmp_path / "a.json") == value
