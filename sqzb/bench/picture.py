"""The picture of a race: latency against a metric, as SVG."""

from pathlib import Path
from typing import Any

from sqzb.bench.results import Results, latency
from sqzb.errors import UserError
from sqzb.files import whole_file

MARKS = ("o", "s", "^", "D", "v", "P", "X")  # of runtimes
STYLE: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "sqzb", "font.size": 9.5}


def check_matplotlib() -> None:
    """Check that a picture can be drawn.

    Raises:
        UserError: matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"--picture needs matplotlib ({error}): pip install 'sqzb[report]'"
        ) from error


def draw(results: Results, path: Path) -> None:
    """Write the picture: a point for each cell that has a metric.

    The colour tells the model, the form of the point the runtime, and its text the precision.

    Raises:
        UserError: no cell has a metric.
    """
    import matplotlib
    from matplotlib.figure import Figure

    points = [entry for entry in results.entries if entry.turns and entry.metrics]
    if not points or results.texts is None or results.texts.data is None:
        raise UserError("No cell has an accuracy, so there is no picture.")
    metric = results.texts.data.metrics[0]
    models = list(dict.fromkeys(entry.contestant.title for entry in points))
    runtimes = list(dict.fromkeys(entry.runtime for entry in points))

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=(7, 4.2), layout="constrained")
        axes: Any = figure.add_subplot()
        labelled: set[str] = set()
        for entry in points:
            title, at = entry.contestant.title, latency(entry.turns).p50_ms
            label = f"{title}, {entry.runtime}"
            axes.plot(
                [at],
                [entry.metrics[metric]],
                MARKS[runtimes.index(entry.runtime) % len(MARKS)],
                color=f"C{models.index(title)}",
                label=None if label in labelled else label,
            )
            labelled.add(label)
            axes.annotate(
                entry.precision, (at, entry.metrics[metric]), (5, 4), textcoords="offset points"
            )
        axes.set_xscale("log")
        axes.set_xlabel("median latency, ms")
        axes.set_ylabel(f"{metric.replace('_', ' ')} on {results.texts.origin}")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
        with whole_file(path) as aside:
            figure.savefig(aside, format="svg", metadata={"Date": None, "Creator": None})
