"""sqzb predict: predictions for sentences, standard input, and tables of any size."""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from sqzb import console
from sqzb.corpus import executors
from sqzb.data.dataset import Labels, Number, Tags
from sqzb.data.formats import STANDARD_INPUT, open_table, tables
from sqzb.data.formats.common import Row, Table, one_line
from sqzb.data.texts import COUNTS, Checked, TextTable, check, choose_texts
from sqzb.data.writing import PARQUET, has_ending, json_line, open_writer, output_ending
from sqzb.errors import UserError
from sqzb.files import check_output
from sqzb.finetuning.texts import Unseen, unseen_warnings
from sqzb.using import (
    WINDOW,
    ClassPrediction,
    FinetunedModel,
    LabelsPrediction,
    NumberPrediction,
    Prediction,
    TokensPrediction,
    load,
    windows,
)

PREFIX = "predicted_"  # of an added column whose name the table has already
COMMAND_LINE = "the command line"
FILE_OPTION = "--file"
MOST_SHOWN = 10  # probabilities in a line for a person
LIKELIEST = 5  # of more names than that


class PredictedRows(NamedTuple):
    """A window of rows with their predictions, which are None for rows without a text.

    unseen  counts of what the model did not see of the texts
    """

    rows: list[Row]
    predictions: list[Prediction | None]
    unseen: Unseen


@dataclass
class Counts:
    """Numbers of rows in a table.

    rows   that were predicted so far, those without a text too
    empty  rows without a text; `first` is the number of the first of them
    unseen  counts of what the model did not see of the texts
    """

    rows: int = 0
    empty: int = 0
    first: int = 0
    unseen: Unseen = field(default_factory=Unseen)

    def add(self, window: PredictedRows) -> None:
        """Count the rows of a window."""
        for row, prediction in zip(window.rows, window.predictions, strict=True):
            if prediction is None:
                self.first = self.first or row.number
                self.empty += 1
        self.rows += len(window.rows)
        self.unseen += window.unseen

    def warnings(self, table: Table, max_length: int) -> list[str]:
        """Return sentences about rows without a prediction, or with one for a part of the text."""
        sentences = []
        if self.empty:
            others = f" and {self.empty - 1:,} more" if self.empty > 1 else ""
            where = table.where(self.first)
            sentences.append(f"Rows without a text have no prediction: {where}{others}.")
        for sentence in unseen_warnings(self.unseen, max_length):
            sentences.append(f"{table.path}: {sentence}")
        return sentences


class Written(NamedTuple):
    """A report on a written file, as sentences: a summary, and warnings."""

    summary: str
    warnings: list[str]

    def report(self) -> None:
        """Print the summary and the warnings."""
        console.out.print(self.summary)
        for warning in self.warnings:
            console.warn(warning)


def sentences_table(sentences: Sequence[str]) -> Table:
    """Return a table with one row: a sentence, or a pair."""
    names = ("text",) if len(sentences) == 1 else ("text_a", "text_b")
    row = Row(1, dict(zip(names, sentences, strict=True)))
    return Table(COMMAND_LINE, names, "row", lambda wanted: iter([row]))


def print_predictions(path: str, table: Table, text: Sequence[str], as_json: bool) -> None:
    """Print the predictions for a table, a line for each row, as they are computed.

    path     of the model
    text     columns of the texts; see `choose_texts`
    as_json  whether a line is a JSON object with the row and its prediction

    Raises:
        UserError: The model or the table cannot be used.
    """
    model = load(path)
    if table.path == COMMAND_LINE and model.texts not in (None, len(table.columns)):
        raise UserError(
            f"{path} needs {COUNTS[model.texts]} per example, not {len(table.columns)}. "
            "Put each text into quotes."
        )
    texts = choose_texts(table, text, model.columns, model.texts, model.takes_words)
    names = added_columns(model, table.columns)
    counts = Counts()
    # A person who types lines waits for the answer to each.
    is_typed = table.path == "standard input" and sys.stdin.isatty()
    for window in predict_rows(model, texts, 1 if is_typed else WINDOW):
        if as_json:
            rows = with_predictions(table, window, names)
            console.lines([json_line(values)] for values in rows)
        else:
            console.lines(shown(prediction).split("\t") for prediction in window.predictions)
        counts.add(window)
    for warning in counts.warnings(table, model.max_length):
        console.warn(warning)


