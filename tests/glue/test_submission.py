"""A submission is GLUE's to the byte, and predictions that GLUE would not take are refused before
it is written.
"""

import csv
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sqzb.errors import UserError
from sqzb.glue.submission import Predictions, write
from sqzb.glue.tasks import TASKS

# By GLUE's FAQ: the file of each test split, its rows, and what a prediction may be.
BINARY, TWO_WAY = {"0", "1"}, {"entailment", "not_entailment"}
THREE_WAY = {"entailment", "neutral", "contradiction"}
FILES = {
    "CoLA.tsv": ("cola", "test", 1063, BINARY),
    "SST-2.tsv": ("sst2", "test", 1821, BINARY),
    "MRPC.tsv": ("mrpc", "test", 1725, BINARY),
    "STS-B.tsv": ("stsb", "test", 1379, None),
    "QQP.tsv": ("qqp", "test", 390965, BINARY),
    "MNLI-m.tsv": ("mnli", "test_matched", 9796, THREE_WAY),
    "MNLI-mm.tsv": ("mnli", "test_mismatched", 9847, THREE_WAY),
    "QNLI.tsv": ("qnli", "test", 5463, TWO_WAY),
    "RTE.tsv": ("rte", "test", 3000, TWO_WAY),
    "WNLI.tsv": ("wnli", "test", 146, BINARY),
    "AX.tsv": ("ax", "test", 1104, THREE_WAY),
}


@pytest.fixture(scope="module")
def predictions() -> Predictions:
    """Of every split, in another order than the index's, each class about equally often."""
    draw = np.random.default_rng(0)
    made: dict[tuple[str, str], dict[int, float]] = {}
    for task, split, count, values in FILES.values():
        drawn = (
            draw.normal(2.5, 2, count) if values is None else draw.integers(0, len(values), count)
        )
        made[task, split] = dict(zip(draw.permutation(count).tolist(), drawn, strict=True))
    return made


@pytest.fixture(scope="module")
def whole(predictions: Predictions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("submission") / "glue.zip"
    write(path, predictions)
    return path


def test_it_is_eleven_files_of_glues_form_that_a_tsv_reader_reads(
    whole: Path, predictions: Predictions
) -> None:
    with zipfile.ZipFile(whole) as archive:
        assert sorted(archive.namelist()) == sorted(FILES) and archive.testzip() is None
        for name, (task, split, count, values) in FILES.items():
            rows = list(csv.DictReader(io.StringIO(archive.read(name).decode()), delimiter="\t"))
            assert [list(row) for row in rows[:1]] == [["index", "prediction"]]
            assert [row["index"] for row in rows] == [str(index) for index in range(count)]
            given_ = [predictions[task, split][index] for index in range(count)]
            if values is None:
                numbers = [float(row["prediction"]) for row in rows]
                assert (
                    np.allclose(numbers, np.clip(given_, 0, 5), atol=1e-6)
                    and 0 <= min(numbers) < max(numbers) <= 5
                )
            else:
                assert {row["prediction"] for row in rows} == values
                labels = TASKS[task].labels
                if values != BINARY:
                    assert [labels.index(row["prediction"]) for row in rows] == given_
                else:
                    assert [int(row["prediction"]) for row in rows] == given_


def test_equal_predictions_are_equal_bytes(
    whole: Path, predictions: Predictions, tmp_path: Path
) -> None:
    backwards = {
        key: dict(reversed([*values.items()])) for key, values in reversed([*predictions.items()])
    }
    write(tmp_path / "again.zip", backwards)
    assert (tmp_path / "again.zip").read_bytes() == whole.read_bytes()


def test_all_problems_are_listed_at_once_and_nothing_appears(
    predictions: Predictions, tmp_path: Path
) -> None:
    small = {
        key: values for key, values in predictions.items() if key[0] != "qqp"
    }  # missing: one problem
    small["cola", "validation"] = {0: 1}
    small["rte", "test"] = {**small["rte", "test"], 2: 7}
    small["wnli", "test"] = {index: 0 for index in range(147) if index != 3}
    small["stsb", "test"] = {**small["stsb", "test"], 4: float("nan"), 9: float("inf")}
    small["mrpc", "test"] = {**small["mrpc", "test"], 0: 0.5}
    path = tmp_path / "glue.zip"
    path.write_bytes(b"what was there")
    with pytest.raises(UserError) as caught:
        write(path, small)
    assert str(caught.value).splitlines() == [
        f"The submission {path} cannot be written:",
        "  cola's validation split has no place in it",
        "  MRPC.tsv:2: the prediction is '0.5' and must be 0 or 1",
        "  QQP.tsv is missing (qqp's test split)",
        "  STS-B.tsv:6: the prediction is 'nan' and must be a number from 0 to 5",
        "  RTE.tsv:4: the prediction is '7' and must be entailment or not_entailment",
        "  WNLI.tsv:5: the index is '4' and must be 3",
        "Predict GLUE's whole test splits, and write it anew.",
    ]
    assert path.read_bytes() == b"what was there" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda values: {}, ["AX.tsv has 0 rows and must have 1,104"]),
        (lambda values: {0: 1}, ["AX.tsv has 1 row and must have 1,104"]),
        (lambda values: values | {1104: 1}, ["AX.tsv has 1,105 rows and must have 1,104"]),
        (
            lambda values: {index + 1: value for index, value in values.items()},
            ["AX.tsv:2: the index is '1' and must be 0"],
        ),
        (
            lambda values: values | {7: 3, 9: -1},
            ["AX.tsv:9: the prediction is '3' and must be entailment or neutral or contradiction"],
        ),
    ],
)
def test_a_file_that_is_not_glues(
    predictions: Predictions,
    tmp_path: Path,
    change: Callable[..., dict[int, float]],
    told: list[str],
) -> None:
    with pytest.raises(UserError) as caught:
        write(tmp_path / "glue.zip", {("ax", "test"): change(predictions["ax", "test"])})
    found = str(caught.value).splitlines()[1:-1]
    assert [line for line in found if "AX" in line] == [f"  {line}" for line in told]
