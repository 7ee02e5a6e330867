"""The curves of runs as SVG that takes its colours from the page, and as CSV."""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sqzb.errors import UserError
from sqzb.report.curves import COLOURS, Curve, colour_of, offsets, thinned
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
)
from sqzb.report.tables import is_error

MOST_POINTS, FEW_POINTS = 90, 50  # of a curve, with up to COLOURS runs and with more
LARGEST = 1e30  # figure that is drawn; matplotlib's ticks fail near the largest numbers
MARKS = {RESUMED: ("^", "▲"), SKIPPED: ("x", "✕"), LEFT_OUT: ("o", "●"), ROLLED_BACK: ("v", "▼")}
# Stand-ins for the page's colours, which differ in the dark.
INK, MUTED, GRID, SERIES = "#0a0c01", "#0a0c02", "#0a0c03", "#0a0b{:02x}"
VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--grid)"}
STYLE: dict[Any, Any] = {
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
    _Subject("mlm-loss-15", "MLM loss at 15 % masks, nats", (), "heldout_mlm_loss_15", True),
    _Subject("mlm-accuracy", "MLM accuracy", ("mlm_accuracy",), "heldout_mlm_accuracy", form="%"),
    _Subject("sop-accuracy", "SOP accuracy", ("sop_accuracy",), "heldout_sop_accuracy", form="%"),
)
BOTH = (
    _Subject("learning-rate", "Learning rate", ("lr",)),
    _Subject("gradient-norm", "Gradient norm", ("grad_norm",), form="log"),
    _Subject("speed", "Tokens per second", ("tokens_per_second",)),
)


def pictures(records: Sequence[RunRecord]) -> dict[str, list[Picture]]:
    """Return the pictures of pretraining and of finetuning, by the title of their section.

    Raises:
        UserError: matplotlib is not installed.
    """
    check_matplotlib()
    colours, before = colour_of(records), offsets(records)
    by_title: dict[str, list[Picture]] = {}
    for kind, title in ((PRETRAIN, "Pretraining"), (FINETUNE, "Finetuning")):
        runs = [run for run in records if run.kind == kind]
        drawn = []
        for subject, shown in _subjects(kind, runs):
            picture = _picture(subject, shown, colours, before)
            if picture is not None:
                drawn.append(picture)
        if drawn:
            by_title[title] = drawn
    return by_title


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
    most = FEW_POINTS if many else MOST_POINTS
    curves = [(run, _training(subject, run, most), _evaluated(subject, run)) for run in runs]
    rows = [row for curve in curves for row in _rows(*curve)]
    if not rows:
        return None
    if subject.baseline:
        levels = [(run.name, run.baseline) for run in runs if run.baseline is not None]
        rows += [[name, "unigram baseline", 0, *[level] * 3] for name, level in levels]

    with _axes(subject) as (axes, svg):
        for run, training, evaluated in curves:
            colour, shift = SERIES.format(colours[run.name]), before[run.name]
            if training is not None:
                _draw_training(axes, training, shift, colour, many, bool(subject.evaluation))
            if evaluated is not None:
                _draw_evaluated(axes, evaluated, shift, colour, many)
            _draw_marks(axes, run, shift, colour)
        if subject.baseline:
            _draw_baselines(axes, runs)
        _draw_phases(axes, {before[run.name] for run in runs})
        _set_scales(axes, subject, rows)
    return Picture(subject.name, subject.title, _inline(svg.getvalue(), subject.name), rows)


def _training(subject: _Subject, run: RunRecord, most: int) -> Curve | None:
    for name in subject.training:
        if name in run.training:
            steps, values = run.training[name]
            drawn = np.abs(values) < LARGEST
            return thinned(Series(steps[drawn], values[drawn]), most) if drawn.any() else None
    return None


