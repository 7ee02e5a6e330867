"""Shell blocks of README and docs/ run as they stand, with tiny stand-ins, or say why they do not.

A block that is not run has a comment right before it, which a reader of the page does not see:

    <!-- not run: the reason -->

The blocks of a page run in its order, in one folder. Stand-ins there have the names that the
commands use: recipes of tiny models, texts, a model at squeezebert/squeezebert-uncased. The Hub's
GLUE is a few rows in memory. The fork server's processes would not have this GLUE, so the commands
run in this process.
"""

import csv
import json
import os
import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import datasets
import pytest
from typer.testing import CliRunner

from conftest import prose
from saved_runs import remember, save_run
from sqzb.cli import app
from sqzb.glue.tasks import is_test, task
from sqzb.model import SqueezeBertConfig, SqueezeBertForPreTraining
from sqzb.recipe import CorpusRecipe, PretrainRecipe, dump_recipe, load_recipe
from sqzb.tokenizer import train_tokenizer

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?P<before>[^\n]*)\n\n?```(?:sh|bash|console)\n(?P<text>.*?)```", re.DOTALL)
MARKER = re.compile(r"<!-- not run: (?P<reason>.*?)\s*-->")
TINY_MODEL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 16,
    "max_position_embeddings": 512,
}
TINY_RUN = [
    "precision=fp32",
    "compile=false",
    "micro_batch=2",
    "global_batch=2",
    "steps=2",
    "evaluate_every=2",
    "evaluate_sequences=2",
    "checkpoint_every=2",
]


class Block(NamedTuple):
    """A shell block of a page. reason: why it is not run; None if it is run."""

    page: str
    text: str
    reason: str | None

    @property
    def commands(self) -> list[list[str]]:
        lines = self.text.replace("\\\n", " ").splitlines()
        words = [shlex.split(line, comments=True) for line in lines]
        return [command for command in words if command]


def blocks(page: str, text: str) -> list[Block]:
    """Return the shell blocks of a page in their order."""
    matches = []
    for match in BLOCK.finditer("\n" + text):
        marker = MARKER.fullmatch(match["before"].strip())
        matches.append(Block(page, match["text"], marker["reason"] if marker else None))
    return matches


ALL = [block for page in PAGES for block in blocks(page.name, page.read_text(encoding="utf-8"))]
RUN = sorted({block.page for block in ALL if block.reason is None})


def test_markers_are_read() -> None:
    text = "a\n\n```sh\nb\n```\n\n<!-- not run: needs a GPU -->\n\n```sh\nc\n```\n"
    text += "<!-- not run: -->\n```sh\nd\n```\n"
    found = [(block.text.strip(), block.reason) for block in blocks("page", text)]
    assert found == [("b", None), ("c", "needs a GPU"), ("d", "")]


def test_every_block_is_read() -> None:
    starts = [re.findall(r"^```(?:sh|bash|console)", page.read_text(), re.M) for page in PAGES]
    assert len(ALL) == sum(map(len, starts))
    assert {"README.md", "first-model.md", "own-data.md", "reproduce.md", "corpus.md"} <= set(RUN)


@pytest.mark.parametrize("block", ALL, ids=lambda block: f"{block.page}: {block.text[:30]}")
def test_a_block_runs_here_or_says_why_not(block: Block) -> None:
    if block.reason is None:
        assert {command[0] for command in block.commands} == {"sqzb"}
    else:
        assert len(block.reason.split()) >= 2


def recipes() -> dict[str, str]:
    """Return the tiny recipes by file name."""
    corpus = ["sources.wikipedia.path=wikipedia/", "sources.bookcorpus.path=books/"]
    corpus += ["sources.bookcorpus.sentences_per_document=null", "vocabulary.size=150"]
    corpus += ["sources.wikipedia.config=null", "sources.wikipedia.revision=null"]
    corpus += ["heldout=0.2", "min_characters=100"]
    model = [f"model.{key}={value}" for key, value in TINY_MODEL.items()]
    made = {
        "corpus": load_recipe(CorpusRecipe, Path("corpus"), corpus),
        "phase1_128": load_recipe(PretrainRecipe, Path("phase1_128"), [*TINY_RUN, *model]),
        "phase2_512": load_recipe(PretrainRecipe, Path("phase2_512"), TINY_RUN),
    }
    # A model of its recipe's own sizes takes the corpus's vocabulary only without this key.
    texts = {name: re.sub(r" +vocab_size: .*\n", "", dump_recipe(made[name])) for name in made}
    return {f"{name}.yaml": text for name, text in texts.items()}


