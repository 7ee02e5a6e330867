"""The manifest: figures that add up, and nothing that differs between two runs of a recipe."""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sqzb.corpus import shards
from sqzb.corpus.build import build
from sqzb.corpus.manifest import damaged, report
from sqzb.corpus.store import HELDOUT, SPLITS, TRAIN, Corpus
from sqzb.corpus.text import CHANGING, DROPPING, KEPT, READ
from sqzb.recipe import CorpusRecipe, Source

WriteProse = Callable[[Path, int, int], list[str]]
Counts = Mapping[str, Mapping[str, int]]


@pytest.fixture(scope="module")
def mixed(
    tmp_path_factory: pytest.TempPathFactory, corpus_recipe: CorpusRecipe, write_prose: WriteProse
) -> Corpus:
    """A corpus of three sources: every cleaning rule applies, and documents are unreadable."""
    folder = tmp_path_factory.mktemp("mixed")
    texts = write_prose(folder / "books.jsonl", 60, 11)
    odd = [f"{text}\ufeff  \n\n{{{{Infobox}}}}\n\n{'river ' * 60}." for text in texts[:20]]
    foreign = ["Das Wasser steht im Winter unter der alten Brücke. " * 6] * 2
    rows = [json.dumps({"text": text}) for text in [*odd, *foreign, *odd[:3]]] + [
        '{"text": "Too short."}',
        json.dumps({"text": "river " * 60}),
    ]
    (folder / "wiki.jsonl").write_text("\n".join([*rows[:5], "torn", *rows[5:], "torn"]))
    (folder / "lines.txt").write_text(
        "\n".join(sentence for text in texts for sentence in text.split("\n"))
    )
    sources = {
        "books": Source(path=str(folder / "books.jsonl"), licence="CC0", weight=0.5),
        "wiki": Source(path=str(folder / "wiki.jsonl"), wiki_leftovers=True, weight=2.0),
        "lines": Source(path=str(folder / "lines.txt"), sentences_per_document=7),
    }
    changes = {
        "output": str(folder / "made"),
        "sources": sources,
        "max_sentence_characters": 200,
        "english_only": True,
        "max_bad_documents": 2,
    }
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(shards, "SHARD_TOKENS", 3000)
        patched.setattr(shards, "BATCH_CHARACTERS", 3000)
        return build(corpus_recipe.model_copy(update=changes), workers=1)


@pytest.fixture(params=["corpus", "mixed"])
def made(request: pytest.FixtureRequest) -> Corpus:
    found: Corpus = request.getfixturevalue(request.param)
    return found


def chunk_tokens(corpus: Corpus, split: str, length: int) -> list[list[int]]:
    chunks = corpus.split(split, length)
    return [chunks[number].tokens.tolist() for number in range(len(chunks))]


def tokens_of(corpus: Corpus, split: str) -> list[int]:
    return [token for chunk in chunk_tokens(corpus, split, 16) for token in chunk]


def test_what_was_read_is_kept_or_taken_away_by_a_rule(made: Corpus) -> None:
    each = [source["counts"] for source in made.manifest["sources"].values()]
    for counts in [made.manifest["counts"], *each]:
        first, *_, last = counts
        assert (first, last) == (READ, KEPT)
        assert counts[READ]["bytes"] == sum(
            of["bytes"] for rule, of in counts.items() if rule != READ
        )
        dropping = [rule for rule in counts if rule not in (READ, *CHANGING)]
        assert counts[READ]["documents"] == sum(counts[rule]["documents"] for rule in dropping)
    for rule, total in made.manifest["counts"].items():
        for what in ("documents", "bytes"):
            assert total[what] == sum(counts[rule][what] for counts in each if rule in counts)


def test_every_rule_was_at_work(mixed: Corpus) -> None:
    counts = mixed.manifest["counts"]
    assert counts.keys() == {READ, *CHANGING, *DROPPING, "duplicates", KEPT}
    assert all(of["documents"] > 0 for of in counts.values())


def test_documents_stand_in_a_split_as_often_as_they_are_taken(corpus: Corpus) -> None:
    assert (
        sum(corpus.manifest["documents"].values()) == corpus.manifest["counts"][KEPT]["documents"]
    )


def test_bad_documents_are_counted_and_named(mixed: Corpus, corpus: Corpus) -> None:
    bad = mixed.manifest["bad"]
    assert bad["documents"] == 2
    assert [name.partition(" ")[0].rpartition("/")[2] for name in bad["named"]] == [
        "wiki.jsonl:6",
        "wiki.jsonl:29",
    ]
    assert corpus.manifest["bad"] == {"documents": 0, "named": []}


def test_tokens_and_the_unigram_baseline(made: Corpus) -> None:
    train, heldout = (Counter(tokens_of(made, split)) for split in SPLITS)
    assert made.manifest["tokens"] == {TRAIN: train.total(), HELDOUT: heldout.total()}
    total = train.total() + made.manifest["vocab_size"]
    loss = (
        -sum(n * np.log((train[token] + 1) / total) for token, n in heldout.items())
        / heldout.total()
    )
    assert made.manifest["heldout_unigram_nats"] == pytest.approx(loss, rel=1e-9)


