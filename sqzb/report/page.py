"""The page of a report: one HTML file that needs no network, and the pictures' data beside it."""

import csv
import html
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sqzb import __version__, console
from sqzb.errors import UserError
from sqzb.files import check_output, whole_file
from sqzb.finetuning.report import MOST_ROWS
from sqzb.report.curves import COLOURS, colour_of
from sqzb.report.pictures import (
    MARKS,
    Picture,
    check_matplotlib,
    pictures,
)
from sqzb.report.runs import RunRecord, number, read_runs
from sqzb.report.style import STYLE
from sqzb.report.tables import NONE, Table, differences, hardware, metrics, results, scores

MOST_COLUMNS = 6  # runs side by side; more are below one another
MOST_CLASSES = 40  # in a confusion matrix
SHORT_NAMES = 20  # characters of all class names in the header of a confusion matrix
MOST_STEPS = 8  # listed of a run's marks
GENERATOR = '<meta name="generator" content="sqzb'
COLUMNS = ("run", "series", "step", "mean", "lowest", "highest")
# The page runs no script and fetches nothing, whatever the names of runs and labels hold.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
HEAD = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
{GENERATOR} {__version__}">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
"""
NUMBER = re.compile(rf"[-+]?[\d,]+(\.\d+)?([eE][-+]?\d+)?%?|{NONE}")


def write_report(paths: Sequence[str], output: Path, price: float | None = None) -> None:
    """Write the page about the runs at the paths, and its CSV files into a folder beside it.

    price: of an hour of the hardware, in any currency.

    Raises:
        UserError: a path is no run, the output is another file, or matplotlib is missing.
        OSError: the output cannot be written.
    """
    check_matplotlib()
    _check_output(output)
    records = read_runs(paths)
    drawn = pictures(records)
    beside = output.with_name(f"{output.stem}_files")
    all_pictures = [picture for section in drawn.values() for picture in section]
    for picture in all_pictures:
        _write_csv(beside / f"{picture.name}.csv", picture)
    with whole_file(output) as aside:
        aside.write_text(page(records, drawn, beside.name, price), encoding="utf-8")
    runs, n = console.counted(len(records), "run"), len(all_pictures)
    data = f" with their data in {beside}" if n else ""
    console.out.print(f"Written: {output}, {runs}, {console.counted(n, 'picture')}{data}.")


def _check_output(output: Path) -> None:
    """Check that the output can be written; a report that is there is replaced.

    Raises:
        UserError: another file is there.
        OSError: the output cannot be written.
    """
    check_output(output, overwrite=True)
    if output.is_file() and GENERATOR.encode() not in output.read_bytes()[:1000]:
        raise UserError(
            f"{output} exists and is no report of sqzb. Give another --output, or remove it."
        )


def _write_csv(path: Path, picture: Picture) -> None:
    with (
        whole_file(path) as aside,
        aside.open("w", encoding="utf-8", errors="backslashreplace", newline="") as opened,
    ):
        writer = csv.writer(opened)
        writer.writerow(COLUMNS)
        writer.writerows(picture.rows)


def text(value: object) -> str:
    """Return a text from a file or a path as HTML that shows it; all such texts go through here."""
    encodable = str(value).encode("utf-8", "backslashreplace").decode("utf-8")
    return html.escape(console.visible(encodable))


def cell(value: str) -> str:
    """Return a table's cell as HTML, with places where a long name may be broken."""
    return "<wbr>".join(text(part) for part in re.split(r"(?<=[._/=,])(?=[^\W\d])", value))


def page(
    records: Sequence[RunRecord],
    drawn: Mapping[str, Sequence[Picture]],
    beside: str,
    price: float | None = None,
) -> str:
    """Return the HTML.

    drawn: the pictures by the title of their section.
    beside: name of the folder with the pictures' data.
    """
    title = records[0].name if len(records) == 1 else f"{len(records)} runs"
    now = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    parts = [
        HEAD,
        f"<title>{text(title)} · sqzb report</title>\n<style>{STYLE}</style>\n</head>\n<body>\n",
        f'<header><h1>{text(title)}</h1><p class="muted">Report of sqzb {__version__}, '
        f"{text(now)}</p></header>\n<main>\n",
    ]
    parts += [_by_run(table) for table in differences(records)]
    parts += [_by_run(table) for table in results(records, price)]
    spread = scores(records)
    parts += [_section(spread)] if spread is not None else []
    parts.append(_metrics(records))
    parts += [_pictures(section, shown, records, beside) for section, shown in drawn.items()]
    parts += [_by_label(records), _recipes(records), _by_run(hardware(records))]
    return "".join([*parts, "</main>\n</body>\n</html>\n"])