def load_dataset_builder(path: str, name: str, *, revision: None) -> SimpleNamespace:
    """Return a builder of a GLUE task, as the Hub has it."""
    return SimpleNamespace(
        hash=None,
        download_and_prepare=lambda: None,
        as_dataset=lambda split: glue_rows(name, split),
    )


def glue_rows(name: str, split: str) -> datasets.Dataset:
    """Return rows of a GLUE task, as the Hub has them."""
    row = task(name)
    n = 8
    texts = {column: prose(n, seed) for seed, column in enumerate(row.columns)}
    short = {column: [" ".join(text.split()[:6]) for text in texts[column]] for column in texts}
    labels = [number % max(2, len(row.labels)) for number in range(n)]
    kind = datasets.ClassLabel(names=list(row.labels)) if row.labels else datasets.Value("float")
    features: dict[str, Any] = {column: datasets.Value("string") for column in short}
    return datasets.Dataset.from_dict(
        {**short, "label": [-1] * n if is_test(split) else labels},
        features=datasets.Features({**features, "label": kind}),
    )


def write_own_data(folder: Path) -> None:
    """Write labelled files of each kind, with the names that the commands use."""
    words = " ".join(prose(2, 3)).split()
    texts = [" ".join(words[start : start + 4]) for start in range(0, 96, 4)]
    tables = {
        "reviews.csv": [["good", "bad"][number % 2] for number in range(len(texts))],
        "more.csv": [["good", "bad"][number % 2] for number in range(len(texts))],
        "ratings.csv": [f"{number / 7:.2f}" for number in range(len(texts))],
        "topics.csv": [["fast,cheap", "cheap", "fast"][number % 3] for number in range(len(texts))],
    }
    for name, labels in tables.items():
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["text", "label"], *zip(texts, labels, strict=True)])
    with (folder / "entities.jsonl").open("w", encoding="utf-8") as file:
        for text in texts:
            row = {"words": text.split(), "tags": ["B-A", "I-A", "O", "O"]}
            file.write(json.dumps(row) + "\n")


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder with all that the commands need."""
    for folder, seed in (("wikipedia", 0), ("books", 1), ("texts", 2)):
        (tmp_path / folder).mkdir()
        for number, text in enumerate(prose(20, seed)):
            (tmp_path / folder / f"{number}.txt").write_text(text, encoding="utf-8")
    quick = {"own_data.yaml": "epochs: 1\nmax_length: auto\n"}
    for name, text in (recipes() | quick).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    tokenizer = train_tokenizer(prose(50, 0), 150, lowercase=True)
    config = SqueezeBertConfig(vocab_size=tokenizer.get_vocab_size(), **TINY_MODEL)
    published = SqueezeBertForPreTraining(config)
    published.save_pretrained(tmp_path / "squeezebert" / "squeezebert-uncased", tokenizer)
    write_own_data(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset_builder", load_dataset_builder)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)  # a corpus is prepared without processes
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_runs(folder: Path) -> None:
    """Write finished runs, and the files that they predict."""
    vocabulary = folder / "squeezebert" / "squeezebert-uncased"
    save_run(folder / "runs/mrpc", vocabulary, task="mrpc")
    save_run(folder / "runs/phase2_512", vocabulary)
    remember(save_run(folder / "runs/reviews", vocabulary, labels=("bad", "good")), "text")
    (folder / "shards").mkdir()
    for name in ("new.csv", "shards/0.csv", "shards/1.csv"):
        (folder / name).write_text("id,text,body\n1,A fine film.,Dull.\n", encoding="utf-8")
    (folder / "lines.txt").write_text("A fine film.\n", encoding="utf-8")


@pytest.mark.parametrize("page", RUN)
def test_the_blocks_of_a_page_run(page: str, stand_ins: Path) -> None:
    if page == "predict.md":
        write_runs(stand_ins)
    for block in ALL:
        if block.page != page or block.reason is not None:
            continue
        for _, *arguments in block.commands:
            ended = CliRunner().invoke(app, arguments)
            assert ended.exit_code == 0, f"sqzb {shlex.join(arguments)}\n{ended.output}"
