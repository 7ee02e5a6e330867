"""prepare-corpus as a process that is killed again and again: what it makes in the end is the
same.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fork_server

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
KILLS = int(os.environ.get("SQZB_KILLS", "2"))
TEXT = (
    "the of and river stone winter light garden engine letter copper window morning silver forest "
    "paper harbour"
)
WORDS = TEXT.split()
UNITS = 6  # of 230 kB
RECORDS = "shards/*.json"


def texts(seed: int) -> list[str]:
    draw = random.Random(seed)
    sentences = [" ".join(draw.choices(WORDS, k=12)).capitalize() + "." for _ in range(2000)]
    return [" ".join(draw.choices(sentences, k=40)) for _ in range(80)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with sources of both kinds, each a unit, and the recipe."""
    folder = tmp_path_factory.mktemp("kills")
    sources = []
    for number in range(UNITS):
        name = f"{number}.{'parquet' if number % 2 else 'jsonl'}"
        if number % 2:
            pq.write_table(pa.table({"text": texts(number)}), folder / name)
        else:
            (folder / name).write_text(
                "".join(json.dumps({"text": text}) + "\n" for text in texts(number))
            )
        sources.append(f"  s{number}: {{path: {name}}}\n")
    (folder / "recipe.yaml").write_text(
        f"sources:\n{''.join(sources)}vocabulary: {{size: 120, sample_characters: 50000}}\n"
        "sequence_lengths: [32, 64]\nheldout: 0.1\n"
    )
    return folder


@pytest.fixture
def start(place: Path) -> Iterator[Callable[[str], fork_server.Popen]]:
    """Start the command, with two workers, as the head of a process group of its own."""
    begun: list[fork_server.Popen] = []

    def run(output: str) -> fork_server.Popen:
        arguments = ["prepare-corpus", "recipe.yaml", "--output", output, "--workers", "2"]
        process = fork_server.Popen(
            [sys.executable, "-m", "sqzb", *arguments],
            cwd=place,
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        begun.append(process)
        return process

    yield run
    for process in begun:
        if alive(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def alive(group: int) -> list[int]:
    """The processes of a group that have not ended."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,pgid=,stat="], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split() for line in listed.splitlines()]
    return [int(pid) for pid, of, state in rows if int(of) == group and not state.startswith("Z")]


def ended(group: int) -> bool:
    """Within some seconds: who keeps account of a process's semaphores ends a little later
    than it.
    """
    limit = time.monotonic() + 10
    while alive(group) and time.monotonic() < limit:
        time.sleep(0.1)
    return not alive(group)


def content(folder: Path) -> dict[str, bytes]:
    files = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    del files["recipe.yaml"]
    return files


def finish(process: fork_server.Popen) -> None:
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said


@pytest.fixture(scope="module")
def whole(place: Path) -> dict[str, bytes]:
    """The uninterrupted corpus."""
    arguments = ["prepare-corpus", "recipe.yaml", "--output", "whole", "--workers", "2"]
    command = [sys.executable, "-m", "sqzb", *arguments]
    done = fork_server.run(command, cwd=place, env=ENVIRONMENT, timeout=240)
    assert done.returncode == 0, done.stderr
    made = content(place / "whole")
    assert sum(name.startswith("shards/") for name in made) == 2 * UNITS
    return made


def kill_group(process: fork_server.Popen) -> None:
    os.killpg(process.pid, signal.SIGKILL)


def kill_parent(process: fork_server.Popen) -> None:
    process.kill()


@pytest.mark.parametrize("kill", [kill_group, kill_parent])
def test_killed_again_and_again_it_makes_the_same_corpus(
    place: Path,
    start: Callable[[str], fork_server.Popen],
    whole: dict[str, bytes],
    kill: Callable[[fork_server.Popen], None],
) -> None:
    """The next is started at once, even if a worker of the last were still there."""
    folder = place / kill.__name__
    draw = random.Random(kill.__name__)
    killed = []
    for _ in range(max(1, KILLS // 2)):
        shards = draw.randint(len(list(folder.glob(RECORDS))), UNITS)
        process = start(kill.__name__)
        killed.append(process.pid)
        when_shards_are_made(folder, shards)
        time.sleep(draw.uniform(0, 0.2))
        kill(process)
        process.wait()
    finish(start(kill.__name__))
    assert content(folder) == whole
    assert all(ended(group) for group in killed)


def when_shards_are_made(folder: Path, shards: int = 1) -> None:
    limit = time.monotonic() + 120
    while len(list(folder.glob(RECORDS))) < shards:
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_workers_end_with_their_parent(
    place: Path, start: Callable[[str], fork_server.Popen]
) -> None:
    process = start("orphans")
    when_shards_are_made(place / "orphans")
    assert len(alive(process.pid)) > 2
    process.kill()
    process.wait()
    assert ended(process.pid)


def test_an_interrupt_while_the_workers_begin_is_told_in_a_line(
    place: Path, start: Callable[[str], fork_server.Popen]
) -> None:
    process = start("soon")
    limit = time.monotonic() + 120
    while (
        len(alive(process.pid)) < 3
    ):  # the parent, the keeper of its resources, and a worker that has just begun
        assert time.monotonic() < limit
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted. Finished work is kept." in said and "Traceback" not in said
    assert ended(process.pid)


def test_an_interrupt_keeps_what_is_finished(
    place: Path,
    start: Callable[[str], fork_server.Popen],
    whole: dict[str, bytes],
) -> None:
    """Ctrl-C reaches the whole group."""
    process = start("interrupted")
    when_shards_are_made(place / "interrupted")
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted. Finished work is kept." in said and "Traceback" not in said
    assert ended(process.pid)
    kept = {path: path.stat().st_mtime_ns for path in (place / "interrupted").glob(RECORDS)}
    assert kept
    finish(start("interrupted"))
    assert content(place / "interrupted") == whole
    assert all(path.stat().st_mtime_ns == before for path, before in kept.items())
