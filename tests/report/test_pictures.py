"""Pictures are whole, small, and take the colours of the page."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from report_runs import finetuned, pretrained
from sqzb.report.pictures import MOST_POINTS, pictures
from sqzb.report.runs import read_runs


def test_a_long_run_gives_a_short_curve(tmp_path: Path) -> None:
    folder = pretrained(tmp_path / "one", steps=1)
    lines = (f'{{"step": {step}, "loss": {step % 7}}}\n' for step in range(1, 30_001))
    (folder / "metrics.jsonl").write_text("".join(lines))
    [run] = read_runs([str(folder)])
    [picture] = pictures([run])["Pretraining"]
    assert len(picture.rows) == MOST_POINTS
    assert {row[4] for row in picture.rows} == {0.0} and {row[5] for row in picture.rows} == {6.0}
    assert len(picture.svg) < 40_000


def test_every_picture_is_whole_and_takes_the_pages_colours(tmp_path: Path) -> None:
    paths = [str(pretrained(tmp_path / "one")), str(finetuned(tmp_path / "two"))]
    drawn = [picture for section in pictures(read_runs(paths)).values() for picture in section]
    assert len({picture.name for picture in drawn}) == len(drawn) == 9
    for picture in drawn:
        ElementTree.fromstring(picture.svg.replace("<svg", '<svg xmlns="s"', 1))
        assert "var(--series-" in picture.svg and "var(--muted)" in picture.svg
        assert "#0a0" not in picture.svg and "#000000" not in picture.svg
        assert "font-family" not in picture.svg and "mathdefault" not in picture.svg


@pytest.mark.parametrize(
    ("value", "drawn"), [(0.0, 2), (-3.0, 2), (1e-300, 2), (1e29, 2), (5.0, 2), (-1e308, 0)]
)
def test_figures_of_any_size_are_drawn(tmp_path: Path, value: float, drawn: int) -> None:
    """Figures near the largest number are left out: matplotlib cannot divide their axis."""
    folder = pretrained(tmp_path / "one", steps=1)
    (folder / "metrics.jsonl").write_text(
        "".join(f'{{"step": {step}, "grad_norm": {value}, "loss": {value}}}\n' for step in (1, 2))
    )
    assert len(pictures(read_runs([str(folder)])).get("Pretraining", [])) == drawn


@pytest.mark.parametrize(("steps", "anchor"), [(5, "end"), (200, "start")])
def test_the_name_of_a_short_phase_stays_in_the_picture(
    tmp_path: Path, steps: int, anchor: str
) -> None:
    first = pretrained(tmp_path / "one", steps=40)
    second = pretrained(tmp_path / "two", steps=steps, start_from=str(first))
    drawn = pictures(read_runs([str(first), str(second)]))["Pretraining"]
    for picture in drawn:
        (words,) = re.findall(r"<text[^>]*>next phase</text>", picture.svg)
        assert ("text-anchor: end" in words) == (anchor == "end")
