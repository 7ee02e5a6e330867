"""The curves of runs as SVG that takes its colours from the page, and as CSV."""

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sqzb.errors import UserError
from sqzb.report.runs import (
    FINETUNE,
    LEFT_OUT,
    PRETRAIN,
    RESUMED,
    ROLLED_BACK,
    SKIPPED,
    RunRecord,
    Series,
    number,
    starts_from,
)
from sqzb.report.tables import is_error

COLOURS = 8  # of the page; more runs share the colour of their data
MOST_POINTS, FEW_POINTS = 90, 50  # of a curve, with up to COLOURS runs and with more
MARKS = {RESUMED: ("^", "▲"), SKIPPED: ("x", "✕"), LEFT_OUT: ("o", "●"), ROLLED_BACK: ("v", "▼")}
# Stand-ins for the page's colours, which differ in the dark.
INK, MUTED, GRID, SERIES = "#0a0c01", "#0a0c02", "#0a0c03", "#0a0b{:02x}"
VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--grid)"}
STYLE: Any = {
    "svg.fonttype": "none",  # text stays text
    "font.size": 9.5,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.color": GRID,
    "ytick.labelcolor": MUTED,
    "ytick.left": False,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
}


class Curve(NamedTuple):
    """A curve that was thinned; all arrays are (points).

    lowest, highest: among the figures that a point stands for.
    """

    steps: NDArray[np.float64]
    means: NDArray[np.float64]
    lowest: NDArray[np.float64]
    highest: NDArray[np.float64]


class Picture(NamedTuple):
    """A picture with its data.

    name: of its CSV file, without the suffix.
    rows: of the CSV: run, series, step, mean, lowest, highest.
    """

    name: str
    title: str
    svg: str
    rows: list[list[str | float]]


class _Subject(NamedTuple):
    """What a picture shows of each run.

    training: names of a training figure, the first that a run has.
    evaluation: name of a figure of the evaluations.
    form: formats a number on the axis.
    """

    name: str
    title: str
    training: tuple[str, ...] = ()
    evaluation: str = ""
    baseline: bool = False
    form: str = "plain"


PRETRAINING = (
    _Subject("mlm-loss", "MLM loss, nats", ("mlm_loss", "loss"), "heldout_mlm_loss", True),
    _Subject("mlm-accuracy", "MLM accuracy", ("mlm_accuracy",), "heldout_mlm_accuracy", form="%"),
    _Subject("sop-accuracy", "SOP accuracy", ("sop_accuracy",), "heldout_sop_accuracy", form="%"),
)
BOTH = (
    _Subject("learning-rate", "Learning rate", ("lr",)),
    _Subject("gradient-norm", "Gradient norm", ("grad_norm",), form="log"),
    _Subject("speed", "Tokens per second", ("tokens_per_second",)),
)


def thinned(series: Series, most: int) -> Curve:
    """Return at most `most` points, each the mean of equally many neighbours, with their bounds."""
    n = len(series.steps)
    if n == 0:
        return Curve(*[np.zeros(0)] * 4)
    starts = np.unique(np.linspace(0, n, min(n, most) + 1).astype(np.int64)[:-1])
    counts = np.diff(np.append(starts, n))
    # The mean of shares: a sum of large figures would not be finite.
    shares = series.values / np.repeat(counts, counts)
    return Curve(
        np.add.reduceat(series.steps, starts) / counts,
        np.add.reduceat(shares, starts),
        np.minimum.reduceat(series.values, starts),
        np.maximum.reduceat(series.values, starts),
    )


def colour_of(records: Sequence[RunRecord]) -> dict[str, int]:
    """Return each run's colour by its name: one each, or one for all runs of a data set."""
    if len(records) <= COLOURS:
        return {run.name: index for index, run in enumerate(records)}
    groups = list(dict.fromkeys((run.kind, run.data) for run in records))
    return {run.name: groups.index((run.kind, run.data)) % COLOURS for run in records}


def offsets(records: Sequence[RunRecord]) -> dict[str, int]:
    """Return by name how many steps the earlier phases of a pretraining run had."""
    found: dict[str, int] = {}
    for run in records:
        earlier, current = [run.name], starts_from(run, records)
        before = 0
        while current is not None and current.kind == PRETRAIN and current.name not in earlier:
            before += current.last_step
            earlier.append(current.name)
            current = starts_from(current, records)
        found[run.name] = before if run.kind == PRETRAIN else 0
    return found


