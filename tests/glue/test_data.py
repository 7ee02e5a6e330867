"""Reading GLUE: every layout of its own files, the Hub, and an answer to each thing that can be
wrong.
"""

import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import datasets
import huggingface_hub.errors
import pytest

from sqzb import hub
from sqzb.data.dataset import Example, Label, in_common
from sqzb.errors import UserError
from sqzb.glue.data import differing_count, empty_sentences, load_split
from sqzb.glue.tasks import TASKS, Task, task

MRPC, RTE, COLA, STSB, MNLI, AX = (
    task(name) for name in ("mrpc", "rte", "cola", "stsb", "mnli", "ax")
)
REAL = Path(os.environ.get("SQZB_DATA", "")) / "glue"
MRPC_HEADER = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"
COMMIT = "0123456789" * 4
RTE_HEADER = "index\tsentence1\tsentence2\tlabel"


def write(path: Path, *lines: str, end: str = "\n", bom: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((bom + "".join(line + end for line in lines)).encode())
    return path


def refusal(of: Task, split: str, glue_dir: Path | None) -> str:
    with pytest.raises(UserError) as caught:
        load_split(of, split, glue_dir)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


def texts(examples: list[Example]) -> list[tuple[str, str | None, Label | None]]:
    return [example[:3] for example in examples]


# Files


@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_labels_by_index_quotes_bom_and_line_ends(tmp_path: Path, end: str, bom: str) -> None:
    rows = [
        '1\t11\t12\t"Open, he said.\tHe said: "open".',
        '0\t13\t14\tSnow\x85\u2028falls\tRain\'s "on""',
    ]
    write(tmp_path / "MRPC/train.tsv", MRPC_HEADER, *rows, end=end, bom=bom)
    assert load_split(MRPC, "train", tmp_path) == [
        Example('"Open, he said.', 'He said: "open".', 1, 0),
        Example("Snow\x85\u2028falls", 'Rain\'s "on""', 0, 1),
    ]


def test_labels_by_name_and_columns_in_any_order_with_more_than_needed(tmp_path: Path) -> None:
    rows = ["x\tentailment\tb0\ta0\textra\tmore", "x\tnot_entailment\tb1\ta1"]
    write(tmp_path / "RTE/dev.tsv", "note\tlabel\tsentence2\tsentence1\tfurther", *rows)
    assert load_split(RTE, "validation", tmp_path) == [
        Example("a0", "b0", 0, 0),
        Example("a1", "b1", 1, 1),
    ]


def test_the_last_line_needs_no_end_and_empty_lines_after_it_do_not_count(tmp_path: Path) -> None:
    path = write(tmp_path / "RTE/dev.tsv", RTE_HEADER, "0\ta\tb\tentailment")
    expected = [Example("a", "b", 0, 0)]
    for tail in (b"", b"\n", b"\r\n\r\n"):
        path.write_bytes(path.read_bytes().rstrip() + tail)
        assert load_split(RTE, "validation", tmp_path) == expected


def test_an_empty_last_cell_is_a_cell(tmp_path: Path) -> None:
    write(tmp_path / "RTE/test.tsv", "index\tsentence1\tsentence2", "0\ta\t")
    assert load_split(RTE, "test", tmp_path) == [Example("a", "", None, 0)]


def test_test_labels_are_not_given_even_where_the_file_has_them(tmp_path: Path) -> None:
    write(tmp_path / "RTE/test.tsv", RTE_HEADER, "0\ta\tb\tentailment", "1\tc\td\twhatever")
    assert load_split(RTE, "test", tmp_path) == [
        Example("a", "b", None, 0),
        Example("c", "d", None, 1),
    ]


@pytest.mark.parametrize("folder", ["MRPC", "mrpc", "Mrpc"])
def test_the_folder_or_its_parent_in_any_case(
    tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / folder / "dev.tsv", MRPC_HEADER, "1\t1\t2\ta\tb")
    expected = [Example("a", "b", 1, 0)]
    assert load_split(MRPC, "validation", tmp_path) == expected
    assert load_split(MRPC, "validation", tmp_path / folder) == expected
    monkeypatch.chdir(tmp_path / folder)
    assert load_split(MRPC, "validation", Path(".")) == expected


def test_a_link_whose_own_name_or_whose_folders_name_is_the_tasks(tmp_path: Path) -> None:
    for link, folder in (("given/MRPC", "data/paraphrases"), ("given/other", "data/MRPC")):
        write(tmp_path / folder / "dev.tsv", MRPC_HEADER, f"1\t1\t2\ta\t{folder}")
        (tmp_path / "given").mkdir(exist_ok=True)
        (tmp_path / link).symlink_to(tmp_path / folder)
        assert load_split(MRPC, "validation", tmp_path / link) == [Example("a", folder, 1, 0)]


def test_another_tasks_folder_is_refused_though_its_files_have_the_same_names(
    tmp_path: Path,
) -> None:
    write(tmp_path / "WNLI/train.tsv", RTE_HEADER, "0\ta\tb\t1")
    message = refusal(RTE, "train", tmp_path / "WNLI")
    assert message.startswith(f"{tmp_path / 'WNLI'} has no folder RTE")


# MRPC as Microsoft gave it out


def write_msr(folder: Path) -> None:
    rows = ["1\t1\t2\ta\tb", "0\t3\t4\tc\td", "1\t5\t6\te\tf", "0\t2\t1\tg\th"]
    write(folder / "msr_paraphrase_train.txt", MRPC_HEADER, *rows, end="\r\n", bom="\ufeff")
    write(folder / "msr_paraphrase_test.txt", MRPC_HEADER, "1\t7\t8\ti\tj", bom="\ufeff")
    write(folder / "dev_ids.tsv", "5\t6", "1\t2")


@pytest.mark.parametrize("inside", ["MRPC", "MRPC/original"])
def test_mrpc_from_microsofts_files(tmp_path: Path, inside: str) -> None:
    write_msr(tmp_path / inside)
    # the pair (2, 1) is not the pair (1, 2)
    assert load_split(MRPC, "train", tmp_path) == [Example("c", "d", 0, 1), Example("g", "h", 0, 3)]
    assert load_split(MRPC, "validation", tmp_path) == [
        Example("a", "b", 1, 0),
        Example("e", "f", 1, 2),
    ]
    assert load_split(MRPC, "test", tmp_path) == [Example("i", "j", None, 0)]


def test_glues_own_train_file_comes_before_microsofts_and_the_two_are_not_mixed(
    tmp_path: Path,
) -> None:
    write_msr(tmp_path / "MRPC")
    write(tmp_path / "MRPC/train.tsv", MRPC_HEADER, "1\t9\t9\tx\ty")
    assert load_split(MRPC, "train", tmp_path) == [Example("x", "y", 1, 0)]
    assert str(tmp_path / "MRPC/dev.tsv") in refusal(MRPC, "validation", tmp_path)


def test_microsofts_files_without_dev_ids(tmp_path: Path) -> None:
    write_msr(tmp_path / "MRPC")
    (tmp_path / "MRPC/dev_ids.tsv").unlink()
    for split in ("train", "validation"):
        assert re.search(
            r"dev_ids\.tsv cannot be read .* in place of them all", refusal(MRPC, split, tmp_path)
        )


@pytest.mark.parametrize("line", ["5\t7", "#1 ID\t#2 ID"])
def test_dev_ids_that_are_not_in_microsofts_file(tmp_path: Path, line: str) -> None:
    write_msr(tmp_path / "MRPC")
    write(tmp_path / "MRPC/dev_ids.tsv", "5\t6", line)
    message = refusal(MRPC, "train", tmp_path)
    assert message.startswith(
        f"{tmp_path / 'MRPC/dev_ids.tsv'}:2: no row of msr_paraphrase_train.txt"
    )


# What can be wrong with files


def test_no_such_folder(tmp_path: Path) -> None:
    message = refusal(MRPC, "train", tmp_path / "glue")
    assert message.startswith(
        f"The folder {tmp_path / 'glue'} cannot be read (No such file or directory)."
    )
    assert "train.tsv, dev.tsv, test.tsv (or msr_paraphrase_train.txt, dev_ids.tsv" in message
    assert "Not a directory" in refusal(MRPC, "train", write(tmp_path / "file"))


def test_a_file_in_place_of_the_tasks_folder(tmp_path: Path) -> None:
    write(tmp_path / "MRPC")
    assert "has no folder MRPC (in any case)." in refusal(MRPC, "train", tmp_path)


def test_no_such_file(tmp_path: Path) -> None:
    (tmp_path / "RTE").mkdir()
    message = refusal(RTE, "test", tmp_path)
    assert message.startswith(
        f"{tmp_path / 'RTE/test.tsv'} cannot be read (No such file or directory). GLUE's own"
    )
    assert (
        "train.tsv, dev.tsv, test.tsv in a folder RTE" in message
        and "leave out --glue-dir" in message
    )


@pytest.mark.parametrize("content", ["", "\ufeff", "\n\r\n"])
def test_an_empty_file(tmp_path: Path, content: str) -> None:
    path = write(tmp_path / "RTE/train.tsv", content, end="")
    assert refusal(RTE, "train", tmp_path).startswith(f"{path} is empty.")


def test_a_header_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "RTE/train.tsv", RTE_HEADER)
    assert refusal(RTE, "train", tmp_path).startswith(f"{path} has a header line but no examples.")


