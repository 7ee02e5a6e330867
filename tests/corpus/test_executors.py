"""Executors: the same results whoever works, and what goes wrong is told."""

import csv
import json
import operator
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fork_server
from builds import at
from conftest import UNIT_BYTES
from saved_runs import save_run
from sqzb.corpus import executors
from sqzb.corpus.executors import open_executor
from sqzb.corpus.store import Corpus, read_manifest
from sqzb.errors import UserError
from sqzb.predict import write_predictions
from sqzb.recipe import CorpusRecipe, dump_recipe

TEXTS = ["the letter", "Water, and a stone bridge over it.", "garden", "", "of the river", "music"]


def results(executor: str, workers: int, function: Any, tasks: list[tuple[Any, ...]]) -> list[Any]:
    """By number of the task; each comes once."""
    with open_executor(executor, workers) as run:
        found = [result for result in run(function, tasks) if result is not None]
    assert sorted(number for number, _ in found) == list(range(len(tasks)))
    return [value for _, value in sorted(found)]


@pytest.mark.parametrize("workers", [1, 2])
def test_every_task_has_its_result(workers: int) -> None:
    tasks = [(number, number + 1) for number in range(7)]
    assert results("processes", workers, operator.mul, tasks) == [a * b for a, b in tasks]


@pytest.mark.parametrize("workers", [1, 2])
def test_no_tasks_have_no_results(workers: int) -> None:
    assert results("processes", workers, operator.mul, []) == []


def test_while_tasks_run_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "LOOK_SECONDS", 0.05)
    with open_executor("processes", 2) as run:
        found = list(run(time.sleep, [(0.5,), (0.5,)]))
    assert found.count(None) >= 4 and sorted(result for result in found if result) == [
        (0, None),
        (1, None),
    ]
    assert found[-1] is not None


@pytest.mark.parametrize(("workers", "begun"), [(1, 0), (2, 2)])
def test_after_an_error_no_task_is_begun(tmp_path: Path, workers: int, begun: int) -> None:
    tasks = [(), *((f"mkdir {tmp_path}/{n}; sleep 0.3",) for n in range(1, 12))]
    with pytest.raises(TypeError), open_executor("processes", workers) as run:
        list(run(os.system, tasks))
    # The other worker may have been at one task, and have taken one more while the error came.
    assert len(list(tmp_path.iterdir())) <= begun


def test_what_a_user_can_mend_comes_through(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Prepare it with"), open_executor("processes", 2) as run:
        list(run(read_manifest, [(tmp_path,)]))


def test_a_killed_worker_is_told() -> None:
    with (
        pytest.raises(UserError, match=r"killed.*fewer than 2 --workers"),
        open_executor("processes", 2) as run,
    ):
        list(run(signal.raise_signal, [(signal.SIGKILL,)]))


@pytest.mark.parametrize("workers", [1, 2])
def test_the_same_processes_serve_all_calls(workers: int) -> None:
    with open_executor("processes", workers) as run:
        calls = [list(run(os.getpid, [()] * 4)) for _ in range(3)]
    seen = {pid for call in calls for result in call if result is not None for pid in result[1:]}
    assert len(seen) <= workers and (os.getpid() in seen) == (workers == 1)


def test_leaving_early_leaves_no_worker_behind(tmp_path: Path) -> None:
    with open_executor("processes", 2) as run:
        next(run(os.mkdir, [(tmp_path / str(n),) for n in range(12)]))
    begun = len(list(tmp_path.iterdir()))
    assert begun <= 4
    time.sleep(0.1)
    assert len(list(tmp_path.iterdir())) == begun


# In a process of its own: Ray leaves threads and settings behind, and a token in the home folder.
RAY = """
import json, sys, time
from pathlib import Path
import ray
from sqzb.corpus import executors, sources
from sqzb.corpus.build import build
from sqzb.errors import UserError
from sqzb.predict import write_predictions
from sqzb.recipe import CorpusRecipe, load_recipe

recipe, unit_bytes, classifier, predictions, *files = sys.argv[1:]

def work(number):
    if number < 0:
        raise UserError(f"mend {number}")
    if number == 99:
        time.sleep(0.5)
    return number * number

def found(*numbers):
    with executors.open_executor("ray", 1) as run:
        return list(run(work, [(number,) for number in numbers]))

executors.LOOK_SECONDS = 0.05
ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=80 * 2**20)
try:
    told = {"squares": found(0, 1, 2, 3, 99)}
    try:
        found(-1, 5)
    except UserError as error:
        told["error"] = str(error)
    sources.UNIT_BYTES = int(unit_bytes)
    build(load_recipe(CorpusRecipe, Path(recipe)), 2, "ray")
    write_predictions(classifier, files, Path(predictions), [], "ray")
finally:
    ray.shutdown()
print(json.dumps(told))
"""


def test_ray_gives_the_same(
    tmp_path: Path,
    corpus: Corpus,
    corpus_recipe: CorpusRecipe,
    vocabulary: Path,
    content: Callable[[Path], dict[str, bytes]],
) -> None:
    """The same results and errors, the same corpus, and the same predictions of several files:
    one start of Ray, which takes seconds, shows all three.
    """
    pytest.importorskip("ray")
    (tmp_path / "recipe.yaml").write_text(dump_recipe(at(corpus_recipe, tmp_path / "corpus")))
    classifier = str(save_run(tmp_path / "cola", vocabulary, task="cola", max_length=16))
    files = []
    for name, texts in (("one", TEXTS), ("two", TEXTS[:3] * 20), ("three", ["music " * 20])):
        files.append(str(tmp_path / f"{name}.csv"))
        with open(files[-1], "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("id", "text"), *enumerate(texts)])
    # A machine with other work needs longer than Ray's half a minute.
    settings = {
        "HOME": str(tmp_path),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": "200",
        "OMP_NUM_THREADS": "1",
    }
    env = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"} | settings
    arguments = [str(tmp_path / "recipe.yaml"), str(UNIT_BYTES)]
    arguments += [classifier, str(tmp_path / "by_ray"), *files]
    ended = fork_server.run([sys.executable, "-c", RAY, *arguments], env=env, timeout=300)
    assert ended.returncode == 0, ended.stderr[-3000:]
    told = json.loads(ended.stdout.splitlines()[-1])
    squares = [result for result in told["squares"] if result is not None]
    assert sorted(squares) == [[0, 0], [1, 1], [2, 4], [3, 9], [4, 9801]]
    assert told["squares"].count(None) >= 4
    assert told["error"] == "mend -1"
    assert content(tmp_path / "corpus") == content(corpus.folder)

    assert len(re.findall(r"\d rows? of ", ended.stdout)) == 3
    assert "1 of 1 text has more than 16 tokens" in ended.stderr
    write_predictions(classifier, files, tmp_path / "here", [], "processes")
    written = {path.name: path.read_bytes() for path in (tmp_path / "here").iterdir()}
    assert sorted(written) == ["one.csv", "three.csv", "two.csv"]
    for name, predictions in written.items():
        assert (tmp_path / "by_ray" / name).read_bytes() == predictions


def test_without_ray_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(UserError, match=r"pip install 'sqzb\[ray\]'"),
        open_executor("ray", 1) as run,
    ):
        list(run(operator.mul, [(1, 2)]))
