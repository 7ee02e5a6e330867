"""Capture the screens of sqzb in terminals of 80 and 120 columns, for docs/screens.md.

    python scripts/capture_screens.py [--only NAME ...] [--width 80] [--folder build/screens]

Runs the demo's commands in tmux, which has to be installed, and writes what they print as pictures
to docs/screens. A picture is an SVG with the colours of a light or of a dark terminal, as the
reader's browser prefers. The work of each width stays in --folder, so --only can capture a screen
anew without training again. Paths of this machine are replaced by others of the same length.
"""

import io
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from rich.ansi import AnsiDecoder
from rich.console import Console
from rich.terminal_theme import TerminalTheme

import demo
import sqzb
from sqzb.bench.report import parser

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "screens"
WIDTHS, HEIGHT = (80, 120), 60  # columns and lines of the terminals
COLUMN, LINE, MARGIN = 12.2, 24.4, 10  # of a picture, in its own units
SECONDS = 900  # that a command may take
END = "(?!)"  # a pattern that no screen has: the picture is of the end
GLUE = Path("runs/demo/glue")
demo.TRAIN_PAIRS = 2000  # fewer than the demo's, as the screens need no good model
TMUX_SETTINGS = """
set -s exit-empty off
set -g status off
set -g remain-on-exit on
set -g remain-on-exit-format ""
set -g default-terminal tmux-256color
"""
SHELL = 'printf \'$ %s\\n\' "$SHOWN"; eval "exec $SHOWN"'
# Background, text, and the eight colours of terminals, normal and bright.
LIGHT = TerminalTheme(
    (250, 250, 250),
    (36, 41, 47),
    [(36, 41, 47), (207, 34, 46), (17, 99, 41), (125, 78, 0),
     (9, 105, 218), (130, 80, 223), (20, 110, 120), (87, 96, 106)],
    [(87, 96, 106), (164, 14, 38), (26, 127, 55), (99, 60, 1),
     (33, 139, 255), (164, 117, 249), (49, 146, 170), (36, 41, 47)],
)  # fmt: skip
DARK = TerminalTheme(
    (22, 27, 34),
    (220, 226, 232),
    [(72, 79, 88), (255, 123, 114), (86, 211, 100), (227, 179, 65),
     (121, 192, 255), (210, 168, 255), (86, 212, 221), (177, 186, 196)],
    [(110, 118, 129), (255, 161, 152), (126, 231, 135), (242, 204, 96),
     (165, 214, 255), (226, 197, 255), (179, 240, 255), (255, 255, 255)],
)  # fmt: skip
FRAME = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 WIDTH HEIGHT">
<style>
text {{ font: {char_height}px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
  white-space: pre; }}
