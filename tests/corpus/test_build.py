"""prepare-corpus: the same corpus however the work is divided or interrupted, and true to its text."""

import json
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from threading import Thread, main_thread
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sqzb.corpus import build as build_module
from sqzb.corpus.build import build, report
from sqzb.corpus.sources import documents, units
from sqzb.corpus.store import HELDOUT, SPLITS, TRAIN, Corpus, read_shard
from sqzb.corpus.text import sentences
from sqzb.errors import UserError
from sqzb.recipe import CorpusRecipe, Source, Vocabulary, dump_recipe

WriteProse = Callable[[Path, int, int], list[str]]


def at(recipe: CorpusRecipe, output: Path, **changes: Any) -> CorpusRecipe:
    return recipe.model_copy(update={"output": str(output), **changes})


def content(folder: Path) -> dict[str, bytes]:
    """All files of a corpus but its recipe, which names the folder."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert files.pop("recipe.yaml")
    return files


def texts_of(recipe: CorpusRecipe) -> list[str]:
    found = []
    for name, source in recipe.sources.items():
        found += [text for unit in units(name, source) for text in documents(unit, source)]
    return found


def tokens_of(corpus: Corpus, recipe: CorpusRecipe, text: str) -> list[int]:
    said = sentences(text, "en", recipe.min_characters, Counter())
    encoded = corpus.tokenizer.encode_batch(said, add_special_tokens=False)
    return [number for encoding in encoded for number in encoding.ids]


def split_tokens(corpus: Corpus, split: str) -> list[int]:
    shards = corpus.manifest["shards"][split]
    return [int(n) for s in shards for n in read_shard(corpus.folder / split / f"{s}.safetensors")["tokens"]]


def as_text(numbers: list[int]) -> str:
    return f" {' '.join(map(str, numbers))} "


def test_two_workers_make_the_same_corpus(corpus: Corpus, corpus_recipe: CorpusRecipe, tmp_path: Path) -> None:
    assert content(build(at(corpus_recipe, tmp_path / "two"), workers=2).folder) == content(corpus.folder)


def test_a_trained_vocabulary_is_the_same_each_time(corpus_recipe: CorpusRecipe, tmp_path: Path) -> None:
    made = [build(at(corpus_recipe, tmp_path / n, vocabulary=Vocabulary(size=120)), workers=1) for n in ("one", "two")]
    assert content(made[0].folder) == content(made[1].folder)


@pytest.mark.parametrize(
    ("step", "after"),
    [
        ("_claim", 0),
        ("save_tokenizer", 0),
        ("write_shard", 0),
        ("_do", 1),
        ("write_shard", 3),
        ("write_json", 3),
        ("_manifest", 0),
        ("write_json", 6),
    ],
)
def test_a_stopped_command_goes_on_to_the_same_corpus(
    corpus: Corpus,
    corpus_recipe: CorpusRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    after: int,
) -> None:
    recipe = at(corpus_recipe, tmp_path / "stopped")
    with monkeypatch.context() as patched:
        own, calls = getattr(build_module, step), []

        def stops(*args: Any) -> Any:
            calls.append(args)
            if len(calls) > after:
                raise KeyboardInterrupt
            return own(*args)

        patched.setattr(build_module, step, stops)
        with pytest.raises(KeyboardInterrupt):
            build(recipe, workers=1)
    with pytest.raises(UserError, match=r"no manifest\.json"):
        Corpus(recipe.output)
    assert content(build(recipe, workers=1).folder) == content(corpus.folder)


def test_work_that_has_a_mark_is_not_done_again(
    corpus_recipe: CorpusRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = at(corpus_recipe, tmp_path / "stopped")
    own, done = build_module._do, []

    def do(*args: Any) -> int:
        if len(done) == 2:
            done.append(None)
            raise KeyboardInterrupt
        done.append(args[2])
        return own(*args)

    monkeypatch.setattr(build_module, "_do", do)
    with pytest.raises(KeyboardInterrupt):
        build(recipe, workers=1)
    build(recipe, workers=1)
    assert done == [0, 1, None, 2, 3, 4]


def test_a_kill_leaves_parts_that_do_not_matter(corpus: Corpus, corpus_recipe: CorpusRecipe, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    shutil.copytree(corpus.folder, folder)
    recipe = at(corpus_recipe, folder)
    (folder / "manifest.json").unlink()
    (folder / "recipe.yaml").write_text(dump_recipe(recipe))
    (folder / "tokenizer_config.json").unlink()  # killed between the tokenizer's files
    shutil.copy(folder / TRAIN / "00000.safetensors", folder / TRAIN / "00001.safetensors")  # a shard without a mark
    assert content(build(recipe, workers=1).folder) == content(corpus.folder)


@pytest.mark.parametrize("length", [16, 32])
@pytest.mark.parametrize("split", SPLITS)
def test_chunks_are_the_text(corpus: Corpus, corpus_recipe: CorpusRecipe, length: int, split: str) -> None:
    def squeezed(text: str) -> str:
        return "".join(text.split()).lower()

    source = "\n".join(squeezed(text) for text in texts_of(corpus_recipe))
    chunks = corpus.split(split, length)
    for number in range(len(chunks)):
        tokens, boundaries = chunks[number]
        assert 0 < len(tokens) <= length - 3
        said = squeezed(corpus.tokenizer.decode(tokens.tolist()))
        assert said.removeprefix("##") in source  # a sentence too long for a chunk may be cut in a word
        for boundary in boundaries:
            assert corpus.tokenizer.decode(tokens[boundary - 1 : boundary].tolist()) == "."
    together = np.concatenate([chunks[number].tokens for number in range(len(chunks))])
    assert together.tolist() == split_tokens(corpus, split)


def test_every_document_is_whole_in_one_split(corpus: Corpus, corpus_recipe: CorpusRecipe) -> None:
    splits = {split: as_text(split_tokens(corpus, split)) for split in SPLITS}
    texts = texts_of(corpus_recipe)
    kept = [text for text in texts if sentences(text, "en", corpus_recipe.min_characters, Counter())]
    assert len(kept) > len(set(kept))  # some stand in two files, and must be on one side
    heldout = 0
    for text in set(kept):
        found = [split for split in SPLITS if as_text(tokens_of(corpus, corpus_recipe, text)) in splits[split]]
        assert len(found) == 1
        heldout += found == [HELDOUT]
    assert abs(heldout - 0.2 * len(set(kept))) < 4 * (0.16 * len(set(kept))) ** 0.5
    counts = corpus.manifest["counts"]
    assert counts["documents_read"] == len(texts) and counts["documents_kept"] == len(kept)
    assert counts["documents_train"] + counts["documents_heldout"] == len(kept)


def test_the_manifest_counts(corpus: Corpus) -> None:
    manifest = corpus.manifest
    for split in SPLITS:
        assert manifest["counts"][f"tokens_{split}"] == len(split_tokens(corpus, split))
    for length, figures in manifest["lengths"].items():
        chunks = corpus.split(TRAIN, int(length))
        filled = sum(len(chunks[number].tokens) + 3 for number in range(len(chunks)))
        assert figures["padding"] == pytest.approx(1 - filled / (int(length) * len(chunks)), abs=1e-4)
    assert manifest["vocab_size"] == corpus.tokenizer.get_vocab_size() == 150


def test_the_unigram_baseline(corpus: Corpus) -> None:
    train, heldout = (Counter(split_tokens(corpus, split)) for split in (TRAIN, HELDOUT))
    total = train.total() + corpus.manifest["vocab_size"]
    loss = -sum(n * np.log((train[token] + 1) / total) for token, n in heldout.items()) / heldout.total()
    assert corpus.manifest["heldout_unigram_nats"] == pytest.approx(loss, rel=1e-9)


def test_there_may_be_no_heldout_part(corpus_recipe: CorpusRecipe, tmp_path: Path) -> None:
    corpus = build(at(corpus_recipe, tmp_path / "all", heldout=0.0), workers=1)
    assert corpus.manifest["heldout_unigram_nats"] is None and len(corpus.split(HELDOUT, 16)) == 0
    report(corpus)


def test_the_seed_decides_the_cuts_alone(corpus: Corpus, corpus_recipe: CorpusRecipe, tmp_path: Path) -> None:
    other = build(at(corpus_recipe, tmp_path / "seed", seed=1), workers=1)
    for split in SPLITS:
        assert split_tokens(other, split) == split_tokens(corpus, split)
    assert content(other.folder)["vocab.txt"] == content(corpus.folder)["vocab.txt"]
    assert content(other.folder)[f"{TRAIN}/00000.safetensors"] != content(corpus.folder)[f"{TRAIN}/00000.safetensors"]


def test_a_second_corpus_in_the_same_place_has_its_own_vocabulary(corpus_recipe: CorpusRecipe, tmp_path: Path) -> None:
    for size in (100, 120):
        corpus = build(at(corpus_recipe, tmp_path / "again", vocabulary=Vocabulary(size=size)), workers=1)
        assert corpus.manifest["vocab_size"] == size
        tokens = split_tokens(corpus, TRAIN)
        assert as_text(tokens_of(corpus, corpus_recipe, texts_of(corpus_recipe)[0])) in as_text(tokens) + as_text(
            split_tokens(corpus, HELDOUT)
        )
        shutil.rmtree(corpus.folder)


def test_a_finished_corpus_is_not_overwritten(corpus: Corpus, corpus_recipe: CorpusRecipe) -> None:
    before = content(corpus.folder)
    with pytest.raises(UserError, match="finished corpus"):
        build(at(corpus_recipe, corpus.folder), workers=1)
    assert content(corpus.folder) == before


def test_a_used_folder_is_not_touched(corpus_recipe: CorpusRecipe, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    for output in (tmp_path / "mine", tmp_path / "mine" / "thesis.txt"):
        with pytest.raises(UserError, match="not empty"):
            build(at(corpus_recipe, output), workers=1)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def stop(recipe: CorpusRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):

        def stops(*_: Any) -> None:
            raise KeyboardInterrupt

        patched.setattr(build_module, "_manifest", stops)
        build(recipe, workers=1)


def test_another_recipes_unfinished_folder_is_refused(
    corpus_recipe: CorpusRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = at(corpus_recipe, tmp_path / "stopped")
    stop(recipe, monkeypatch)
    with pytest.raises(UserError, match="unfinished corpus of another recipe"):
        build(at(recipe, tmp_path / "stopped", seed=1), workers=1)


def test_sources_that_changed_in_between_are_refused(
    corpus_recipe: CorpusRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_prose: WriteProse
) -> None:
    for number in (1, 3):
        write_prose(tmp_path / "text" / f"{number}.jsonl", 20, number)
    recipe = at(corpus_recipe, tmp_path / "stopped", sources={"a": Source(path=str(tmp_path / "text"))})
    stop(recipe, monkeypatch)
    write_prose(tmp_path / "text" / "2.jsonl", 20, 2)  # moves the number of 3.jsonl
    with pytest.raises(UserError, match="sources have changed"):
        build(recipe, workers=1)
    (tmp_path / "text" / "2.jsonl").unlink()
    assert build(recipe, workers=1).manifest["counts"]["documents_read"] == 40


def test_no_usable_document(corpus_recipe: CorpusRecipe, tmp_path: Path) -> None:
    output = tmp_path / "none"
    with pytest.raises(UserError, match=r"207 were read and 207 of them are under 100000"):
        build(at(corpus_recipe, output, min_characters=100_000), workers=1)
    assert not output.exists()


def test_sources_without_a_row(corpus_recipe: CorpusRecipe, tmp_path: Path) -> None:
    with pq.ParquetWriter(tmp_path / "none.parquet", pa.schema([("text", pa.string())])):
        pass
    sources = {"a": Source(path=str(tmp_path / "none.parquet"))}
    with pytest.raises(UserError):
        build(at(corpus_recipe, tmp_path / "none", sources=sources), workers=1)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_in_a_worker_is_the_users(corpus_recipe: CorpusRecipe, tmp_path: Path, workers: int) -> None:
    for number in range(2):
        (tmp_path / f"{number}.jsonl").write_text('{"text": "fine"}\n{"text": 1}\n')
    vocabulary = Vocabulary(path=str(tmp_path / "vocab.txt"))
    letters = [f"{prefix}{letter}" for letter in "abcdefghijklmnopqrstuvwxyz" for prefix in ("", "##")]
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]))
    sources = {"a": Source(path=str(tmp_path / "*.jsonl"))}
    with pytest.raises(UserError, match=r"\d\.jsonl:2"):
        build(at(corpus_recipe, tmp_path / "out", sources=sources, vocabulary=vocabulary), workers=workers)


def test_wide_vocabularies_are_kept_whole(tmp_path: Path, write_prose: WriteProse, corpus_recipe: CorpusRecipe) -> None:
    write_prose(tmp_path / "a.jsonl", 30, 0)
    words = sorted({word for text in texts_of(corpus_recipe) for word in text.replace(".", " ").lower().split()})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"unused{n}" for n in range(2**16)), ".", *words]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary))
    recipe = at(
        corpus_recipe,
        tmp_path / "out",
        sources={"a": Source(path=str(tmp_path / "a.jsonl"))},
        vocabulary=Vocabulary(path=str(tmp_path / "vocab.txt")),
    )
    corpus = build(recipe, workers=1)
    assert min(split_tokens(corpus, TRAIN)) >= 2**16
    assert corpus.manifest["special_ids"] == {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
    assert json.dumps(corpus.manifest)


def test_an_interrupt_waits_for_the_units_at_work_alone(tmp_path: Path) -> None:
    """No worker goes on with what is left, and the next call does that."""
    sentence = "The quick brown fox jumps over the lazy dog, and then it sleeps. "
    for number in range(30):
        (tmp_path / f"{number}.txt").write_text(sentence * 8000, encoding="utf-8")
    recipe = CorpusRecipe(
        output=str(tmp_path / "out"),
        sources={"text": Source(path=str(tmp_path / "*.txt"))},
        vocabulary=Vocabulary(size=200, sample_documents=1),
        sequence_lengths=[32],
    )

    def when_two_are_done() -> None:
        while len(list((tmp_path / "out").glob("marks/0*.json"))) < 2:
            time.sleep(0.05)
        time.sleep(0.1)  # so that no result is just being handed over
        signal.pthread_kill(main_thread().ident or 0, signal.SIGINT)

    Thread(target=when_two_are_done, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        build(recipe, workers=2)
    done = len(list((tmp_path / "out/marks").glob("0*.json")))
    time.sleep(1)
    assert 2 <= done == len(list((tmp_path / "out/marks").glob("0*.json"))) < 20
    assert build(recipe, workers=2).manifest["counts"]["documents_read"] == 30