def pictures(records: Sequence[RunRecord]) -> dict[str, list[Picture]]:
    """Return the pictures of pretraining and of finetuning, by the title of their section.

    Raises:
        UserError: matplotlib is not installed.
    """
    check_matplotlib()
    colours, before = colour_of(records), offsets(records)
    found: dict[str, list[Picture]] = {}
    for kind, title in ((PRETRAIN, "Pretraining"), (FINETUNE, "Finetuning")):
        runs = [run for run in records if run.kind == kind]
        drawn = []
        for subject, shown in _subjects(kind, runs):
            picture = _picture(subject, shown, colours, before)
            if picture is not None:
                drawn.append(picture)
        if drawn:
            found[title] = drawn
    return found


def check_matplotlib() -> None:
    """Check that pictures can be drawn.

    Raises:
        UserError: matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"The pictures of a report need matplotlib ({error}): pip install 'sqzb[report]'. "
            "`sqzb compare` prints its tables without it."
        ) from error


def _subjects(
    kind: str, runs: Sequence[RunRecord]
) -> Iterator[tuple[_Subject, Sequence[RunRecord]]]:
    """Yield what is drawn, with its runs: the scores of finetuning are drawn by task."""
    if kind == PRETRAIN:
        for subject in (*PRETRAINING, *BOTH):
            yield subject, runs
        return
    by_data: dict[str, list[RunRecord]] = {}
    for run in runs:
        by_data.setdefault(run.data, []).append(run)
    for index, (data, those) in enumerate(by_data.items(), 1):
        words = re.sub(r"[^a-z0-9]+", "-", data.lower()).strip("-")[:40]
        name = f"{index}-{words}" if words else str(index)
        yield _Subject(f"loss-{name}", f"{data}: training loss", ("task_loss", "loss")), those
        form = "plain" if any(map(is_error, those)) else "%"
        title = f"{data}: validation score"
        yield _Subject(f"score-{name}", title, (), "validation_score", form=form), those
    for subject in BOTH:
        name = f"finetuning-{subject.name}"
        yield subject._replace(name=name), runs


def _picture(
    subject: _Subject,
    runs: Sequence[RunRecord],
    colours: dict[str, int],
    before: dict[str, int],
) -> Picture | None:
    """Return the picture; None if no run has such figures."""
    many = len(runs) > COLOURS
    rows: list[list[str | float]] = []
    phases = len({before[run.name] for run in runs}) > 1
    with _axes(subject) as (axes, svg):
        for run in runs:
            colour, shift = SERIES.format(colours[run.name]), before[run.name]
            curve = _training(subject, run, FEW_POINTS if many else MOST_POINTS)
            if curve is not None:
                _draw_training(axes, curve, shift, colour, many, bool(subject.evaluation))
                rows += _rows(run, "training", curve)
            points = _evaluated(subject, run)
            if points is not None:
                steps = points.steps + shift
                size = 0 if many else 3.5
                axes.plot(steps, points.means, color=colour, marker="o", markersize=size,
                          alpha=0.5 if many else 1, linewidth=1.2)  # fmt: skip
                rows += _rows(run, "held out", points)
            if subject.baseline and run.baseline is not None:
                rows.append([run.name, "unigram baseline", 0, *[run.baseline] * 3])
        if not rows:
            return None
        if subject.baseline:
            _draw_baselines(axes, runs)
        if phases:
            _draw_phases(axes, runs, before)
        for run in runs:
            _draw_marks(axes, run, before[run.name], SERIES.format(colours[run.name]))
        _set_scales(axes, subject, rows)
    return Picture(subject.name, subject.title, _inline(svg.getvalue(), subject.name), rows)


def _training(subject: _Subject, run: RunRecord, most: int) -> Curve | None:
    for name in subject.training:
        if name in run.training:
            return thinned(run.training[name], most)
    return None


def _evaluated(subject: _Subject, run: RunRecord) -> Curve | None:
    """Return the figures of the evaluations; the last of a step counts."""
    by_step: dict[int, float] = {}
    for line in run.evaluations:
        figure = number(line.get(subject.evaluation)) if subject.evaluation else None
        if figure is not None:
            by_step[line["step"]] = figure
    steps = np.array(sorted(by_step), np.float64)
    if not len(steps):
        return None
    values = np.array([by_step[int(step)] for step in steps])
    return thinned(Series(steps, values), MOST_POINTS)


def _rows(run: RunRecord, series: str, curve: Curve) -> list[list[str | float]]:
    points = np.stack(curve, axis=1).tolist()
    return [[run.name, series, *point] for point in points]


def _draw_training(
    axes: Any, curve: Curve, shift: int, colour: str, many: bool, behind: bool
) -> None:
    """Draw the means and, of few runs, the bounds; `behind`: paler than the held-out figures."""
    alpha = 0.35 if many else 0.6 if behind else 1
    marker = "o" if len(curve.steps) == 1 else ""
    steps = curve.steps + shift
    if not many:
        axes.fill_between(steps, curve.lowest, curve.highest, color=colour, alpha=0.16, linewidth=0)
    axes.plot(steps, curve.means, color=colour, alpha=alpha, marker=marker, markersize=4)


def _draw_baselines(axes: Any, runs: Sequence[RunRecord]) -> None:
    levels = sorted({round(run.baseline, 6) for run in runs if run.baseline is not None})
    for level in levels:
        axes.axhline(level, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    if levels:
        axes.annotate("unigram baseline", (1, levels[-1]), (0, 3), ha="right", color=MUTED,
                      xycoords=("axes fraction", "data"), textcoords="offset points")  # fmt: skip


def _draw_phases(axes: Any, runs: Sequence[RunRecord], before: dict[str, int]) -> None:
    for step in sorted({before[run.name] for run in runs} - {0}):
        axes.axvline(step, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)))
        axes.annotate("next phase", (step, 1), (3, -2), va="top", color=MUTED, size=8.5,
                      xycoords=("data", "axes fraction"), textcoords="offset points")  # fmt: skip


def _draw_marks(axes: Any, run: RunRecord, shift: int, colour: str) -> None:
    """Mark the events on the axis; marks that would cover one another are drawn once."""
    width = max(1.0, run.last_step / 200)
    seen = {(event.what, round(event.step / width)): event for event in run.events}
    for event in seen.values():
        axes.plot([event.step + shift], [0], color=colour, marker=MARKS[event.what][0],
                  markersize=6, linestyle="", clip_on=False, zorder=5,
                  transform=axes.get_xaxis_transform())  # fmt: skip


def _set_scales(axes: Any, subject: _Subject, rows: Sequence[Sequence[Any]]) -> None:
    from matplotlib.ticker import (
        FuncFormatter,
        LogLocator,
        MaxNLocator,
        NullLocator,
    )

    means = np.array([row[3] for row in rows], np.float64)
    # A loss or norm that exploded would leave nothing else to see.
    exploded = means.min() > 0 and means.max() > 50 * np.median(means)
    if means.min() > 0 and (subject.form == "log" or exploded):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if _decades(means) < 2 else (1,)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(_short))
    elif subject.form == "%":
        axes.yaxis.set_major_formatter(FuncFormatter(_percent))
        axes.yaxis.set_major_locator(MaxNLocator(5))
    else:
        axes.yaxis.set_major_formatter(FuncFormatter(_short))
        axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(_short))
    axes.set_xlabel("step")
    axes.set_xlim(left=0)


def _decades(values: NDArray[np.float64]) -> float:
    return float(np.log10(values.max()) - np.log10(values.min()))


def _short(value: float, _: object = None) -> str:
    """Return a number of an axis: 0.0025, 800, 12k, 3.5M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= max(size, 1e4):
            return f"{value / size:g}{unit}"
    return f"{value:,.10g}" if abs(value) >= 1 else f"{value:g}"


