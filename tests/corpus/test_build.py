"""prepare-corpus: the same corpus however its work is divided and interrupted; clear refusals."""

import errno
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from threading import Thread, main_thread
from types import ModuleType, SimpleNamespace
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builds import at, split_tokens, stops, texts_of
from sqzb import console
from sqzb.corpus import build as build_module
from sqzb.corpus import claim as claim_module
from sqzb.corpus import shards, sources, tables
from sqzb.corpus import vocabulary as vocabulary_module
from sqzb.corpus.build import build
from sqzb.corpus.sources import Unit, documents, units
from sqzb.corpus.store import SPLITS, Corpus
from sqzb.errors import UserError
from sqzb.files import locked
from sqzb.recipe import CorpusRecipe, Source, Vocabulary

WriteProse = Callable[[Path, int, int], list[str]]
Content = Callable[[Path], dict[str, bytes]]

pytestmark = pytest.mark.usefixtures("small_units")


# Divided and interrupted


def test_two_workers_make_the_same_corpus(
    corpus: Corpus, corpus_recipe: CorpusRecipe, tmp_path: Path, content: Content
) -> None:
    assert content(build(at(corpus_recipe, tmp_path / "two"), workers=2).folder) == content(
        corpus.folder
    )
    assert len([name for name in corpus.manifest["files"] if name.startswith("shards/")]) > 4


def test_a_trained_vocabulary_is_the_same_each_time(
    corpus_recipe: CorpusRecipe, tmp_path: Path, content: Content
) -> None:
    made = [
        build(at(corpus_recipe, tmp_path / n, vocabulary=Vocabulary(size=120)), workers=1)
        for n in ("one", "two")
    ]
    assert content(made[0].folder) == content(made[1].folder)
    assert made[0].manifest["vocab_size"] == 120


def test_a_vocabularys_sample_is_of_every_unit_and_no_more_is_read_than_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_prose: WriteProse
) -> None:
    read: list[str] = []

    def counted(unit: Unit, source: Source) -> Iterator[Any]:
        for row in documents(unit, source):
            read.append(str(unit))
            yield row

    monkeypatch.setattr(vocabulary_module, "documents", counted)
    write_prose(tmp_path / "few" / "0.jsonl", 50, 0)
    for number in range(5):
        write_prose(tmp_path / "many" / f"{number}.jsonl", 50, number)
    given = {name: Source(path=str(tmp_path / name)) for name in ("few", "many")}
    work = [unit for name, source in given.items() for unit in units(name, source)]
    assert len(work) > 5

    def sample(characters: int, seed: int) -> list[str]:
        vocabulary = Vocabulary(sample_characters=characters)
        return list(
            vocabulary_module._sample(
                CorpusRecipe(sources=given, vocabulary=vocabulary, seed=seed), work
            )
        )

    for each in (1, 3000):
        read.clear()
        found = sample(each * len(work), 0)
        assert sum(map(len, found)) == each * len(work)
        assert set(read) == set(map(str, work)) and len(read) < 2 * len(found)
        assert found == sample(each * len(work), 0) != sample(each * len(work), 1)
    assert len(sample(10**9, 0)) > 200  # less text than is asked for: all of it


@pytest.mark.parametrize("characters", [10, 30_000, 10**9])
def test_the_reading_of_a_sample_has_a_bar_that_moves_within_a_unit(
    characters: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_prose: WriteProse
) -> None:
    for number in range(3):
        write_prose(tmp_path / f"{number}.jsonl", 50, number)
    source = Source(path=str(tmp_path))
    recipe = CorpusRecipe(
        sources={"a": source}, vocabulary=Vocabulary(sample_characters=characters)
    )
    work = list(units("a", source))
    shares: list[float] = []

    class Noted(console.Bar):
        def to(self, done: int, *texts: str) -> None:
            shares.append(done / self._total)
            super().to(done, *texts)

    monkeypatch.setattr(console, "Bar", Noted)
    texts = list(vocabulary_module._sample(recipe, work))
    assert shares == sorted(shares) and shares[-1] == 1
    assert len(set(shares)) >= min(len(texts), len(work))