def _section(table: Table) -> str:
    return f"<section><h2>{text(table.title)}</h2>\n{_table(table)}</section>\n"


def _by_run(table: Table) -> str:
    return _section(table.narrowed(MOST_COLUMNS))


def _table(table: Table) -> str:
    """Return a table that scrolls in itself; columns of numbers are right-aligned."""
    columns = list(zip(*table.rows, strict=True)) or [()] * len(table.header)
    numeric = [all(map(NUMBER.fullmatch, column)) for column in columns]
    kinds = [' class="number"' if index and is_number else "" for index, is_number in
             enumerate(numeric)]  # fmt: skip
    lines = []
    if table.rows:
        heads = zip(kinds, table.header, strict=True)
        head = "".join(f'<th scope="col"{kind}>{cell(name)}</th>' for kind, name in heads)
        lines.append(f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>')
        for first, *others in table.rows:
            cells = zip(kinds[1:], others, strict=True)
            row = "".join(f"<td{kind}>{cell(value)}</td>" for kind, value in cells)
            lines.append(f'<tr><th scope="row">{cell(first)}</th>{row}</tr>')
        lines.append("</tbody></table></div>")
    if table.note:
        lines.append(f'<p class="note muted">{text(table.note)}</p>')
    return "\n".join(lines) + "\n"


def _metrics(records: Sequence[RunRecord]) -> str:
    tables = [table.narrowed(MOST_COLUMNS) for table in metrics(records)]
    if not tables:
        return ""
    shown = [f"<h3>{text(table.title)}</h3>\n{_table(table)}" for table in tables]
    return f"<section><h2>Validation metrics</h2>\n{''.join(shown)}</section>\n"


def _pictures(
    title: str, drawn: Sequence[Picture], records: Sequence[RunRecord], beside: str
) -> str:
    named = {row[0] for picture in drawn for row in picture.rows}
    shown = [run for run in records if run.name in named]
    marks = [mark for run in shown for mark in _marks(run)]
    figures = []
    for picture in drawn:
        link = f'<a href="{text(beside)}/{picture.name}.csv">CSV</a>'
        caption = f'<span id="caption-{picture.name}">{text(picture.title)}</span>{link}'
        figures.append(f"<figure><figcaption>{caption}</figcaption>\n{picture.svg}</figure>\n")
    how = "Lines: training, with the lowest and highest figures as a band. Dots: held out."
    if len(shown) > COLOURS:
        how = f"{len(shown)} runs: one colour for each data set. The CSV names every run."
    return (
        f"<section><h2>{text(title)}</h2>\n{_legend(shown, records)}"
        f'<p class="note muted">{how}</p>\n'
        + (f'<ul class="marks">{"".join(marks)}</ul>\n' if marks else "")
        + f'<div class="grid">\n{"".join(figures)}</div></section>\n'
    )


def _legend(shown: Sequence[RunRecord], records: Sequence[RunRecord]) -> str:
    """Return the colours with their runs, or with their data if runs share colours."""
    colours = colour_of(records)
    entries: dict[tuple[int, str], int] = {}
    for run in shown:
        name = run.data or NONE if len(records) > COLOURS else run.name
        entry = (colours[run.name], name)
        entries[entry] = entries.get(entry, 0) + 1
    lines = []
    for (colour, name), count in entries.items():
        swatch = f'<span class="swatch" style="background: var(--series-{colour})"></span>'
        several = f" ({count} runs)" if count > 1 else ""
        lines.append(f"<li>{swatch}{text(name)}{several}</li>")
    return f'<ul class="legend">{"".join(lines)}</ul>\n'


def _marks(run: RunRecord) -> list[str]:
    """Return the marks on a run's axis as words."""
    lines = []
    for kind, (_, sign) in MARKS.items():
        steps = [event.step for event in run.events if event.kind == kind]
        if steps:
            listed = ", ".join(f"{step:,}" for step in steps[:MOST_STEPS])
            more = f" and {len(steps) - MOST_STEPS:,} more" if len(steps) > MOST_STEPS else ""
            noun = "step" if len(steps) == 1 else "steps"
            lines.append(f"<li>{sign} {text(run.name)}: {kind} at {noun} {listed}{more}</li>")
    if run.unreadable:
        lines.append(
            f"<li>{text(run.name)}: {console.counted(run.unreadable, 'line')} of metrics.jsonl "
            "cannot be read and are left out</li>"
        )
    return lines


def _by_label(records: Sequence[RunRecord]) -> str:
    """Return the confusion matrices and the figures of each label of the finetuned runs."""
    contents = []
    for run in records:
        parts = [part for split in _splits(run) for part in _of_split(*split)]
        if parts:
            contents.append((run, f'<div class="matrices">{"".join(parts)}</div>\n'))
    if not contents:
        return ""
    lines = ["<section><h2>By label</h2>\n"]
    for run, content in contents:
        name = f"<summary>{text(run.name)}</summary>"
        is_open = " open" if len(contents) <= MOST_COLUMNS else ""
        lines.append(f"<details{is_open}>{name}\n{content}</details>\n")
    return "".join([*lines, "</section>\n"])


def _splits(run: RunRecord) -> list[tuple[str, list[str], Mapping[str, Any]]]:
    """Return name, labels and details of each split in evaluation.json."""
    labels, splits = run.details.get("labels"), run.details.get("splits")
    if not isinstance(labels, list) or not isinstance(splits, dict):
        return []
    names = [str(label) for label in labels]
    return [(name, names, of) for name, of in splits.items() if isinstance(of, dict)]


def _of_split(split: str, labels: Sequence[str], details: Mapping[str, Any]) -> list[str]:
    parts = []
    confusion = _counts(details.get("confusion"), len(labels))
    if confusion and len(labels) <= MOST_CLASSES:
        parts.append(_matrix(split, labels, confusion))
    by_label = details.get("by_label")
    if isinstance(by_label, dict):
        rows = [_label_row(name, of) for name, of in by_label.items() if isinstance(of, dict)]
        if len(rows) > MOST_ROWS:
            rows.sort(key=lambda row: -row[1])
        title = f"{split}, by label"
        if len(rows) > MOST_ROWS:
            title += f": the {MOST_ROWS} most common of {len(rows):,}"
        header = ["label", "precision", "recall", "F1", "examples"]
        table = _table(Table("", header, [cells for cells, _ in rows[:MOST_ROWS]]))
        parts.append(f"<div><h3>{text(title)}</h3>{table}</div>\n")
    return parts


def _label_row(name: str, figures: Mapping[str, Any]) -> tuple[list[str], float]:
    """Return the cells of a label's row, and its number of examples."""
    cells = [name]
    for key in ("precision", "recall", "f1"):
        value = number(figures.get(key))
        cells.append(NONE if value is None else f"{value:.1%}")
    support = number(figures.get("support")) or 0
    return [*cells, f"{support:,.0f}"], support


def _counts(value: Any, size: int) -> list[list[int]]:
    """Return a confusion matrix; empty if the value is none of this size."""
    if not isinstance(value, list) or len(value) != size:
        return []
    for row in value:
        if not isinstance(row, list) or len(row) != size:
            return []
        if any(number(count) is None for count in row):
            return []
    return [[int(count) for count in row] for row in value]


def _matrix(split: str, labels: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Return a confusion matrix, whose cells are as dark as their share of the true label."""
    rows, header = list(labels), list(labels)
    if len("".join(labels)) > SHORT_NAMES:
        header = [str(index) for index in range(1, len(labels) + 1)]
        rows = [f"{index} {label}" for index, label in enumerate(labels, 1)]
    lines = []
    for index, (label, row) in enumerate(zip(rows, counts, strict=True)):
        cells = []
        for column, count in enumerate(row):
            colour = "var(--series-2)" if index == column else "var(--series-4)"
            share = round(60 * count / max(1, sum(row)))
            mixed = f"color-mix(in oklab, {colour} {share}%, transparent)"
            cells.append(f'<td style="background: {mixed}">{count:,}</td>')
        lines.append(f'<tr><th scope="row">{text(label)}</th>{"".join(cells)}</tr>\n')
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in header)
    return (
        f'<div><h3>{text(split)}, confusion</h3><div class="scroll"><table class="confusion">'
        f"<thead><tr><th>true ↓ predicted →</th>{head}</tr></thead>"
        f"<tbody>\n{''.join(lines)}</tbody></table></div></div>\n"
    )


def _recipes(records: Sequence[RunRecord]) -> str:
    lines = ["<section><h2>Recipes</h2>\n"]
    for run in records:
        name = f"<summary>{text(run.name)}</summary>"
        lines.append(f"<details>{name}<pre>{text(run.recipe_text)}</pre></details>\n")
    return "".join([*lines, "</section>\n"])