def write_predictions(
    path: str,
    given: Sequence[str],
    output: Path,
    text: Sequence[str],
    executor: str,
    overwrite: bool = False,
) -> None:
    """Write a file with its predictions, or several files into a folder, and report them.

    path      of the model
    given     a file, or several: files, folders of shards and globs
    output    the file to write; of several the folder, in which each keeps its name
    text      columns of the texts; see `choose_texts`
    executor  "ray" to predict each of several files on a Ray cluster; "processes" for here
    overwrite  whether files that exist may be replaced

    Raises:
        UserError: A table or the model cannot be used, or an output exists.
        OSError: An output cannot be written.
    """
    if len(given) == 1 and (given[0] == STANDARD_INPUT or Path(given[0]).is_file()):
        output_ending(output)
        _check_output(given[0], output, overwrite)
        predict_file(load(path), given[0], output, text).report()
        return
    files = [table.path for table in tables(given, FILE_OPTION)]
    outputs = _outputs(files, output)
    for file, target in outputs.items():
        _check_output(file, target, overwrite)
    if executor == "ray":
        tasks = [(path, file, str(outputs[file]), tuple(text)) for file in files]
        with (
            executors.open_executor(executor, os.cpu_count() or 1) as run,
            console.bar("files", len(files)) as bar,
        ):
            for number_and_result in run(predict_on_worker, tasks):
                if number_and_result is not None:
                    number_and_result[1].report()
                    bar.advance()
        return
    model = load(path)
    for file in files:
        predict_file(model, file, outputs[file], text).report()


def _check_input(path: str, output: Path) -> None:
    """Raise UserError if a file would be written over the file that is read."""
    if path != STANDARD_INPUT and output.exists() and output.samefile(path):
        raise UserError(f"--output {output} is the input. Give another file.")


def _check_output(path: str, output: Path, overwrite: bool) -> None:
    _check_input(path, output)
    check_output(output, overwrite)


def predict_on_worker(path: str, file: str, output: str, text: Sequence[str]) -> Written:
    """Open a model and predict one file, in a process of an executor."""
    return predict_file(load(path), file, Path(output), text, show=False)


def _outputs(files: Sequence[str], folder: Path) -> dict[str, Path]:
    """Return the file to write for each of several files.

    A format that cannot be written becomes .jsonl.

    Raises:
        UserError: Two files have one name, or the folder is a file.
    """
    if folder.is_file() or has_ending(folder):
        raise UserError(
            f"There are several files to predict, and --output {folder} is one file. Give a folder."
        )
    outputs: dict[str, Path] = {}
    for file in files:
        name = Path(file).name
        output = folder / (name if has_ending(Path(name)) else f"{Path(name).stem}.jsonl")
        if output in outputs.values():
            raise UserError(
                f"{file} and another file would both be written to {output}. Predict them one at "
                "a time, or rename one."
            )
        outputs[file] = output
    return outputs


def predict_file(
    model: FinetunedModel,
    path: str,
    output: Path,
    text: Sequence[str] = (),
    show: bool = True,
) -> Written:
    """Write a table with its predictions, in the rows' order, whole or not at all.

    The table is read twice: the first time to check all rows before any work, and to count them.
    Standard input is read once. In both cases memory use is bounded.

    path    of the table, or - for standard input
    output  the file to write; its ending is the format
    text    columns of the texts; see `choose_texts`
    show    whether to show a bar

    Raises:
        UserError: The table cannot be used.
        OSError: The output cannot be written.
    """
    ending = output_ending(output)
    is_stream = path == STANDARD_INPUT
    if is_stream and ending == PARQUET:
        raise UserError(
            "A parquet file's types are taken from all rows, and standard input can be read once. "
            "Give an --output of .jsonl or .csv."
        )
    _check_input(path, output)
    table = open_table(path)
    texts = choose_texts(table, text, model.columns, model.texts, model.takes_words)
    checked = Checked(0, table.columns, None) if is_stream else check(texts, ending == PARQUET)

    names = added_columns(model, checked.columns)
    columns = (*checked.columns, *names)
    schema = checked.schema
    if schema is not None:
        for name, kind in zip(names, column_types(model).values(), strict=True):
            schema = schema.append(pa.field(name, kind))

    counts = Counts()
    shows_bar = show and not is_stream
    with (
        open_writer(output, columns, schema) as writer,
        console.bar(Path(path).name, checked.rows, show=shows_bar) as bar,
    ):
        for window in predict_rows(model, texts):
            writer.write(with_predictions(table, window, names))
            counts.add(window)
            bar.advance(len(window.rows))
    summary = (
        f"{output}: {console.counted(counts.rows, 'row')} of {table.path}. Texts: "
        f"{', '.join(texts.columns)}. Added: {_listed(names)}."
    )
    return Written(summary, counts.warnings(table, model.max_length))