@pytest.mark.parametrize(
    ("module", "step", "after"),
    [
        (build_module, "claim", 0),
        (claim_module, "whole_file", 0),
        (claim_module, "write_json", 0),
        (vocabulary_module, "save_tokenizer", 0),
        (shards, "write_arrays", 0),
        (shards, "write_json", 0),
        (build_module, "write_unit", 1),
        (shards, "write_arrays", 3),
        (shards, "write_json", 3),
        (build_module, "find_repeated", 0),
        (tables, "write_arrays", 0),
        (build_module, "write_table", 2),
        (build_module, "make_manifest", 0),
        (build_module, "write_json", 0),
    ],
    ids=lambda value: (
        value.__name__.rpartition(".")[2] if isinstance(value, ModuleType) else str(value)
    ),
)
def test_a_stopped_command_goes_on_to_the_same_corpus(
    corpus: Corpus,
    corpus_recipe: CorpusRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: Content,
    module: ModuleType,
    step: str,
    after: int,
) -> None:
    recipe = at(corpus_recipe, tmp_path / "stopped")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        stops(patched, module, step, after, KeyboardInterrupt)
        build(recipe, workers=1)
    with pytest.raises(UserError, match=r"no manifest\.json"):
        Corpus(recipe.output)
    assert content(build(recipe, workers=1).folder) == content(corpus.folder)


@pytest.mark.usefixtures("small_shards")
def test_work_that_has_a_mark_is_not_done_again(
    corpus_recipe: CorpusRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    made: list[str],
    content: Content,
) -> None:
    whole = content(build(at(corpus_recipe, tmp_path / "whole"), workers=1).folder)
    all_of_them = list(made)
    assert any(one[:5] == other[:5] for one, other in pairwise(all_of_them))  # a unit has several
    made.clear()
    recipe = at(corpus_recipe, tmp_path / "stopped")
    for _ in range(3):
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            stops(patched, shards, "write_json", 2, KeyboardInterrupt)
            build(recipe, workers=1)
    assert content(build(recipe, workers=1).folder) == whole
    assert made == all_of_them  # those that were stopped did not come to their end


def test_what_a_kill_leaves_does_not_matter(
    corpus: Corpus, corpus_recipe: CorpusRecipe, tmp_path: Path, content: Content
) -> None:
    folder = tmp_path / "killed"
    shutil.copytree(corpus.folder, folder)
    (folder / "manifest.json").unlink()
    (folder / "tokenizer_config.json").unlink()  # between the tokenizer's files
    (folder / "shards" / "00002-000.json").unlink()  # between shard and record
    again = [
        path
        for path in folder.rglob("*")
        if path.is_file() and (path.parent.name != "shards" or "2-0" in path.name)
    ]
    torn = [str(path.relative_to(folder)) for path in again]
    for name in [f"{name}.partial" for name in (*torn, "manifest.json", "shards/00002-000.json")]:
        (folder / name).write_text("torn")
    assert content(build(at(corpus_recipe, folder), workers=1).folder) == content(corpus.folder)


def test_a_kill_at_the_first_file_leaves_a_folder_that_is_ours(
    corpus: Corpus, corpus_recipe: CorpusRecipe, tmp_path: Path, content: Content
) -> None:
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / "recipe.yaml.partial").write_text("outp")
    assert content(build(at(corpus_recipe, tmp_path / "killed"), workers=1).folder) == content(
        corpus.folder
    )