def test_a_missing_column(tmp_path: Path) -> None:
    path = write(tmp_path / "RTE/train.tsv", "index\tsentence1\tlabel", "0\ta\tentailment")
    message = refusal(RTE, "train", tmp_path)
    assert message.startswith(
        f"{path}:1: there is no column 'sentence2'; the columns found are 'index', 'sentence1', "
        "'label'."
    )


def test_the_label_column_is_needed_outside_test(tmp_path: Path) -> None:
    write(tmp_path / "RTE/dev.tsv", "index\tsentence1\tsentence2", "0\ta\tb")
    assert "no column 'label'" in refusal(RTE, "validation", tmp_path)


@pytest.mark.parametrize(
    ("row", "found"), [("1\tc\td", "3 columns"), ("", "1 column"), ("1 c d entailment", "1 column")]
)
def test_a_row_with_too_few_columns(tmp_path: Path, row: str, found: str) -> None:
    path = write(
        tmp_path / "RTE/train.tsv", RTE_HEADER, "0\ta\tb\tentailment", row, "2\te\tf\tentailment"
    )
    assert refusal(RTE, "train", tmp_path).startswith(
        f"{path}:3: the row has {found} and 4 are needed"
    )


@pytest.mark.parametrize(
    ("of", "header", "value", "allowed"),
    [
        (RTE, RTE_HEADER, "contradiction", "entailment or not_entailment"),
        (RTE, RTE_HEADER, "0", "entailment or not_entailment"),
        (RTE, RTE_HEADER, "Entailment", "entailment or not_entailment"),
        (RTE, RTE_HEADER, "", "entailment or not_entailment"),
        (replace(RTE, file_labels=("0", "1")), RTE_HEADER, "2", "0 or 1"),
        (replace(RTE, file_labels=("0", "1")), RTE_HEADER, "-1", "0 or 1"),
        (replace(RTE, labels=(), file_labels=()), RTE_HEADER, "much", "a number from 0 to 5"),
        (replace(RTE, labels=(), file_labels=()), RTE_HEADER, "5.01", "a number from 0 to 5"),
        (replace(RTE, labels=(), file_labels=()), RTE_HEADER, "nan", "a number from 0 to 5"),
    ],
)
def test_an_unknown_label(tmp_path: Path, of: Task, header: str, value: str, allowed: str) -> None:
    good = "0\ta\tb\t" + (of.file_labels[0] if of.labels else "2.5")
    path = write(tmp_path / "RTE/train.tsv", header, good, f"1\tc\td\t{value}")
    message = refusal(of, "train", tmp_path)
    assert message.startswith(
        f"{path}:3: the label in column 'label' is {value!r}, and must be {allowed}."
    )