def test_chunks_padding_and_what_is_dropped(made: Corpus) -> None:
    assert made.manifest["sequence_lengths"] == [16, 32]
    assert made.manifest["lengths"].keys() == {"16", "32"}
    for length, figures in made.manifest["lengths"].items():
        chunks = {split: chunk_tokens(made, split, int(length)) for split in SPLITS}
        assert figures["chunks"] == {split: len(found) for split, found in chunks.items()}
        filled = sum(len(tokens) + 3 for tokens in chunks[TRAIN])
        assert figures["padding"] == pytest.approx(
            1 - filled / (int(length) * len(chunks[TRAIN])), abs=1e-4
        )
        assert figures["dropped"] == 0  # nothing is cut off


def test_the_vocabulary(made: Corpus) -> None:
    vocabulary = made.tokenizer.get_vocab()
    assert made.manifest["vocab_size"] == len(vocabulary) == 150
    assert made.manifest["special_ids"] == {
        name: vocabulary[f"[{name.upper()}]"] for name in ("pad", "unk", "cls", "sep", "mask")
    }


def test_every_file_has_its_size_and_sha256(made: Corpus) -> None:
    listed = made.manifest["files"] | made.manifest["marks"]
    content = {
        str(p.relative_to(made.folder)): p.read_bytes()
        for p in made.folder.rglob("*")
        if p.is_file()
    }
    assert content.keys() - listed.keys() == {"manifest.json", "recipe.yaml"}
    for name, about in listed.items():
        assert about == {
            "bytes": len(content[name]),
            "sha256": hashlib.sha256(content[name]).hexdigest(),
        }
    assert damaged(made.folder) == {}


def test_what_is_known_of_the_sources(mixed: Corpus) -> None:
    about = {
        name: {k: v for k, v in of.items() if k != "counts"}
        for name, of in mixed.manifest["sources"].items()
    }
    paths = {name: of.pop("path") for name, of in about.items()}
    assert {name: Path(path).name for name, path in paths.items()} == {
        "books": "books.jsonl",
        "wiki": "wiki.jsonl",
        "lines": "lines.txt",
    }
    lines = about.pop("lines")
    assert about == {"books": {"licence": "CC0"}, "wiki": {}}
    assert lines.keys() == {"documents_are"} and lines["documents_are"].startswith(
        "7 consecutive sentences"
    )


def test_nothing_is_said_of_when_where_and_by_how_many(made: Corpus) -> None:
    keys = "format sources counts bad documents tokens sequence_lengths lengths vocab_size"
    others = {"heldout_unigram_nats", "special_ids", "files", "marks", "seen", "vocab_asked"}
    others |= {"recipe_sha256"}
    assert made.manifest.keys() == {*keys.split(), *others}
    assert str(made.folder) not in (made.folder / "manifest.json").read_text()


def test_damage_is_described(corpus: Corpus, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(corpus.folder, folder)
    gone, shorter, other = sorted(corpus.manifest["files"])[:3]
    (folder / gone).unlink()
    size = (folder / shorter).stat().st_size
    (folder / shorter).write_bytes((folder / shorter).read_bytes()[:-1])
    (folder / other).write_bytes(bytes(reversed((folder / other).read_bytes())))
    assert damaged(folder) == {
        gone: "missing",
        shorter: f"{size - 1:,} bytes in place of {size:,}",
        other: "its content has changed",
    }


def test_the_report_says_what_the_manifest_says(
    mixed: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    report(mixed)
    said = capsys.readouterr().out
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in said.splitlines()]
    rows = {row[0]: row[1:] for row in cells if row}
    for rule, of in mixed.manifest["counts"].items():
        assert rows[rule][0] == f"{of['documents']:,}"
        assert rows[rule][2] == f"{of['bytes'] / mixed.manifest['counts'][READ]['bytes']:.1%}"
    assert rows["could not be read"][0] == "2"
    for length, figures in mixed.manifest["lengths"].items():
        assert rows[length][:2] == [f"{figures['chunks'][split]:,}" for split in SPLITS]
        assert rows[length][2] == f"{figures['padding']:.1%}"
    assert f"{mixed.manifest['heldout_unigram_nats']:.3f} nats" in said


def test_there_may_be_no_heldout_part(
    corpus_recipe: CorpusRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes: dict[str, Any] = {"output": str(tmp_path / "[/all]"), "heldout": 0.0}
    corpus = build(corpus_recipe.model_copy(update=changes), workers=1)
    assert corpus.manifest["heldout_unigram_nats"] is None and len(corpus.split(HELDOUT, 16)) == 0
    assert corpus.manifest["tokens"][HELDOUT] == corpus.manifest["documents"][HELDOUT] == 0
    capsys.readouterr()
    report(corpus)
    said = capsys.readouterr().out
    assert (
        "nats" not in said and f"{tmp_path}/[/all]/manifest.json" in said
    )  # brackets are no markup