def test_an_interrupt_waits_for_the_units_at_work_alone(tmp_path: Path) -> None:
    """No worker goes on with what is left, and the next call does that."""
    sentence = "The quick brown fox jumps over the lazy dog, and then it sleeps. "
    for number in range(30):
        (tmp_path / f"{number}.txt").write_text(sentence * 2000, encoding="utf-8")
    recipe = CorpusRecipe(
        output=str(tmp_path / "out"),
        sources={"text": Source(path=str(tmp_path / "*.txt"))},
        vocabulary=Vocabulary(size=200, sample_characters=3000),
        sequence_lengths=[32],
        drop_duplicates=False,
    )

    def done() -> int:
        return len(list((tmp_path / "out" / "shards").glob("*.json")))

    def when_two_are_done() -> None:
        while done() < 2:
            time.sleep(0.005)
        signal.pthread_kill(main_thread().ident or 0, signal.SIGINT)

    Thread(target=when_two_are_done, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        build(recipe, workers=2)
    left = done()
    time.sleep(0.5)
    assert 2 <= left == done() < 20
    assert build(recipe, workers=1).manifest["counts"]["read"]["documents"] == 30


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_in_a_worker_is_the_users(
    corpus_recipe: CorpusRecipe, tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "UNIT_BYTES", 30)
    for number in range(2):
        (tmp_path / f"{number}.jsonl").write_text('{"text": "fine"}\n{"text": 1}\n')
    given = {"a": Source(path=str(tmp_path / "*.jsonl"))}
    with pytest.raises(UserError, match=r"(?s)1 document cannot.*\d\.jsonl:2"):
        build(at(corpus_recipe, tmp_path / "out", sources=given), workers=workers)


# Called again

STAGE_TWO: dict[str, Any] = {
    "sequence_lengths": [24, 64],
    "heldout": 0.4,
    "short_seq_prob": 0.5,
    "drop_duplicates": False,
}
STAGE_ONE: dict[str, Any] = {
    "sources": {"prose": Source(path="elsewhere")},
    "vocabulary": Vocabulary(size=120),
    "language": "de",
    "min_characters": 101,
    "max_sentence_characters": 500,
    "english_only": True,
    "near_duplicates": 0.8,
    "seed": 1,
}


@pytest.mark.parametrize("keys", [*([key] for key in STAGE_TWO), list(STAGE_TWO)], ids=" ".join)
def test_a_key_of_stage_two_costs_no_reading(
    corpus: Corpus,
    corpus_recipe: CorpusRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: Content,
    keys: list[str],
) -> None:
    changes = {key: STAGE_TWO[key] for key in keys}
    from_start = content(build(at(corpus_recipe, tmp_path / "start", **changes), workers=1).folder)
    assert from_start != content(corpus.folder)
    folder = tmp_path / "again"
    shutil.copytree(corpus.folder, folder)
    with monkeypatch.context() as patched:
        stops(patched, build_module, "write_unit", 0, AssertionError("reads"))
        assert content(build(at(corpus_recipe, folder, **changes), workers=1).folder) == from_start
        assert content(build(at(corpus_recipe, folder), workers=1).folder) == content(corpus.folder)


def test_a_recut_that_was_stopped_goes_on(
    corpus: Corpus,
    corpus_recipe: CorpusRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: Content,
) -> None:
    folder = tmp_path / "again"
    shutil.copytree(corpus.folder, folder)
    steps = [(claim_module, "_take_apart"), (claim_module, "whole_file")]
    steps += [(build_module, "write_table"), (build_module, "make_manifest")]
    for module, step in steps:
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            stops(patched, module, step, 0, KeyboardInterrupt)
            build(at(corpus_recipe, folder, **STAGE_TWO), workers=1)
        if step == "_take_apart":
            assert content(folder) == content(corpus.folder)
    from_start = build(at(corpus_recipe, tmp_path / "start", **STAGE_TWO), workers=1).folder
    assert content(build(at(corpus_recipe, folder, **STAGE_TWO), workers=1).folder) == content(
        from_start
    )


def test_every_key_belongs_to_a_stage() -> None:
    assert (
        STAGE_ONE.keys() | STAGE_TWO.keys() | {"output", "max_bad_documents"}
        == CorpusRecipe.model_fields.keys()
    )


@pytest.mark.parametrize("key", STAGE_ONE)
@pytest.mark.parametrize("finished", [True, False])
def test_another_key_is_refused_by_name(
    corpus: Corpus,
    corpus_recipe: CorpusRecipe,
    tmp_path: Path,
    key: str,
    finished: bool,
    content: Content,
) -> None:
    folder = tmp_path / "held"
    shutil.copytree(corpus.folder, folder)
    if not finished:
        (folder / "manifest.json").unlink()
    (tmp_path / "elsewhere.jsonl").write_text('{"text": "a"}\n')
    value = (
        {"prose": Source(path=str(tmp_path / "elsewhere.jsonl"))}
        if key == "sources"
        else STAGE_ONE[key]
    )
    before = content(folder)
    with pytest.raises(UserError, match=rf"another recipe: {key} differs from .*--output"):
        build(at(corpus_recipe, folder, heldout=0.1, **{key: value}), workers=1)
    assert content(folder) == before


def test_sources_that_changed_in_between_are_refused(
    corpus_recipe: CorpusRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write_prose: WriteProse,
) -> None:
    for number in (1, 3):
        write_prose(tmp_path / "text" / f"{number}.jsonl", 20, number)
    recipe = at(
        corpus_recipe, tmp_path / "stopped", sources={"a": Source(path=str(tmp_path / "text"))}
    )
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        stops(patched, build_module, "make_manifest", 0, KeyboardInterrupt)
        build(recipe, workers=1)
    write_prose(tmp_path / "text" / "2.jsonl", 20, 2)  # moves the number of 3.jsonl
    with pytest.raises(UserError, match="sources have changed"):
        build(recipe, workers=1)
    (tmp_path / "text" / "2.jsonl").unlink()
    assert build(recipe, workers=1).manifest["counts"]["read"]["documents"] == 40
    write_prose(tmp_path / "text" / "2.jsonl", 20, 2)
    with pytest.raises(UserError, match="sources have changed"):
        build(recipe, workers=1)


class HubData:
    """A data set of two shards, as datasets streams it."""

    num_shards, column_names = 2, None
    info = SimpleNamespace(splits=None)

    def __init__(self, texts: list[str]) -> None:
        self._texts = texts

    def shard(self, num_shards: int, index: int) -> Iterator[dict[str, str]]:
        return ({"text": text} for text in self._texts[index::num_shards])


def test_a_hub_data_set_is_read_to_its_end_at_the_commit_of_the_beginning(
    corpus_recipe: CorpusRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, read, newest = texts_of(corpus_recipe), [], ["a" * 40]

    def builder(*_: Any, revision: str) -> SimpleNamespace:
        commit = newest[0] if revision == "main" else revision
        read.append(commit)
        return SimpleNamespace(hash=commit, as_streaming_dataset=lambda split: HubData(texts))

    monkeypatch.setattr(datasets, "load_dataset_builder", builder)
    recipe = at(
        corpus_recipe, tmp_path / "hub", sources={"hub": Source(path="owner/name", revision="main")}
    )
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        stops(patched, shards, "write_json", 1, KeyboardInterrupt)
        build(recipe, workers=1)
    newest[0] = "b" * 40
    corpus = build(recipe, workers=1)
    assert set(read) == {"a" * 40} == {corpus.manifest["sources"]["hub"]["revision"]}
    build(recipe, workers=1)  # nothing is left to do, and nothing has changed


def test_a_finished_corpus_is_left_as_it_is(
    corpus: Corpus, corpus_recipe: CorpusRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    def seen() -> dict[Path, tuple[int, int]]:
        return {
            path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in corpus.folder.rglob("*")
        }

    before = seen()
    again = build(at(corpus_recipe, corpus.folder, max_bad_documents=3), workers=1)
    assert again.manifest == corpus.manifest and seen() == before
    assert "nothing to do" in capsys.readouterr().out


def test_a_used_folder_is_not_touched(corpus_recipe: CorpusRecipe, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    for output in (tmp_path / "mine", tmp_path / "mine" / "thesis.txt"):
        with pytest.raises(UserError, match=r"holds other files|is a file"):
            build(at(corpus_recipe, output), workers=1)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_second_process_is_refused(
    corpus: Corpus, corpus_recipe: CorpusRecipe, tmp_path: Path
) -> None:
    recipe = at(corpus_recipe, tmp_path / "held")
    (tmp_path / "held").mkdir()
    with locked(tmp_path / "held") as ours:
        assert ours
        with pytest.raises(UserError, match="Another prepare-corpus"):
            build(recipe, workers=1)
        assert list((tmp_path / "held").iterdir()) == []
    assert build(recipe, workers=1).manifest == corpus.manifest


@pytest.mark.parametrize("name", ["units.json", "recipe.yaml", "manifest.json"])
def test_a_record_that_is_no_longer_one_is_told(
    corpus: Corpus, corpus_recipe: CorpusRecipe, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "held"
    shutil.copytree(corpus.folder, folder)
    (folder / name).write_text("[{")
    with pytest.raises(UserError, match=str(folder)):
        build(at(corpus_recipe, folder), workers=1)


# Too much, too little


@pytest.mark.parametrize("given", [None, Vocabulary(size=120)])
def test_no_usable_document(
    corpus_recipe: CorpusRecipe, tmp_path: Path, given: Vocabulary | None
) -> None:
    output = tmp_path / "none"
    changes = {} if given is None else {"vocabulary": given}
    with pytest.raises(UserError, match=r"read: 207; too short: 207\. .*min_characters=100000"):
        build(at(corpus_recipe, output, min_characters=100_000, **changes), workers=1)
    assert not output.exists()


def test_a_heldout_part_that_was_asked_for_is_not_empty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = "\n\n".join(f"The river number {n} is long and wide. It is." for n in range(40))
    (tmp_path / "a.txt").write_text(blocks)
    values: dict[str, Any] = {
        "output": str(tmp_path / "out"),
        "sources": {"mine": {"path": str(tmp_path / "a.txt")}},
        "vocabulary": {"size": 120},
        "sequence_lengths": [16],
        "min_characters": 10,
    }
    asked = CorpusRecipe.model_validate(values | {"heldout": 0.1})
    with pytest.raises(UserError, match=r"heldout=0\.1 of 1 document is none.*blank-lines"):
        build(asked, workers=1)
    assert not (tmp_path / "out" / "manifest.json").exists()

    # The same folder continues with another share, and the default only warns.
    assert build(CorpusRecipe.model_validate(values), workers=1).manifest["documents"]["train"] == 1
    assert "No document is held out" in capsys.readouterr().err
    divided = values | {"output": str(tmp_path / "divided"), "heldout": 0.1}
    divided["sources"] = {"mine": {"path": str(tmp_path / "a.txt"), "txt_documents": "blank-lines"}}
    made = build(CorpusRecipe.model_validate(divided), workers=1)
    assert made.manifest["documents"]["heldout"] > 0


def test_sources_without_a_row(corpus_recipe: CorpusRecipe, tmp_path: Path) -> None:
    with pq.ParquetWriter(tmp_path / "none.parquet", pa.schema([("text", pa.string())])):
        pass
    given = {"a": Source(path=str(tmp_path / "none.parquet"))}
    with pytest.raises(UserError):
        build(at(corpus_recipe, tmp_path / "none", sources=given), workers=1)


def test_a_unit_without_a_usable_document_is_no_harm(
    corpus: Corpus, corpus_recipe: CorpusRecipe, tmp_path: Path
) -> None:
    (tmp_path / "short.jsonl").write_text('{"text": "short"}\n')
    short = Source(path=str(tmp_path / "short.jsonl"))
    made = build(
        at(
            corpus_recipe,
            tmp_path / "out",
            sources={"a": short, **corpus_recipe.sources, "z": short},
        ),
        1,
    )
    for split in SPLITS:
        assert split_tokens(made, split) == split_tokens(corpus, split)


def test_so_many_bad_documents_are_passed_over(
    corpus: Corpus, corpus_recipe: CorpusRecipe, source_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "text").mkdir()
    for path in sorted(source_folder.iterdir()):
        lines = path.read_text().splitlines()
        (tmp_path / "text" / path.name).write_text(
            "\n".join([*lines[:2], "{torn", *lines[2:]]) + "\n"
        )
    recipe = at(corpus_recipe, tmp_path / "out", sources={"a": Source(path=str(tmp_path / "text"))})
    for allowed in (0, 1, 4):  # no unit has more than two
        with pytest.raises(UserError, match=rf"(?s)allows {allowed}:.*0\.jsonl:3 is no JSON"):
            build(recipe.model_copy(update={"max_bad_documents": allowed}), workers=1)
    made = build(recipe.model_copy(update={"max_bad_documents": 5}), workers=1)
    assert made.manifest["bad"]["documents"] == 5 == len(made.manifest["bad"]["named"])
    assert all(
        f"{n}.jsonl:3 is no JSON" in named for n, named in enumerate(made.manifest["bad"]["named"])
    )
    for split in SPLITS:
        assert split_tokens(made, split) == split_tokens(corpus, split)


def test_a_disk_that_is_too_small_is_told_before_the_work(
    corpus: Corpus,
    corpus_recipe: CorpusRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: Content,
) -> None:
    recipe = at(corpus_recipe, tmp_path / "out")
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=40_000))
        with pytest.raises(UserError, match=r"needs about .* has 40\.0 kB free"):
            build(recipe, workers=1)
    assert not (tmp_path / "out" / "shards").exists()
    assert content(build(recipe, workers=1).folder) == content(corpus.folder)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT], ids=errno.errorcode.get)
@pytest.mark.parametrize(
    ("module", "step", "after"),
    [
        (claim_module, "write_json", 0),
        (vocabulary_module, "save_tokenizer", 0),
        (shards, "write_arrays", 2),
        (tables, "write_arrays", 1),
        (build_module, "write_json", 0),
    ],
)
def test_a_disk_that_is_full_midway_is_told_and_the_next_call_goes_on(
    corpus: Corpus,
    corpus_recipe: CorpusRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: Content,
    number: int,
    module: ModuleType,
    step: str,
    after: int,
) -> None:
    recipe = at(corpus_recipe, tmp_path / "out")
    with monkeypatch.context() as patched:
        stops(patched, module, step, after, OSError(number, "no space"))
        with pytest.raises(UserError, match=r"disk of .*out is full.*it resumes"):
            build(recipe, workers=1)
    assert content(build(recipe, workers=1).folder) == content(corpus.folder)


def test_another_fault_of_the_disk_is_not_called_a_full_one(
    corpus_recipe: CorpusRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops(monkeypatch, shards, "write_arrays", 0, OSError(errno.EIO, "fault"))
    with pytest.raises(OSError, match="fault"):
        build(at(corpus_recipe, tmp_path / "out"), workers=1)
