"""scripts/download_glue.py, with a folder in place of the Hub's nyu-mll/glue: datasets reads it the
same way.
"""

import importlib.util
import shutil
from pathlib import Path
from typing import Any, cast

import datasets
import pytest

from sqzb.data.dataset import Example
from sqzb.glue.data import load_split
from sqzb.glue.tasks import TASKS, Task, task

SCRIPT = Path(__file__).parents[2] / "scripts" / "download_glue.py"
SMALL = 2000  # splits over it have three examples here
# Where readers that go by places look: of labelled files the label and sentences, of test files the
# sentences.
PLACES: dict[str, tuple[int, list[int], list[int]]] = {
    "cola": (1, [3], [1]),
    "sst2": (1, [0], [1]),
    "mrpc": (0, [3, 4], [3, 4]),
    "qqp": (5, [3, 4], [1, 2]),
    "stsb": (-1, [7, 8], [7, 8]),
    "mnli": (-1, [8, 9], [8, 9]),
    "qnli": (-1, [1, 2], [1, 2]),
    "rte": (-1, [1, 2], [1, 2]),
    "wnli": (-1, [1, 2], [1, 2]),
}


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("download_glue", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def columns_of(of: Task, split: str, count: int) -> dict[str, list[Any]]:
    text = {column: [f'"{column} {n} é' for n in range(count)] for column in of.columns}
    unknown = split.startswith("test")
    labels = [-1.0 if unknown else n % 26 / 5 for n in range(count)]
    if of.labels:
        labels = [-1 if unknown else n % len(of.labels) for n in range(count)]
    return {**text, "label": labels, "idx": list(range(count))}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder nyu-mll/glue in the Hub's layout: parquet files by config and split, named in the
    README's head.
    """
    folder = tmp_path_factory.mktemp("hub") / "nyu-mll/glue"
    head = ["---", "configs:"]
    for of in TASKS.values():
        head += [f"- config_name: {of.hub_config}", "  data_files:"]
        for split, count in of.counts.items():
            columns = columns_of(of, split, count if count <= SMALL else 3)
            kinds = {name: datasets.Value("string") for name in of.columns} | {
                "idx": datasets.Value("int32")
            }
            kinds["label"] = (
                datasets.ClassLabel(names=list(of.labels))
                if of.labels
                else datasets.Value("float32")
            )
            data = datasets.Dataset.from_dict(
                columns, features=datasets.Features({n: kinds[n] for n in columns})
            )
            path = folder / of.hub_config / f"{split}-00000-of-00001.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            data.to_parquet(path)
            head += [f"  - split: {split}", f"    path: {of.hub_config}/{split}-*"]
    (folder / "README.md").write_text("\n".join([*head, "---"]))
    return folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def hub(stored: Path, tmp_path: Path) -> Path:
    """The folder stands where datasets looks before it asks the Hub."""
    (tmp_path / "nyu-mll").mkdir()
    (tmp_path / "nyu-mll/glue").symlink_to(stored)
    return stored


def texts(examples: list[Example]) -> list[tuple[object, ...]]:
    return [
        (*example[:2], example.label and round(cast(float, example.label), 3), example.row)
        for example in examples
    ]


@pytest.mark.usefixtures("hub")
def test_every_task_is_written_as_glue_has_it_and_what_differs_is_named(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(["out"]) == 1
    told = capsys.readouterr().err
    for of in TASKS.values():
        for split, count in of.counts.items():
            expected = f"{of.name}'s {split} split has 3 examples, and GLUE's has {count:,}"
            assert (expected in told) == (count > SMALL)
            written = load_split(of, split, tmp_path / "out")
            assert texts(written) == texts(load_split(of, split)) and len(written) in (3, count)
            if of.name in PLACES:
                label, labelled, unlabelled = PLACES[of.name]
                test = split.startswith("test")
                path = tmp_path / "out" / of.folders[0] / of.files[split]
                cells = path.read_text(encoding="utf-8").splitlines()[-1].split("\t")
                sentences = [cells[place] for place in (unlabelled if test else labelled)]
                assert sentences == [
                    sentence for sentence in written[-1][:2] if sentence is not None
                ]
                if test:
                    assert cells[0] == str(written[-1].row)
                elif of.labels:
                    assert cells[label] == of.file_labels[cast(int, written[-1].label or 0)]
                else:
                    assert float(cells[label]) == written[-1].label


def test_it_goes_on_where_it_was_stopped(script: Any, hub: Path, tmp_path: Path) -> None:
    assert script.main(["out", "--tasks", "wnli", "ax"]) == 0
    files = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.tsv")}
    assert sorted(path.name for path in files) == [
        "dev.tsv",
        "diagnostic.tsv",
        "test.tsv",
        "train.tsv",
    ]
    made = {path: path.stat().st_ino for path in files}
    missing, cut = tmp_path / "out/WNLI/train.tsv", tmp_path / "out/WNLI/test.tsv"
    kept = [path for path in files if path not in (missing, cut)]
    missing.unlink()
    cut.write_bytes(files[cut][:-100])
    assert script.main(["out", "--tasks", "wnli", "ax"]) == 0
    assert {
        path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()
    } == files
    assert all(path.stat().st_ino == made[path] for path in kept)
    # With all files there the Hub is not asked.
    (tmp_path / "nyu-mll/glue").unlink()
    shutil.rmtree(tmp_path / "cache")
    assert script.main(["out", "--tasks", "wnli", "ax"]) == 0


def test_without_a_network_it_says_what_to_do(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(["out", "--tasks", "rte"]) == 1
    told = capsys.readouterr().err
    assert "rte's train split could not be loaded from nyu-mll/glue on the Hub" in told
    assert "Connect to the network once" in told and "Run the script again to resume" in told
    assert not (tmp_path / "out").exists()


def test_an_unknown_task_is_answered_with_the_nearest(
    script: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(["out", "--tasks", "STS-B"]) == 1
    assert "There is no GLUE task 'STS-B'. Did you mean stsb?" in capsys.readouterr().err


def test_a_text_that_a_line_cannot_hold_is_refused(script: Any) -> None:
    with pytest.raises(
        script.UserError, match="Row 4 of rte's train split in nyu-mll/glue contains a tab"
    ):
        script.file_lines(task("rte"), "train", [Example("a\tb", "c", 0, 4)])
