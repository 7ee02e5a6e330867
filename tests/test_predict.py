"""sqzb predict: each row keeps its columns and its place, and gets what the model predicts
alone.
"""

import csv
import io
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples import scaled
from saved_runs import remember, save_run
from sqzb import using
from sqzb.data.formats import open_table
from sqzb.data.formats.common import Row, Table
from sqzb.data.texts import TextTable
from sqzb.errors import UserError
from sqzb.predict import (
    LIKELIEST,
    MOST_SHOWN,
    added_columns,
    predict_file,
    predict_rows,
    print_predictions,
    sentences_table,
    shown,
    write_predictions,
)
from sqzb.using import (
    ClassPrediction,
    FinetunedModel,
    LabelsPrediction,
    NumberPrediction,
    TokensPrediction,
    load,
)

COLA = ("unacceptable", "acceptable")
TEXTS = ["the letter", "Water, and a stone bridge over it.", "garden", "", "of the river", "music"]


@pytest.fixture(scope="module")
def run(vocabulary: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of single texts, which are cut at 16 tokens."""
    return save_run(tmp_path_factory.mktemp("cola"), vocabulary, task="cola", max_length=16)


@pytest.fixture(scope="module")
def pairs(vocabulary: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A regression of pairs."""
    return save_run(tmp_path_factory.mktemp("stsb"), vocabulary, task="stsb")


@pytest.fixture(scope="module")
def model(run: Path) -> FinetunedModel:
    return load(run)


def write_csv(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def in_memory(texts: Sequence[str]) -> Table:
    rows = [Row(number, {"text": text}) for number, text in enumerate(texts, 1)]
    return Table("memory", ("text",), "row", lambda wanted: iter(rows))


@given(st.lists(st.sampled_from(TEXTS), max_size=12), st.integers(1, 5))
@settings(max_examples=scaled(7))
def test_any_rows_in_any_window_are_predicted_as_alone(
    model: FinetunedModel, texts: list[str], window: int
) -> None:
    parts = list(predict_rows(model, TextTable(in_memory(texts), ("text",)), window))
    assert [row.values["text"] for part in parts for row in part.rows] == texts
    predictions = [prediction for part in parts for prediction in part.predictions]
    for text, prediction in zip(texts, predictions, strict=True):
        if text == "":
            assert prediction is None
            continue
        (alone,) = model.predict([text])
        assert isinstance(prediction, ClassPrediction) and isinstance(alone, ClassPrediction)
        assert prediction.probabilities == pytest.approx(alone.probabilities, abs=1e-6)


@pytest.mark.parametrize("window", [1, 8, 40])
def test_rows_are_read_at_most_a_window_ahead(model: FinetunedModel, window: int) -> None:
    read = 0

    def rows(wanted: Sequence[str]) -> Iterator[Row]:
        nonlocal read
        for number in range(1, 71):
            read += 1
            yield Row(number, {"text": "water"})

    written = 0
    table = Table("many", ("text",), "row", rows)
    for part in predict_rows(model, TextTable(table, ("text",)), window):
        written += len(part.rows)
        assert read - written <= window
    assert read == written == 70


@pytest.mark.parametrize("ending", [".csv", ".tsv.gz", ".jsonl", ".parquet"])
def test_columns_and_order_are_kept(
    ending: str, run: Path, model: FinetunedModel, tmp_path: Path
) -> None:
    rows = [(str(number), text, "x\ny") for number, text in enumerate(TEXTS * 7)]
    given_file = write_csv(tmp_path / "new.csv", [("id", "text", "note"), *rows])
    output = tmp_path / f"out{ending}"
    write_predictions(str(run), [str(given_file)], output, [], "processes")

    table = open_table(output)
    added = ("label", "probability_unacceptable", "probability_acceptable")
    assert table.columns == ("id", "text", "note", *added)
    found = [row.values for row in table.rows()]
    assert [(row["id"], row["text"], row["note"]) for row in found] == rows
    for values in found:
        if values["text"] == "":
            assert {values[name] for name in added} <= {"", None}
            continue
        (alone,) = model.predict([values["text"]])
        assert isinstance(alone, ClassPrediction) and values["label"] == alone.label
        probabilities = [float(values[name]) for name in added[1:]]
        assert probabilities == pytest.approx(list(alone.probabilities.values()), abs=1e-6)


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_a_table_without_rows_stays_one(ending: str, run: Path, tmp_path: Path) -> None:
    new = write_csv(tmp_path / "new.csv", [("id", "text")])
    write_predictions(str(run), [str(new)], tmp_path / f"out{ending}", [], "processes")
    if ending == ".jsonl":
        assert (tmp_path / "out.jsonl").read_bytes() == b""
    else:
        table = open_table(tmp_path / f"out{ending}")
        assert table.columns[:3] == ("id", "text", "label") and [*table.rows()] == []


def test_values_of_json_and_parquet_keep_their_types(run: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"text": "the letter", "n": 1, "tags": ["a", "b"], "none": None},
        {"text": "garden", "n": 2, "tags": [], "none": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "new.parquet")
    for output in (tmp_path / "out.jsonl", tmp_path / "again.parquet"):
        write_predictions(str(run), [str(tmp_path / "new.parquet")], output, [], "processes")
        found = [dict(row.values) for row in open_table(output).rows()]
        assert [{name: row[name] for name in rows[0]} for row in found] == rows


def test_scores_of_pairs_and_a_name_that_is_taken(pairs: Path, tmp_path: Path) -> None:
    rows = [("score", "p", "h"), ("old", "river", "water")]
    given_file = write_csv(tmp_path / "new.csv", rows)
    write_predictions(str(pairs), [str(given_file)], tmp_path / "out.csv", ["p", "h"], "processes")
    (row,) = read_csv(tmp_path / "out.csv")
    (alone,) = load(pairs).predict([("river", "water")])
    assert isinstance(alone, NumberPrediction)
    assert row == {
        "score": "old",
        "p": "river",
        "h": "water",
        "predicted_score": json.dumps(alone.value),
    }


def test_all_added_names_get_the_prefix_where_one_is_taken(model: FinetunedModel) -> None:
    plain = ["label", *(f"probability_{name}" for name in COLA)]
    assert added_columns(model, ["text"]) == plain
    assert added_columns(model, ["text", "label"]) == [f"predicted_{name}" for name in plain]
    taken = ["label", "predicted_probability_acceptable"]
    assert added_columns(model, taken) == [f"predicted_predicted_{name}" for name in plain]


def test_remembered_columns_are_read(vocabulary: Path, tmp_path: Path) -> None:
    run = save_run(tmp_path / "run", vocabulary, labels=COLA)
    remember(run, "review")
    new = write_csv(tmp_path / "new.csv", [("text", "review"), ("river", "garden")])
    write_predictions(str(run), [str(new)], tmp_path / "out.jsonl", [], "processes")
    (found,) = open_table(tmp_path / "out.jsonl").rows()
    (alone,) = load(run).predict(["garden"])
    assert isinstance(alone, ClassPrediction)
    assert found.values["probability_acceptable"] == alone.probabilities["acceptable"]


def test_lines_of_text_are_printed_a_line_each(
    run: Path, model: FinetunedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Empty lines stay empty ones."""
    file = tmp_path / "lines.txt"
    file.write_bytes("\ufeffthe letter\r\n\r\n  \r\ngarden".encode())
    print_predictions(str(run), open_table(file), [], as_json=False)
    printed = capsys.readouterr()
    first, last = model.predict(["the letter", "garden"])
    assert printed.out.split("\n") == [shown(first), "", "", shown(last), ""]
    assert f"{file}:2 and 1 more" in printed.err


def test_a_sentence_is_printed_as_json(
    run: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_predictions(str(run), sentences_table(["the letter"]), [], as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["text"] == "the letter" and found["label"] in COLA
    assert found["probability_unacceptable"] + found["probability_acceptable"] == pytest.approx(1)
    print_predictions(str(pairs), sentences_table(["a", "b"]), [], as_json=True)
    assert list(json.loads(capsys.readouterr().out)) == ["text_a", "text_b", "score"]


@pytest.mark.parametrize("given_input", ["the letter\n\ngarden\n", '{"x": 1, "text": "garden"}\n'])
def test_standard_input_is_lines_or_objects(
    given_input: str,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def standard_input() -> io.TextIOWrapper:
        return io.TextIOWrapper(io.BufferedReader(io.BytesIO(given_input.encode())))

    monkeypatch.setattr(sys, "stdin", standard_input())
    print_predictions(str(run), open_table("-"), [], as_json=True)
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(printed) == given_input.count("\n")
    monkeypatch.setattr(sys, "stdin", standard_input())
    write_predictions(str(run), ["-"], tmp_path / "out.jsonl", [], "processes")
    assert [dict(row.values) for row in open_table(tmp_path / "out.jsonl").rows()] == printed
    with pytest.raises(UserError, match="standard input can be read once"):
        write_predictions(str(run), ["-"], tmp_path / "out.parquet", [], "processes")


def test_texts_that_are_cut_are_warned_of(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new.txt"
    new.write_text("water " * 15 + "\n" + "water " * 14 + "\n")
    write_predictions(str(run), [str(new)], tmp_path / "out.csv", [], "processes")
    printed = capsys.readouterr()
    assert f"{new}: 1 of 2 texts have more than 16 tokens" in printed.err
    assert f"out.csv: 2 rows of {new}. Texts: text. Added: label, prob" in printed.out


def test_nothing_is_written_where_a_later_row_is_bad(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row is found before anything is predicted."""
    new = tmp_path / "new.jsonl"
    new.write_text('{"text": "a"}\n' * 50 + '{"text": 3}\n')
    monkeypatch.setattr(using, "predict", None)
    with pytest.raises(UserError, match=re.escape(f"{new}:51: 'text' holds a number (3)")):
        write_predictions(str(run), [str(new)], tmp_path / "out.csv", [], "processes")
    assert [file.name for file in tmp_path.iterdir()] == ["new.jsonl"]


def test_several_files_keep_their_names_in_a_folder(
    run: Path, model: FinetunedModel, tmp_path: Path
) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    for name, text in (("one", "garden"), ("two", "river"), ("three", "music")):
        write_csv(shards / f"{name}.csv", [("text",), (text,)])
    write_predictions(str(run), [str(shards)], tmp_path / "out", [], "processes")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "one.csv",
        "three.csv",
        "two.csv",
    ]
    for name in ("one", "two", "three"):
        alone = tmp_path / f"{name}.csv"
        predict_file(model, str(shards / f"{name}.csv"), alone)
        assert (tmp_path / "out" / f"{name}.csv").read_bytes() == alone.read_bytes()


def test_what_cannot_be_predicted_is_told(run: Path, pairs: Path, tmp_path: Path) -> None:
    new = write_csv(tmp_path / "new.csv", [("text",), ("river",)])
    (tmp_path / "other").mkdir()
    other = write_csv(tmp_path / "other" / "new.csv", [("text",), ("river",)])
    for path, files, output, said in (
        (run, [new], "out.xlsx", "none of the endings that can be written"),
        (run, [new], "new.csv", "is the input"),
        (pairs, [new], "out.csv", "needs two texts per example, and the column recognised is text"),
        (run, [new, new], "out.csv", "one file. Give a folder"),
        (run, [new, other], "out", "both be written to"),
        (run, [tmp_path / "none.csv"], "out", "There is no file, folder or glob"),
    ):
        with pytest.raises(UserError, match=said):
            names = [str(file) for file in files]
            write_predictions(str(path), names, tmp_path / output, [], "processes")
    with pytest.raises(UserError, match=r"and --text is text\. Give --text A,B"):
        write_predictions(str(pairs), [str(new)], tmp_path / "out.csv", ["text"], "processes")


def test_several_labels_are_a_list(vocabulary: Path, tmp_path: Path) -> None:
    problem_type, names = "multi_label_classification", ("red", "green")
    run = save_run(tmp_path / "run", vocabulary, labels=names, problem_type=problem_type)
    new = write_csv(tmp_path / "new.csv", [("text",), ("river",), ("garden",), ("",)])
    for ending in ("csv", "jsonl", "parquet"):
        output = tmp_path / f"out.{ending}"
        write_predictions(str(run), [str(new)], output, [], "processes")
        found = [dict(row.values) for row in open_table(output).rows()]
        assert list(found[0]) == ["text", "labels", "probability_red", "probability_green"]
        for row in found[:2]:
            labels = json.loads(row["labels"]) if ending == "csv" else row["labels"]
            due = [name for name in names if float(row[f"probability_{name}"]) >= 0.5]
            assert labels == due
        assert found[2]["labels"] in ("", None)


def test_words_and_texts_get_tags_and_entities(vocabulary: Path, tmp_path: Path) -> None:
    run = save_run(tmp_path / "run", vocabulary, labels=("O", "B-PER", "I-PER"), tokens=True)
    rows: list[dict[str, list[str]]] = [
        {"words": ["water", "river"]},
        {"words": ["stone"] * 3},
        {"words": []},
    ]
    (tmp_path / "new.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (tmp_path / "new.txt").write_text("".join(f"{' '.join(row['words'])}\n" for row in rows))
    for ending in ("jsonl", "parquet"):
        output = tmp_path / f"out.{ending}"
        found = []
        for new in ("new.jsonl", "new.txt"):
            write_predictions(
                str(run), [str(tmp_path / new)], output, [], "processes", overwrite=True
            )
            found.append([dict(row.values) for row in open_table(output).rows()])
        of_words, of_texts = found
        for row, same in zip(of_words, of_texts, strict=True):
            assert (row["tags"], row["entities"]) == (same["tags"], same["entities"])
        for row, given_row in zip(of_words[:2], rows, strict=False):
            assert row["words"] == given_row["words"] and len(row["tags"]) == len(row["words"])
            for entity in row["entities"]:
                text = " ".join(row["words"])
                assert text[entity["start"] : entity["end"]] == entity["text"]
        assert of_words[2]["tags"] is None


def test_a_sentence_in_place_of_a_pair_is_told(run: Path, pairs: Path) -> None:
    with pytest.raises(UserError, match=r"needs two texts per example, not 1\. Put each"):
        print_predictions(str(pairs), sentences_table(["a"]), [], as_json=False)
    with pytest.raises(UserError, match=r"needs one text per example, not 2\. Put each"):
        print_predictions(str(run), sentences_table(["a", "b"]), [], as_json=False)


def test_the_line_that_is_shown() -> None:
    found = ClassPrediction("b", 0.931, {"a": 0.069, "b": 0.931})
    assert shown(found) == "b\ta 6.9%\tb 93.1%"
    assert shown(NumberPrediction(3.25)) == "3.2500"
    assert shown(LabelsPrediction(("a", "b"), {"a": 0.6, "b": 0.7})) == "a, b\ta 60.0%\tb 70.0%"
    assert shown(LabelsPrediction((), {"a": 0.25})) == "(none)\ta 25.0%"
    assert shown(TokensPrediction(("Ada", "ran"), ("B-PER", "O"), ())) == "Ada/B-PER ran/O"
    assert shown(LabelsPrediction(("a\nb",), {"a\nb": 0.6})) == "a b\ta b 60.0%"
    assert shown(None) == ""


@given(st.integers(1, 300))
def test_of_many_names_a_line_has_the_likeliest(count: int) -> None:
    probabilities = {f"c{number}": number / 1000 for number in range(count)}
    label = f"c{count - 1}"
    first, *each = shown(ClassPrediction(label, 0.5, probabilities)).split("\t")
    assert first == label
    if count <= MOST_SHOWN:
        assert each == [f"{name} {value:.1%}" for name, value in probabilities.items()]
        return
    likeliest = [f"c{number} {number / 1000:.1%}" for number in range(count - 1, count - 6, -1)]
    assert each == [*likeliest, f"and {count - LIKELIEST} more (--json has all)"]


def test_a_lone_carriage_return_ends_no_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new.txt"
    new.write_bytes(b"the letter\rof the river\r\ngarden\n\rmusic\n")
    assert [dict(row.values) for row in open_table(str(new)).rows()] == [
        {"text": "the letter\rof the river"},
        {"text": "garden"},
        {"text": "\rmusic"},
    ]
    print_predictions(str(run), open_table(str(new)), [], as_json=False)
    assert len(capsys.readouterr().out.splitlines()) == 3
    new.write_bytes(b"the letter\rgarden\r")
    with pytest.raises(UserError, match=r"new.txt:1: the lines end with carriage returns only"):
        open_table(str(new))


def test_predictions_replace_a_file_only_where_that_is_asked_for(run: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.csv", "b.csv"):
        (tmp_path / "in" / name).write_text("text\ngarden\n")
    (tmp_path / "out").mkdir()
    for files, output, kept in (
        ([str(tmp_path / "in" / "a.csv")], tmp_path / "out.csv", tmp_path / "out.csv"),
        ([str(tmp_path / "in")], tmp_path / "out", tmp_path / "out" / "b.csv"),
    ):
        kept.write_text("own")
        with pytest.raises(UserError, match=f"{kept} exists and is not overwritten"):
            write_predictions(str(run), files, output, [], "processes")
        assert kept.read_text() == "own" and not (tmp_path / "out" / "a.csv").exists()
        write_predictions(str(run), files, output, [], "processes", overwrite=True)
        assert kept.read_text().startswith("text,label")


def test_no_line_has_a_tab_or_a_command_of_a_label(
    vocabulary: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = ("a\tb", "c\nd\x1b[2J")
    odd = save_run(tmp_path / "odd", vocabulary, labels=labels)
    table = sentences_table(["the letter"])
    print_predictions(str(odd), table, [], as_json=False)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.count("\t") == 2 and "\x1b" not in line
    print_predictions(str(odd), table, [], as_json=True)
    printed = capsys.readouterr().out
    assert "\x1b" not in printed and set(json.loads(printed)) >= {f"probability_{labels[1]}"}