def test_not_utf8(tmp_path: Path) -> None:
    path = write(tmp_path / "RTE/train.tsv", RTE_HEADER, "0\ta\tb\tentailment", bom="\ufeff")
    path.write_bytes(path.read_bytes() + b"1\tcaf\xe9\tb\tentailment\n")
    message = refusal(RTE, "train", tmp_path)
    assert message.startswith(
        f"{path}:3: the file is not UTF-8 (byte 0xe9, after 5 others of the line)."
    )


def test_a_split_that_the_task_has_not(tmp_path: Path) -> None:
    assert refusal(MNLI, "validation", tmp_path).startswith(
        "GLUE's mnli has no split 'validation'. Its splits are train, validation_matched, "
        "validation_mismatched,"
    )


# What GLUE's other tasks need of the reader

# Header lines of train, dev and test as GLUE's own files have them (MNLI's of dev_matched; its
# train has label1 alone).
PARSES = "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse"  # noqa: E501
STS = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2"
HEADERS = {
    "cola": ("", "index\tsentence"),
    "sst2": ("sentence\tlabel", "index\tsentence"),
    "mrpc": (MRPC_HEADER, "index\t#1 ID\t#2 ID\t#1 String\t#2 String"),
    "qqp": ("id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", "id\tquestion1\tquestion2"),
    "stsb": (f"{STS}\tscore", STS),
    "mnli": (
        f"{PARSES}\tsentence1\tsentence2\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5\tgold_label",
        f"{PARSES}\tsentence1\tsentence2",
    ),
    "qnli": ("index\tquestion\tsentence\tlabel", "index\tquestion\tsentence"),
    "rte": (RTE_HEADER, "index\tsentence1\tsentence2"),
    "wnli": (RTE_HEADER, "index\tsentence1\tsentence2"),
    "ax": ("", "index\tsentence1\tsentence2"),
}