.ground {{ fill: LIGHT_GROUND; }}
{styles}
@media (prefers-color-scheme: dark) {{
.ground {{ fill: DARK_GROUND; }}
DARK_STYLES
}}
</style>
<rect class="ground" width="100%" height="100%" rx="8"/>
<g transform="translate(MARGIN, MARGIN)">{backgrounds}{matrix}</g>
</svg>
"""


class Step(NamedTuple):
    """A command and the pictures of it.

    shots: pattern on the screen that a picture waits for, by the picture's name; END: its end.
    beside: a command in another terminal, after the first picture.
    stopped: whether Ctrl-C ends the command, after the first picture.
    """

    command: str
    shots: Mapping[str, str]
    beside: "Step | None" = None
    stopped: bool = False


STEPS = (
    Step("sqzb --help", {"help": END}),
    Step("sqzb recipes", {"recipes": END}),
    Step("sqzb doctor", {"doctor": END}),
    Step('sqzb plan phase1_128 --hardware "8x H100" --hardware H200', {"plan": END}),
    Step("sqzb prepare-corpus demo_corpus", {"prepare-corpus": END}),
    Step(
        "sqzb pretrain demo_phase1 steps=120",
        {"pretrain": r"Pretraining .*\b[4-6]\d%", "pretrain-stopped": END},
        Step("sqzb watch runs/demo/phase1", {"watch": " left"}),
        stopped=True,
    ),
    Step("sqzb pretrain demo_phase1 steps=120 --resume auto", {"pretrain-end": END}),
    Step("sqzb pretrain demo_phase2 steps=20", {"pretrain-phase2": END}),
    Step(
        f"sqzb finetune --recipe demo_paraphrase --glue-dir {GLUE} epochs=1",
        {"finetune": r"Finetuning .*\b[2-8]\d%", "finetune-end": END},
    ),
    Step("sqzb eval runs/demo/paraphrase", {"eval": END}),
    Step(
        'sqzb predict runs/demo/paraphrase "The module defines a function." '
        '"The function is defined by the module."',
        {"predict": END},
    ),
    Step("sqzb report runs/demo", {"report": END}),
    Step("sqzb compare runs/demo", {"compare": END}),
)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--only", nargs="+", help="names of the pictures to make")
    arguments.add_argument("--width", type=int, choices=WIDTHS, help="the one width to capture")
    arguments.add_argument("--folder", type=Path, default=Path("build/screens"))
    given = arguments.parse_args()
    PICTURES.mkdir(exist_ok=True)
    with tmux_server() as server:
        for width in WIDTHS if given.width is None else (given.width,):
            folder = (given.folder / str(width)).absolute()
            if given.only is None:
                shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / GLUE).exists():
                demo.write_paraphrases(folder / GLUE / "MRPC")
            for step in STEPS:
                if given.only is None or step.shots.keys() & set(given.only):
                    run(server, step, width, folder)


def run(server: list[str], step: Step, width: int, folder: Path) -> None:
    """Run a command, and write its pictures."""
    print(f"{width}: {step.command}", flush=True)
    with Terminal(server, step.command, width, folder) as terminal:
        for name, pattern in step.shots.items():
            terminal.wait(pattern)
            write_picture(f"{name}-{width}", terminal.screen(), width, folder)
            if step.beside is not None and pattern != END:
                run(server, step.beside, width, folder)
            if step.stopped and pattern != END:
                terminal.stop()


@contextmanager
def tmux_server() -> Iterator[list[str]]:
    """Yield the beginning of commands to a tmux server of our own."""
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as settings:
        settings.write(TMUX_SETTINGS)
        settings.flush()
        server = ["tmux", "-L", f"sqzb-screens-{os.getpid()}", "-f", settings.name]
        try:
            yield server
        finally:
            subprocess.run([*server, "kill-server"], capture_output=True)


class Terminal:
    """A command in a terminal of its own."""

    numbers = itertools.count()

    def __init__(self, server: list[str], command: str, width: int, folder: Path) -> None:
        self._server, self._name = server, f"screen{next(self.numbers)}"
        size = ["-x", str(width), "-y", str(HEIGHT)]
        self._tmux(
            "new-session", "-d", "-s", self._name, *size, "-e", f"SHOWN={command}",
            "-c", str(folder), "sh", "-c", SHELL,
        )  # fmt: skip

    def _tmux(self, *arguments: str) -> str:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # of the command `sqzb`
        ended = subprocess.run(
            [*self._server, *arguments],
            env=os.environ | {"PATH": path},
            capture_output=True,
            text=True,
            check=True,
        )
        return ended.stdout

    def wait(self, pattern: str) -> None:
        """Wait until the screen has the pattern or the command has ended."""
        for _ in range(10 * SECONDS):
            if self._has_ended() or re.search(pattern, "\n".join(plain(self.screen()))):
                return
            time.sleep(0.1)
        sys.exit(f"{SECONDS} seconds passed without {pattern!r}")

    def _has_ended(self) -> bool:
        return self._tmux("display-message", "-p", "-t", self._name, "#{pane_dead}").strip() == "1"

    def screen(self) -> list[str]:
        """Return the lines of the terminal from its start, with escapes for their colours."""
        return self._tmux("capture-pane", "-e", "-p", "-S", "-", "-t", self._name).splitlines()

    def stop(self) -> None:
        """Type Ctrl-C."""
        self._tmux("send-keys", "-t", self._name, "C-c")

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._tmux("kill-session", "-t", self._name)


def plain(lines: list[str]) -> list[str]:
    """Return lines without their colours."""
    return [text.plain for text in AnsiDecoder().decode("\n".join(lines))]


def write_picture(name: str, lines: list[str], width: int, folder: Path) -> None:
    """Write lines of a terminal as an SVG."""
    # A colour holds until the next one, over line ends too.
    texts = list(AnsiDecoder().decode(neutral("\n".join(lines), folder)))
    while texts and not texts[-1].plain.strip():
        texts.pop()
    recorded = Console(
        record=True, width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    for text in texts:
        recorded.print(text, no_wrap=True, crop=True, highlight=False)

    styles = recorded.export_svg(theme=DARK, code_format="{styles}", unique_id=name, clear=False)
    svg = recorded.export_svg(theme=LIGHT, code_format=FRAME, unique_id=name)
    # Without the clip path of each line, and without the line ends, which it has as texts.
    svg = re.sub(r' clip-path="[^"]*"', "", svg)
    svg = re.sub(r"<text [^>]*>\n</text>", "\n", svg)
    for mark, value in (
        ("DARK_STYLES", styles.strip()),
        ("LIGHT_GROUND", LIGHT.background_color.hex),
        ("DARK_GROUND", DARK.background_color.hex),
        ("WIDTH", f"{COLUMN * width + 2 * MARGIN:.0f}"),
        ("HEIGHT", f"{LINE * len(texts) + 2 * MARGIN:.0f}"),
        ("MARGIN", str(MARGIN)),
    ):
        svg = svg.replace(mark, value)
    (PICTURES / f"{name}.svg").write_text(svg, encoding="utf-8")


def neutral(text: str, folder: Path) -> str:
    """Return text with other names of as many letters in place of this machine's paths."""
    package, environment = Path(sqzb.__file__).parents[1], Path(sys.prefix).parent
    for path in (folder, package, environment, Path.home()):
        stand_in = "/home/" + "sqzb" * len(str(path))
        text = text.replace(str(path), stand_in[: len(str(path))])
    return text


if __name__ == "__main__":
    main()
