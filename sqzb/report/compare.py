"""Tables of several runs in the terminal, in blocks as wide as the terminal."""

import textwrap
from collections.abc import Iterator, Sequence

from sqzb import console
from sqzb.report.runs import read_runs
from sqzb.report.tables import Table, differences, metrics, results, scores

WIDEST = 28  # characters of a cell's line
SIDE_BY_SIDE = 4  # runs; more are below one another
BORDER = 3  # characters between two columns


def print_comparison(paths: Sequence[str], price: float | None = None) -> None:
    """Print the differences of the runs' recipes, then their results, scores and metrics.

    price: of an hour of the hardware, in any currency.
    """
    records = read_runs(paths)
    spread = scores(records)
    for table in (*differences(records), *results(records, price)):
        _print(table.narrowed(SIDE_BY_SIDE))
    if spread is not None:
        _print(spread)
    for table in metrics(records):
        named = table._replace(title=f"{table.title}: validation")
        _print(named.narrowed(SIDE_BY_SIDE))


def _print(table: Table) -> None:
    if table.rows:
        for number, block in enumerate(_blocks(table, console.out.width)):
            title = f"{table.title}, continued" if number else table.title
            console.table(title, block.header, block.rows)
    else:
        console.out.print(table.title)
    if table.note:
        console.out.print(textwrap.fill(table.note, console.out.width))


def _blocks(table: Table, width: int) -> Iterator[Table]:
    """Yield the table's columns in blocks that fit into the width, each with the first column."""
    wrapped = [[_wrapped(cell) for cell in row] for row in (table.header, *table.rows)]
    columns = list(zip(*wrapped, strict=True))
    widths = [max(map(_longest_line, column)) + BORDER for column in columns]
    first, position = widths[0] + 1, 1
    while position < len(columns):
        end, used = position + 1, first + widths[position]
        while end < len(columns) and used + widths[end] <= width:
            used += widths[end]
            end += 1
        block = [columns[0], *columns[position:end]]
        header, *rows = (list(row) for row in zip(*block, strict=True))
        yield Table(table.title, header, rows)
        position = end


def _wrapped(cell: str) -> str:
    return "\n".join(textwrap.wrap(console.visible(cell), WIDEST) or [""])


def _longest_line(cell: str) -> int:
    return max(map(len, cell.split("\n")))