def line_of(of: Task, header: str, label: str, number: int, text: str = "") -> str:
    """A row under this header: its sentences are s0, s1 and so on with the number, or are
    `text`.
    """
    cells = dict.fromkeys(of.header or header.split("\t"), "x")
    cells |= {
        column: text or f"s{place} of {number}" for place, column in enumerate(of.file_columns)
    }
    cells |= {
        name: value
        for name, value in ((of.file_label, label), (of.file_index, str(number)))
        if name in cells
    }
    return "\t".join(cells.values())


def write_task(of: Task, folder: Path, text: str = "") -> None:
    """Every split of a task, two rows a label (or score), and of test 3 rows whose index counts
    down.
    """
    labels = of.file_labels or ("0.000", "2.750", "5.000")
    for split, name in of.files.items():
        training, test = HEADERS[of.name]
        if split.startswith("test"):
            rows = [line_of(replace(of, header=()), test, "", number, text) for number in (2, 1, 0)]
            write(folder / name, test, *rows)
        else:
            rows = [
                line_of(of, training, label, number, text)
                for number, label in enumerate(labels * 2)
            ]
            write(folder / name, *([] if of.header else [training]), *rows)


@pytest.mark.parametrize("of", TASKS.values(), ids=TASKS)
def test_every_task_in_glues_own_layout(of: Task, tmp_path: Path) -> None:
    write_task(of, tmp_path / of.folders[0])
    for split in of.files:
        found = load_split(of, split, tmp_path)
        if split.startswith("test"):
            assert [(example.label, example.row) for example in found] == [
                (None, 2),
                (None, 1),
                (None, 0),
            ]
        else:
            expected = range(len(of.labels)) if of.labels else (0.0, 2.75, 5.0)
            assert [example.label for example in found] == list(expected) * 2
            assert [example.row for example in found] == list(range(len(found)))
        for example in found:
            pair = f"s0 of {example.row}", f"s1 of {example.row}"
            assert example[:2] == (pair if len(of.columns) == 2 else (pair[0], None))


