"""A submission is GLUE's to the byte, and what GLUE would not take is told before it is sent."""

import csv
import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqzb.errors import UserError
from sqzb.glue.submission import Predictions, check, write
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
        drawn = draw.normal(2.5, 2, count) if values is None else draw.integers(0, len(values), count)
        made[task, split] = dict(zip(draw.permutation(count).tolist(), drawn, strict=True))
    return made


@pytest.fixture(scope="module")
def whole(predictions: Predictions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("submission") / "glue.zip"
    write(path, predictions)
    return path


@pytest.fixture
def changed(whole: Path, tmp_path: Path) -> Callable[..., str]:
    """Put other files in the zip, or leave out those that are None; what `check` says, a line a problem."""

    def change(**files: bytes | None) -> str:
        path = tmp_path / "changed.zip"
        others = {name.replace("_", "-") + ".tsv": content for name, content in files.items()}
        with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w") as target:
            for name in source.namelist():
                content = others.get(name, source.read(name) if name not in others else None)
                if content is not None:
                    target.writestr(name, content)
        return refusal(path)

    return change


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        check(path)
    message = str(caught.value)
    assert message.startswith(f"The submission {path} cannot be sent to GLUE:\n  ")
    return message


def content(path: Path, name: str) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(name)


def test_it_is_eleven_files_of_glues_form_that_a_tsv_reader_reads(whole: Path, predictions: Predictions) -> None:
    check(whole)
    with zipfile.ZipFile(whole) as archive:
        assert sorted(archive.namelist()) == sorted(FILES) and archive.testzip() is None
        for name, (task, split, count, values) in FILES.items():
            rows = list(csv.DictReader(io.StringIO(archive.read(name).decode()), delimiter="\t"))
            assert [list(row) for row in rows[:1]] == [["index", "prediction"]]
            assert [row["index"] for row in rows] == [str(index) for index in range(count)]
            given_ = [predictions[task, split][index] for index in range(count)]
            if values is None:
                numbers = [float(row["prediction"]) for row in rows]
                assert np.allclose(numbers, np.clip(given_, 0, 5), atol=1e-6) and 0 <= min(numbers) < max(numbers) <= 5
            else:
                assert {row["prediction"] for row in rows} == values
                labels = TASKS[task].labels
                if values != BINARY:
                    assert [labels.index(row["prediction"]) for row in rows] == given_
                else:
                    assert [int(row["prediction"]) for row in rows] == given_


def test_equal_predictions_are_equal_bytes(whole: Path, predictions: Predictions, tmp_path: Path) -> None:
    backwards = {key: dict(reversed(values.items())) for key, values in reversed(predictions.items())}
    write(tmp_path / "again.zip", backwards)
    assert (tmp_path / "again.zip").read_bytes() == whole.read_bytes()


def test_all_problems_are_listed_at_once_and_nothing_appears(predictions: Predictions, tmp_path: Path) -> None:
    small = {key: values for key, values in predictions.items() if key[0] != "qqp"}  # missing: one problem
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
    ("lines", "told"),
    [
        (b"", ["AX.tsv:1: the header is '' and must be 'index\\tprediction'", "AX.tsv has 0 rows and must have 1,104"]),
        (b"index,prediction\n0,neutral\n", ["AX.tsv:1: the header is 'index,prediction'", "AX.tsv has 1 rows"]),
        (b"index\tprediction\n1\tneutral\n", ["AX.tsv:2: the index is '1' and must be 0"]),
        (b"index\tprediction\n0\tNeutral\n", ["AX.tsv:2: the prediction is 'Neutral' and must be entailment or"]),
        (b"index\tprediction\n0\tneutral\t\n", ["AX.tsv:2: the prediction is 'neutral\\t'"]),
        (b"index\tprediction\r\n0\tneutral\r\n", ["AX.tsv:1: the header is 'index\\tprediction\\r'"]),
        (b"index\tprediction\n0\tneutral\n\n", ["AX.tsv has 2 rows", "AX.tsv:3: the index is ''"]),
        (b"\xff\xfe\n" + b"x" * 500, ["AX.tsv:2: the index is 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...'"]),
    ],
)
def test_a_file_that_is_not_glues(changed: Callable[..., str], lines: bytes, told: list[str]) -> None:
    message = changed(AX=lines)
    assert all(f"\n  {line}" in message for line in told)
    assert set(re.findall(r"\n  ([^:\s]+)", message)) == {"AX.tsv"}


@pytest.mark.parametrize("value", ["-0.1", "5.01", "nan", "1e0", "1_0", " 1", "", "five"])
def test_a_score_that_is_no_plain_number_within_the_range(whole: Path, changed: Callable[..., str], value: str) -> None:
    header, _, *rest = content(whole, "STS-B.tsv").decode().splitlines(keepends=True)
    message = changed(STS_B="".join([header, f"0\t{value}\n", *rest]).encode())
    assert message.splitlines()[1:-1] == [
        f"  STS-B.tsv:2: the prediction is {value!r} and must be a number from 0 to 5"
    ]


def test_missing_and_foreign_files(changed: Callable[..., str], tmp_path: Path) -> None:
    assert "\n  AX.tsv is missing (ax's test split)\n" in changed(AX=None)
    with zipfile.ZipFile(tmp_path / "changed.zip", "a") as archive:
        archive.writestr("sub/AX.tsv", "")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("CoLA.tsv", "")
    message = refusal(tmp_path / "changed.zip")
    assert "\n  CoLA.tsv is in it twice\n  'sub/AX.tsv' does not belong in it\n" in message


def test_what_is_no_zip_or_a_damaged_one(whole: Path, tmp_path: Path) -> None:
    assert "it cannot be read as a zip (" in refusal(tmp_path / "missing.zip")
    assert "it cannot be read as a zip (" in refusal(tmp_path)
    path = tmp_path / "cut.zip"
    path.write_bytes(whole.read_bytes()[:-100])
    assert "it cannot be read as a zip (" in refusal(path)


@settings(max_examples=10)
@given(place=st.floats(0, 1, exclude_max=True) | st.floats(0.999, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_told_or_harmless(whole: Path, tmp_path_factory: pytest.TempPathFactory, place, bit) -> None:
    raw = bytearray(whole.read_bytes())
    raw[int(place * len(raw))] ^= 1 << bit
    path = tmp_path_factory.mktemp("flipped") / "glue.zip"
    path.write_bytes(raw)
    try:
        check(path)
    except UserError:
        return
    for name in FILES:  # it was of a date or another thing that does not matter
        assert content(path, name) == content(whole, name)