def _evaluated(subject: _Subject, run: RunRecord) -> Curve | None:
    """Return the figures of the evaluations; the last of a step counts."""
    by_step: dict[int, float] = {}
    for line in run.evaluations:
        figure = number(line.get(subject.evaluation)) if subject.evaluation else None
        if figure is not None and abs(figure) < LARGEST:
            by_step[line["step"]] = figure
    steps = np.array(sorted(by_step), np.float64)
    if not len(steps):
        return None
    values = np.array([by_step[int(step)] for step in steps])
    return thinned(Series(steps, values), MOST_POINTS)


def _rows(
    run: RunRecord, training: Curve | None, evaluated: Curve | None
) -> Iterator[list[str | float]]:
    for series, curve in (("training", training), ("held out", evaluated)):
        if curve is not None:
            for point in np.stack(curve, axis=1).tolist():
                yield [run.name, series, *point]


def _draw_training(
    axes: Any, curve: Curve, shift: int, colour: str, many: bool, behind: bool
) -> None:
    """Draw the means and, of few runs, the bounds; `behind`: paler than the held-out figures."""
    alpha = 0.35 if many else 0.45 if behind else 1
    marker = "o" if len(curve.steps) == 1 else ""
    steps = curve.steps + shift
    if not many:
        axes.fill_between(steps, curve.lowest, curve.highest, color=colour, alpha=0.16, linewidth=0)
    axes.plot(steps, curve.means, color=colour, alpha=alpha, marker=marker, markersize=4)


def _draw_evaluated(axes: Any, curve: Curve, shift: int, colour: str, many: bool) -> None:
    dots = {"marker": "o", "markersize": 1.5 if many else 3.5}
    alpha = 0.5 if many else 1
    axes.plot(curve.steps + shift, curve.means, color=colour, alpha=alpha, linewidth=1.2, **dots)


def _draw_baselines(axes: Any, runs: Sequence[RunRecord]) -> None:
    levels = sorted({round(run.baseline, 6) for run in runs if run.baseline is not None})
    for level in levels:
        axes.axhline(level, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    if levels:
        _note(axes, "unigram baseline", (1, levels[-1]), ("axes fraction", "data"), (0, 3), "right")


def _draw_phases(axes: Any, begins: set[int]) -> None:
    last = axes.get_xlim()[1]
    for step in sorted(begins - {0}):
        axes.axvline(step, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)))
        # Behind a short phase, the words would leave the picture.
        shift, side = ((-3, -8), "right") if step > 0.75 * last else ((3, -8), "left")
        _note(axes, "next phase", (step, 1), ("data", "axes fraction"), shift, side)


def _note(
    axes: Any,
    words: str,
    at: tuple[float, float],
    units: tuple[str, str],
    shift: tuple[int, int],
    side: str,
) -> None:
    """Write on the picture, `shift` points beside `at`."""
    axes.annotate(
        words, at, shift, xycoords=units, textcoords="offset points", ha=side, color=MUTED, size=8.5
    )


def _draw_marks(axes: Any, run: RunRecord, shift: int, colour: str) -> None:
    """Mark the events on the axis; marks that would cover one another are drawn once."""
    width = max(1.0, run.last_step / 200)
    seen = {(event.kind, round(event.step / width)): event for event in run.events}
    for event in seen.values():
        on_axis = {"transform": axes.get_xaxis_transform(), "clip_on": False, "zorder": 5}
        marker = MARKS[event.kind][0]
        axes.plot([event.step + shift], [0], color=colour, marker=marker, markersize=6, **on_axis)


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
    # The page looks the same whatever the user's matplotlibrc says.
    # Figures of a run that diverged may be as large as numbers are.
    with matplotlib.rc_context(), np.errstate(all="ignore"):
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE | {"svg.hashsalt": subject.name})
        figure = Figure(figsize=(4.9, 2.9))
        # The margins hold an axis label of 8 characters; a layout engine would draw twice.
        axes = figure.add_axes((0.14, 0.17, 0.845, 0.78))
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
    for number_of_colour in range(COLOURS):
        colour = SERIES.format(number_of_colour)
        svg = svg.replace(colour, f"var(--series-{number_of_colour})")
    return svg