@pytest.mark.parametrize("of", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize("text", ["long " * 20_000, " "], ids=["100,000 characters", "empty"])
def test_sentences_of_any_length(of: Task, text: str, tmp_path: Path) -> None:
    write_task(of, tmp_path / of.folders[0], text)
    for split in of.files:
        assert {example.text_a for example in load_split(of, split, tmp_path)} == {text}


@pytest.mark.parametrize("of", TASKS.values(), ids=TASKS)
def test_a_test_file_as_train_is_told(of: Task, tmp_path: Path) -> None:
    if "train" not in of.files:
        assert refusal(of, "train", tmp_path).endswith(
            "Its splits are test. Finetune mnli, whose model predicts it."
        )
        return
    write_task(of, tmp_path / of.folders[0])
    path = tmp_path / of.folders[0] / "train.tsv"
    path.write_bytes((path.parent / of.files[of.test_splits[0]]).read_bytes())
    message = refusal(of, "train", tmp_path)
    assert message.startswith(
        f"{path}:1: there is no column '{of.file_label}'; the columns found are "
    )
    assert "This is a test file, whose labels GLUE does not publish" in message


@pytest.mark.parametrize(
    ("of", "folder"),
    [
        ("sst2", "SST-2"),
        ("sst2", "sst2"),
        ("sst2", "glue_data/SST-2"),
        ("sst2", "GLUE/sst-2"),
        ("stsb", "STSB"),
        ("stsb", "sts_b"),
        ("ax", "diagnostic"),
        ("ax", "glue_data/ax"),
    ],
)
def test_usual_folders(of: str, folder: str, tmp_path: Path) -> None:
    write_task(task(of), tmp_path / folder)
    (tmp_path / folder / "original").mkdir()  # the official archives have one beside the files
    for given in {tmp_path, (tmp_path / folder).parent, tmp_path / folder}:
        assert len(load_split(task(of), "test", given)) == 3


@pytest.mark.parametrize("name", ["diagnostic.tsv", "AX.tsv", "test.tsv"])
def test_names_of_the_diagnostic_file(name: str, tmp_path: Path) -> None:
    write(tmp_path / "AX" / name, "index\tsentence1\tsentence2", "0\ta\tb")
    assert load_split(AX, "test", tmp_path) == [Example("a", "b", None, 0)]
    (tmp_path / "AX" / name).unlink()
    assert "diagnostic.tsv (or AX.tsv or test.tsv) in a folder diagnostic or AX" in refusal(
        AX, "test", tmp_path
    )


@pytest.mark.parametrize(
    ("rows", "line", "told"),
    [
        (["0\ta\tb", "one\tc\td"], 3, "'one', and must be a whole number."),
        (["-1\ta\tb"], 2, "'-1', and must be a whole number."),
        (["\ta\tb"], 2, "'', and must be a whole number."),
        (["5\ta\tb", "6\tc\td", "5\te\tf"], 4, "'5', and is that of line 2 too."),
    ],
)
def test_an_index_that_a_submission_could_not_be_keyed_by(
    rows: list[str], line: int, told: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "RTE/test.tsv", "index\tsentence1\tsentence2", *rows)
    assert refusal(RTE, "test", tmp_path).startswith(
        f"{path}:{line}: the number in column 'index' is {told}"
    )


@pytest.mark.parametrize("of", TASKS.values(), ids=TASKS)
def test_a_file_cut_short_at_any_byte_is_told_or_counts_less(of: Task, tmp_path: Path) -> None:
    write_task(of, tmp_path / of.folders[0])
    for split, name in of.files.items():
        path = tmp_path / of.folders[0] / name
        content, whole = path.read_bytes(), load_split(of, split, tmp_path)
        for length in range(len(content) - 1):
            path.write_bytes(content[:length])
            try:
                found = load_split(of, split, tmp_path)
            except UserError as error:
                assert re.search(r"Get|get|Mend|place", str(error))
            else:
                # Only the last row's last cell may be shorter, unseen, where it is a text or a
                # number.
                assert found[:-1] == whole[: len(found) - 1]
                assert of.regression or found[-1].label == whole[len(found) - 1].label
        path.write_bytes(content)


def test_a_row_that_was_cut_short_is_told_as_such(tmp_path: Path) -> None:
    path = write(tmp_path / "RTE/train.tsv", RTE_HEADER, "0\ta\tb\tentailment", "1\tc", end="\n")
    path.write_bytes(path.read_bytes().rstrip())
    assert "The file was cut short here: get the file again." in refusal(RTE, "train", tmp_path)


def test_counts_other_than_glues_are_told() -> None:
    examples = [Example("a", "b", 0, row) for row in range(277)]
    assert differing_count(RTE, "validation", examples) is None
    assert differing_count(RTE, "validation", examples[1:]) == (
        "rte's validation split has 276 examples, and GLUE's has 277: the split is incomplete."
    )
    assert "it has more than GLUE's own." in str(differing_count(RTE, "validation", examples * 2))


def test_examples_with_an_empty_sentence_are_counted_once_and_kept(tmp_path: Path) -> None:
    rows = [
        "0\ta\tb\tentailment",
        "1\t\tb\tentailment",
        "2\ta\t \x85\tentailment",
        "3\t\t\tentailment",
    ]
    write(tmp_path / "RTE/train.tsv", RTE_HEADER, *rows)
    examples = load_split(RTE, "train", tmp_path)
    assert len(examples) == 4
    told = (
        "rte's train split has an empty sentence in 3 of its 4 examples. These examples are kept."
    )
    assert empty_sentences(RTE, "train", examples) == told
    assert empty_sentences(RTE, "train", examples[:1]) is None
    assert empty_sentences(COLA, "train", [Example("a", None, 0, 0)]) is None


def test_examples_in_common_are_those_with_the_same_texts() -> None:
    train = [Example("a", "b", 0, 0), Example("c", "d", 1, 1), Example("a", "b", 1, 2)]
    validation = [
        Example("a", "b", 1, 0),
        Example("b", "a", 0, 1),
        Example("a", None, 0, 2),
        Example("a", "b", 0, 3),
    ]
    assert in_common(train, validation) == 2
    assert in_common(train, []) == in_common([], validation) == 0


def test_a_single_sentence_and_files_without_a_header(tmp_path: Path) -> None:
    write(tmp_path / "cola/train.tsv", "gj04\t1\t\tHe left.", "gj04\t0\t*\tHe leave.")
    write(tmp_path / "cola/test.tsv", "index\tsentence", "0\tShe left.")
    assert load_split(COLA, "train", tmp_path) == [
        Example("He left.", None, 1, 0),
        Example("He leave.", None, 0, 1),
    ]
    assert load_split(COLA, "test", tmp_path) == [Example("She left.", None, None, 0)]
    write(
        tmp_path / "cola/train.tsv", "mark\tlabel\tsentence", "*\t0\tHe leave."
    )  # somebody put a header there
    assert load_split(COLA, "train", tmp_path) == [Example("He leave.", None, 0, 0)]
    path = write(tmp_path / "cola/dev.tsv", "gj04\t2\t\tHe left.")
    assert refusal(COLA, "validation", tmp_path).startswith(
        f"{path}:1: the label in column 'label' is '2'"
    )


def test_a_regression(tmp_path: Path) -> None:
    write(
        tmp_path / "sts-b/dev.tsv",
        "sentence1\tsentence2\tscore",
        "a\tb\t5.000",
        "c\td\t0",
        "e\tf\t2.75",
    )
    labels = [example.label for example in load_split(STSB, "validation", tmp_path)]
    assert labels == [5.0, 0.0, 2.75] and all(isinstance(label, float) for label in labels)


def test_two_validation_files(tmp_path: Path) -> None:
    header = "index\tsentence1\tsentence2\tlabel1\tgold_label"
    write(tmp_path / "MNLI/dev_matched.tsv", header, "0\ta\tb\tneutral\tcontradiction")
    write(tmp_path / "MNLI/dev_mismatched.tsv", header, "0\tc\td\tneutral\tneutral")
    write(tmp_path / "MNLI/test_mismatched.tsv", header, "0\te\tf\t\t")
    assert load_split(MNLI, "validation_matched", tmp_path) == [Example("a", "b", 2, 0)]
    assert load_split(MNLI, "validation_mismatched", tmp_path) == [Example("c", "d", 1, 0)]
    assert load_split(MNLI, "test_mismatched", tmp_path) == [Example("e", "f", None, 0)]


def test_short_rows_can_be_passed_over_and_still_count(tmp_path: Path) -> None:
    write(
        tmp_path / "RTE/train.tsv", RTE_HEADER, "0\ta\tb\tentailment", "1\tc", "2\te\tf\tentailment"
    )
    assert [
        example.row for example in load_split(replace(RTE, skip_short=True), "train", tmp_path)
    ] == [0, 2]
    path = write(tmp_path / "RTE/train.tsv", RTE_HEADER, "0\ta\tb")
    message = refusal(replace(RTE, skip_short=True), "train", tmp_path)
    assert message.startswith(f"{path} has no row with all its columns.")


# The real files

real = pytest.mark.skipif(
    "SQZB_DATA" not in os.environ, reason="SQZB_DATA names no folder with glue/"
)


@real
@pytest.mark.parametrize("of", [MRPC, RTE, COLA, task("sst2")], ids=lambda of: of.name)
def test_real_counts(of: Task) -> None:
    for split, count in of.counts.items():
        examples = load_split(of, split, REAL)
        assert [example.row for example in examples] == list(range(count))
        expected = {None} if split == "test" else {0, 1}
        assert {example.label for example in examples} == expected
        assert all(
            example.text_a.strip() and (example.text_b is None or example.text_b.strip())
            for example in examples
        )


@real
def test_real_examples() -> None:
    first = load_split(MRPC, "validation", REAL)[0]
    assert (
        first.text_b == '"The foodservice pie business does not fit our long-term growth strategy.'
    )
    assert first.label == MRPC.labels.index("equivalent")
    assert load_split(RTE, "train", REAL)[0][1:3] == (
        "Weapons of Mass Destruction Found in Iraq.",
        RTE.labels.index("not_entailment"),
    )


@real
def test_both_real_layouts_of_mrpc_are_the_same_examples(tmp_path: Path) -> None:
    (tmp_path / "MRPC").mkdir()
    for name in ("msr_paraphrase_train.txt", "msr_paraphrase_test.txt", "dev_ids.tsv"):
        (tmp_path / "MRPC" / name).symlink_to(REAL / "MRPC" / name)
    for split in MRPC.files:
        assert texts(load_split(MRPC, split, tmp_path)) == texts(load_split(MRPC, split, REAL))


# The Hub


def serve(
    monkeypatch: pytest.MonkeyPatch, columns: dict[str, list[object]], label: object
) -> list[tuple[object, ...]]:
    """Put a dataset in the Hub's place; returns the list that calls are noted in."""
    text = {
        name: datasets.Value("int32" if name == "idx" else "string")
        for name in columns
        if name != "label"
    }
    data = datasets.Dataset.from_dict(columns, features=datasets.Features({**text, "label": label}))
    calls: list[tuple[object, ...]] = []

    def load_dataset_builder(path: str, name: str, *, revision: str | None) -> SimpleNamespace:
        def as_dataset(split: str) -> datasets.Dataset:
            calls.append((path, name, split, revision))
            return data

        return SimpleNamespace(
            hash=COMMIT, download_and_prepare=lambda: None, as_dataset=as_dataset
        )

    monkeypatch.setattr(datasets, "load_dataset_builder", load_dataset_builder)
    return calls


def test_the_hub_by_label_name(monkeypatch: pytest.MonkeyPatch) -> None:
    order = datasets.ClassLabel(names=["equivalent", "not_equivalent"])
    columns: dict[str, list[object]] = {
        "sentence2": ["b", "d"],
        "idx": [9, 7],
        "sentence1": ["a", "c"],
        "label": [0, 1],
    }
    calls = serve(monkeypatch, columns, order)
    assert load_split(MRPC, "train") == [Example("a", "b", 1, 0), Example("c", "d", 0, 1)]
    assert calls == [("nyu-mll/glue", "mrpc", "train", None)]


def test_a_revision_of_the_hub_can_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    order = datasets.ClassLabel(names=["equivalent", "not_equivalent"])
    columns: dict[str, list[object]] = {"sentence1": ["a"], "sentence2": ["b"], "label": [0]}
    calls = serve(monkeypatch, columns, order)
    monkeypatch.setattr(hub, "_taken", {})
    assert load_split(MRPC, "train", Path("nyu-mll/glue@v1")) == [Example("a", "b", 1, 0)]
    assert calls == [("nyu-mll/glue", "mrpc", "train", "v1")]
    assert hub.taken() == {"nyu-mll/glue": COMMIT}


def test_the_hubs_test_labels_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    columns: dict[str, list[object]] = {
        "sentence1": ["a", "c"],
        "sentence2": ["b", "d"],
        "label": [-1, -1],
    }
    serve(monkeypatch, columns, datasets.ClassLabel(names=list(RTE.labels)))
    assert load_split(RTE, "test") == [Example("a", "b", None, 0), Example("c", "d", None, 1)]


@pytest.mark.parametrize(
    ("names", "values"), [(RTE.labels, [0, -1]), (("entailment", "neutral"), [0, 1])]
)
def test_a_hub_label_that_the_table_has_not(
    monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], values: list[object]
) -> None:
    columns: dict[str, list[object]] = {
        "sentence1": ["a", "c"],
        "sentence2": ["b", "d"],
        "label": values,
    }
    serve(monkeypatch, columns, datasets.ClassLabel(names=list(names)))
    assert refusal(RTE, "train", None).startswith(
        f"Row 1 of rte's train split in nyu-mll/glue has label {values[1]} of"
    )