def predict_rows(
    model: FinetunedModel, texts: TextTable, largest: int = WINDOW
) -> Iterator[PredictedRows]:
    """Yield a table's rows with their predictions, in order, reading at most a window ahead."""
    for rows in windows(texts.table.rows(), largest):
        row_texts = [texts.text(row) for row in rows]
        given = [text for text in row_texts if text is not None]
        window = model.predict_window(given)
        results = iter(window.predictions)
        predictions = [None if text is None else next(results) for text in row_texts]
        yield PredictedRows(rows, predictions, window.unseen)


# Columns for predictions


def column_types(model: FinetunedModel) -> dict[str, pa.DataType]:
    """Return the names and types of the columns that hold a model's predictions."""
    if isinstance(model.kind, Number):
        return {"score": pa.float64()}
    if isinstance(model.kind, Tags):
        offsets = {"start": pa.int64(), "end": pa.int64()}
        entity = pa.struct(offsets | {"label": pa.string(), "text": pa.string()})
        return {"tags": pa.list_(pa.string()), "entities": pa.list_(entity)}
    first = {"label": pa.string()}
    if isinstance(model.kind, Labels):
        first = {"labels": pa.list_(pa.string())}
    return first | {f"probability_{name}": pa.float64() for name in model.labels}


def added_columns(model: FinetunedModel, taken: Sequence[str]) -> list[str]:
    """Return names for the columns with a model's predictions.

    If a table has one of the names already, all of them get `PREFIX`, as often as it takes.
    """
    names = list(column_types(model))
    while set(names) & set(taken):
        names = [PREFIX + name for name in names]
    return names


def column_values(prediction: Prediction) -> list[Any]:
    """Return a prediction as values of the columns that `column_types` names."""
    if isinstance(prediction, NumberPrediction):
        return [prediction.value]
    if isinstance(prediction, TokensPrediction):
        return [list(prediction.tags), [asdict(entity) for entity in prediction.entities]]
    if isinstance(prediction, LabelsPrediction):
        return [list(prediction.labels), *prediction.probabilities.values()]
    return [prediction.label, *prediction.probabilities.values()]


def with_predictions(
    table: Table, window: PredictedRows, names: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the values of a table's rows, with the predictions in the columns `names`.

    Raises:
        UserError: A row has one of these columns, which the rows before did not have.
    """
    rows = []
    for row, prediction in zip(window.rows, window.predictions, strict=True):
        for name in names:
            if name in row.values:
                raise UserError(
                    f"{table.where(row)}: the row has {name!r}, where the prediction belongs, and "
                    "the first row has not. Rename it, or give the rows as a file with --output."
                )
        values = [None] * len(names) if prediction is None else column_values(prediction)
        rows.append({**row.values, **dict(zip(names, values, strict=True))})
    return rows


def shown(prediction: Prediction | None) -> str:
    """Return a prediction as a person reads it; an empty line for None.

    Of classes the likeliest one, then the probability of each, with tabs between; of more than
    `MOST_SHOWN` names the `LIKELIEST` ones, in the order of their probability, and how many more
    there are. Of tags each word with its tag.
    """
    if prediction is None:
        return ""
    if isinstance(prediction, NumberPrediction):
        return f"{prediction.value:.4f}"
    if isinstance(prediction, TokensPrediction):
        pairs = zip(prediction.words, prediction.tags, strict=True)
        return " ".join(f"{one_line(word)}/{one_line(tag)}" for word, tag in pairs)
    first = ", ".join(map(one_line, _named(prediction))) or "(none)"
    probabilities = list(prediction.probabilities.items())
    more = []
    if len(probabilities) > MOST_SHOWN:
        more = [f"and {len(probabilities) - LIKELIEST:,} more (--json has all)"]
        probabilities = sorted(probabilities, key=lambda item: -item[1])[:LIKELIEST]
    each = [f"{one_line(name)} {value:.1%}" for name, value in probabilities]
    return "\t".join([first, *each, *more])


def _named(prediction: ClassPrediction | LabelsPrediction) -> tuple[str, ...]:
    return prediction.labels if isinstance(prediction, LabelsPrediction) else (prediction.label,)


def _listed(names: Sequence[str]) -> str:
    """Return the added columns for a message, the first four of them."""
    others = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return f"{', '.join(names[:4])}{others}"
