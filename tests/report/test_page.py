"""The page: whole, safe whatever names hold, and as a browser shows it."""

import csv
import html
import random
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from damage import DAMAGES
from report_runs import finetuned, pretrained, write_run
from sqzb.errors import UserError
from sqzb.recipe import FinetuneRecipe
from sqzb.report.page import page, text, write_report
from sqzb.report.runs import read_runs

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
MARKUP = "<script>alert(1)<&\"'$x^2$"


class Tags(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data


def report(output: Path, *runs: Path) -> str:
    write_report([str(run) for run in runs], output)
    return output.read_text(encoding="utf-8")


@given(st.text(st.characters()))
def test_text_is_shown_and_never_markup(value: str) -> None:
    escaped = text(value)
    assert not set("<>\"'") & set(escaped)
    if value.isprintable():
        assert html.unescape(escaped) == value
    escaped.encode("utf-8")


def test_names_from_runs_are_no_markup(tmp_path: Path) -> None:
    run = finetuned(tmp_path / MARKUP.replace("/", ""), task=MARKUP, model=MARKUP)
    evaluation = (run / "evaluation.json").read_text()
    (run / "evaluation.json").write_text(evaluation.replace('"yes"', '"<b onclick=x>"'))
    other = pretrained(tmp_path / "other", command=["sqzb", MARKUP, "\ud800\x1b[31m"])
    page = Tags(report(tmp_path / "out" / "report.html", run, other))
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "b", "iframe", "img", "link"}
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    assert MARKUP in page.text and "<b onclick=x>" in page.text


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    page = report(tmp_path / "report.html", pretrained(tmp_path / "a"), finetuned(tmp_path / "b"))
    tags = Tags(page).tags
    assert sum(tag == "svg" for tag, _ in tags) == sum(tag == "figure" for tag, _ in tags) == 9
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = re.findall(r'url\(#([^)]*)\)|xlink:href="#([^"]*)"|labelledby="([^"]*)"', page)
    assert {name for names in used for name in names if name} <= set(ids)
    for tag, attributes in tags:
        for key in ("src", "href"):
            link = attributes.get(key)
            if link:
                assert tag == "a" and (tmp_path / link).is_file()
    assert "http" not in page.replace("http://www.w3.org", "").replace("http-equiv", "")


def test_the_data_of_pictures_is_beside_the_page(tmp_path: Path) -> None:
    report(tmp_path / "report.html", pretrained(tmp_path / "a", steps=20))
    with (tmp_path / "report_files" / "mlm-loss.csv").open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    held_out = {row["step"]: row["mean"] for row in rows if row["series"] == "held out"}
    assert held_out == {"10.0": "1.0", "20.0": "0.5"}
    assert sum(row["series"] == "training" for row in rows) == 20


def test_a_hundred_runs(tmp_path: Path) -> None:
    for number in range(100):
        recipe = FinetuneRecipe(task=["rte", "mrpc"][number % 2], seed=number)
        lines = [{"step": 1, "loss": 1.0}, {"step": 2, "epoch": 10, "validation_score": 0.5}]
        write_run(tmp_path / "runs" / f"run{number}", recipe, lines)
    page = report(tmp_path / "report.html", tmp_path / "runs")
    assert page.count("<figure>") == 4 and page.count("swatch") < 10
    assert len(page) < 1_000_000


def test_runs_without_anything_have_a_page(tmp_path: Path) -> None:
    run = pretrained(tmp_path / "a", reached=1)
    for name in ("metrics.jsonl", "run.json"):
        (run / name).unlink()
    page = report(tmp_path / "report.html", run)
    assert "no step logged" in page and "<figure>" not in page


@pytest.mark.parametrize("seed", range(20))
def test_damaged_runs_have_a_page(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    runs = [pretrained(tmp_path / "a", steps=20), finetuned(tmp_path / "b")]
    for _ in range(3):
        file = draw.choice([path for run in runs for path in run.iterdir() if path.is_file()])
        draw.choice(DAMAGES)(file, draw)
    try:
        records = read_runs([str(run) for run in runs])
    except UserError as error:  # neither recipe nor log is left
        assert "is no run" in str(error)
        return
    assert page(records, {}, "beside").endswith("</html>\n")


def test_a_file_that_is_no_report_is_kept(tmp_path: Path) -> None:
    run, output = pretrained(tmp_path / "a"), tmp_path / "notes.html"
    output.write_text("mine")
    with pytest.raises(UserError, match="is no report"):
        report(output, run)
    assert output.read_text() == "mine"
    with pytest.raises(IsADirectoryError):
        report(tmp_path, run)
    report(tmp_path / "report.html", run)
    report(tmp_path / "report.html", run)


def test_without_matplotlib_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match=r"pip install 'sqzb\[report\]'"):
        report(tmp_path / "report.html", pretrained(tmp_path / "a"))
    assert not (tmp_path / "report.html").exists()


def test_the_line_of_the_command_names_what_it_wrote(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report(tmp_path / "report.html", pretrained(tmp_path / "a"))
    assert "1 run, 6 pictures" in capsys.readouterr().out


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of three runs."""
    folder = tmp_path_factory.mktemp("shown")
    one = pretrained(folder / "phase1", resumes=[{"step": 20}])
    two = pretrained(folder / "phase2", start_from=str(one), steps=20)
    report(folder / "report.html", one, two, finetuned(folder / "reviews"))
    return folder / "report.html"


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_the_page(shown: Path, tmp_path: Path, width: int) -> None:
    """The screenshot is left in the test's folder, to be looked at."""
    assert CHROMIUM is not None
    picture = tmp_path / f"report_{width}.png"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--dump-dom"]
    flags += ["--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}"]
    flags += [f"--screenshot={picture}", f"--window-size={width},4000"]
    done = subprocess.run(
        [CHROMIUM, *flags, shown.as_uri()], capture_output=True, text=True, timeout=120, check=False
    )
    assert picture.stat().st_size > 20_000, done.stderr
    assert done.stdout.count("<svg") == done.stdout.count("</figure>") == 9
    assert "CONSOLE" not in done.stderr