def test_the_hubs_idx_of_a_test_split_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    columns: dict[str, list[object]] = {
        "sentence1": ["a", "c"],
        "sentence2": ["b", "d"],
        "label": [-1, -1],
        "idx": [9, 7],
    }
    serve(monkeypatch, columns, datasets.ClassLabel(names=list(RTE.labels)))
    assert load_split(RTE, "test") == [Example("a", "b", None, 9), Example("c", "d", None, 7)]


def test_a_column_that_the_hub_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    serve(
        monkeypatch, {"premise": ["a"], "sentence2": ["b"], "label": [0]}, datasets.Value("int64")
    )
    message = refusal(RTE, "train", None)
    assert message.startswith(
        "rte's train split in nyu-mll/glue has no column sentence1, only premise, sentence2, label."
    )


def test_a_single_sentence_from_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = datasets.ClassLabel(names=list(COLA.labels))
    serve(monkeypatch, {"sentence": ["He left."], "label": [1]}, labels)
    assert load_split(COLA, "validation") == [Example("He left.", None, 1, 0)]


def test_a_regression_from_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    columns: dict[str, list[object]] = {"sentence1": ["a"], "sentence2": ["b"], "label": [3.5]}
    serve(monkeypatch, columns, datasets.Value("float32"))
    assert load_split(STSB, "train") == [Example("a", "b", 3.5, 0)]
    assert load_split(STSB, "test") == [Example("a", "b", None, 0)]
    serve(monkeypatch, columns | {"label": [-1.0]}, datasets.Value("float32"))
    assert "has label -1.0; the labels must be from 0 to 5." in refusal(STSB, "train", None)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("Couldn't reach 'nyu-mll/glue' on the Hub (LocalEntryNotFoundError)"),
        huggingface_hub.errors.OfflineModeIsEnabled(
            "Cannot reach https://huggingface.co: offline mode is enabled."
        ),
        huggingface_hub.errors.LocalEntryNotFoundError(
            "Cannot find the requested files in the disk cache."
        ),
        datasets.exceptions.DatasetNotFoundError(
            "Dataset 'nyu-mll/glue' doesn't exist on the Hub."
        ),
        datasets.exceptions.DatasetGenerationError(
            "An error occurred while generating the dataset"
        ),
        ValueError(
            "Couldn't find cache for nyu-mll/glue for config 'mrpc'\nAvailable configs in the "
            "cache: ['rte']"
        ),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_network_and_no_cache(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def load_dataset_builder(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset_builder", load_dataset_builder)
    message = refusal(MRPC, "validation", None)
    assert message.startswith(
        "mrpc's validation split could not be loaded from nyu-mll/glue on the Hub"
    )
    assert f"({type(error).__name__}: {' '.join(str(error).split())})" in message
    assert "or give --glue-dir." in message and "train.tsv, dev.tsv, test.tsv" in message


def test_reading_files_does_not_load_datasets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)  # an import of it would now fail
    write(tmp_path / "RTE/dev.tsv", RTE_HEADER, "0\ta\tb\tentailment")
    assert len(load_split(RTE, "validation", tmp_path)) == 1


@pytest.mark.parametrize("end", ["", " ", "\t", "  "])
@pytest.mark.parametrize("label", ["1", "1.0", " 1", "1 ", "1.00"])
def test_spaces_and_decimals_of_a_label_are_harmless(tmp_path: Path, label: str, end: str) -> None:
    header = MRPC_HEADER.replace("Quality", "Quality ")
    write(tmp_path / "MRPC/dev.tsv", header, f"{label}\t5\t6\tone a \tb{end}")
    [example] = load_split(MRPC, "validation", tmp_path)
    assert (example.label, example.text_a) == (1, "one a ")


@pytest.mark.parametrize("label", ["1.5", "2", "1.", "1,0", "one"])
def test_other_labels_are_not(tmp_path: Path, label: str) -> None:
    write(tmp_path / "MRPC/dev.tsv", MRPC_HEADER, f"{label}\t5\t6\ta\tb")
    assert "must be 0 or 1" in refusal(MRPC, "validation", tmp_path)


def test_ids_of_microsofts_files_may_have_spaces_and_decimals(tmp_path: Path) -> None:
    write(tmp_path / "MRPC/msr_paraphrase_train.txt", MRPC_HEADER, "1\t5\t6\ta\tb", "0\t7\t8\tc\td")
    write(tmp_path / "MRPC/dev_ids.tsv", "5.0\t6 ")
    assert [example.text_a for example in load_split(MRPC, "validation", tmp_path)] == ["a"]


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "RTE/dev.tsv", f"{RTE_HEADER}\tlabel", "0\ta\tb\tentailment\tentailment")
    assert "columns 4 and 5 are both called 'label'" in refusal(RTE, "validation", tmp_path)


@pytest.mark.parametrize("encoding", ["utf-16", "cp1252"])
def test_the_encoding_is_recognised(tmp_path: Path, encoding: str) -> None:
    text = f"{RTE_HEADER}\n0\tcafé\tb\tentailment\n"
    (tmp_path / "RTE").mkdir()
    (tmp_path / "RTE/dev.tsv").write_bytes(text.encode(encoding))
    name = {"utf-16": "UTF-16", "cp1252": "WINDOWS-1252"}[encoding]
    assert f"iconv -f {name} -t UTF-8" in refusal(RTE, "validation", tmp_path)