def _percent(value: float, _: object = None) -> str:
    return f"{100 * value:.6g}%"


@contextmanager
def _axes(subject: _Subject) -> Iterator[tuple[Any, io.StringIO]]:
    """Yield axes to draw on, and a text that holds the SVG when the block has ended."""
    import matplotlib
    from matplotlib.figure import Figure

    svg = io.StringIO()
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": subject.name}):
        figure = Figure(figsize=(4.9, 2.9), layout="constrained")
        axes = figure.add_subplot()
        yield axes, svg
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})


def _rounded(attribute: re.Match[str]) -> str:
    """Return an attribute with two decimals a number, in a unit of 1/72 inch."""
    return re.sub(r"(\d\.\d\d)\d+", r"\1", attribute[0])


def _inline(svg: str, name: str) -> str:
    """Return matplotlib's SVG as a part of a page: its own ids, the page's font and colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(
        r'<svg [^>]*?(viewBox="[^"]*")[^>]*>',
        rf'<svg role="img" aria-labelledby="caption-{name}" '
        r'xmlns:xlink="http://www.w3.org/1999/xlink" \1>',
        svg,
        count=1,
    )
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    svg = re.sub(r' (?:d|x|y|transform)="[^"]*"', _rounded, svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, variable)
    replaced: Callable[[re.Match[str]], str] = lambda found: f"var(--series-{int(found[1], 16)})"  # noqa: E731
    return re.sub(r"#0a0b([0-9a-f]{2})", replaced, svg)
