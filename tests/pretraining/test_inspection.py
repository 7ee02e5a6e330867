"""inspect-corpus: what it shows of an example is so."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from sqzb.corpus.build import build
from sqzb.corpus.store import TRAIN, Corpus
from sqzb.errors import UserError
from sqzb.pretraining import inspection
from sqzb.pretraining.batches import BatchLayout, Examples
from sqzb.pretraining.inspection import ORDERS, inspect
from sqzb.pretraining.order import samples_of_step
from sqzb.recipe import CorpusRecipe, PretrainRecipe
from sqzb.tokenizer import CLS, MASK, PAD, SEP

Capsys = pytest.CaptureFixture[str]


class Shown(NamedTuple):
    """An example as it is printed, and the tokens that the model sees."""

    chunk: int
    of: int
    order: str
    places: int
    length: int
    segments: list[str]
    n_asked: int
    answers: dict[int, tuple[str, str]]  # by place: the answer, and what is said of it
    seen: list[str]
    types: list[int]


@pytest.fixture
def show(capsys: Capsys, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Shown]]:
    """Call inspect and read what it prints."""
    rows: list[tuple[list[str], list[int]]] = []
    own = inspection._show

    def spied(title, batch, row, names):  # type: ignore[no-untyped-def]
        rows.append(
            ([names[token] for token in batch.input_ids[row]], batch.token_type_ids[row].tolist())
        )
        own(title, batch, row, names)

    monkeypatch.setattr(inspection, "_show", spied)

    def shown(corpus: Corpus, n: int, length: int | None, seed: int = 0) -> list[Shown]:
        rows.clear()
        capsys.readouterr()
        inspect(corpus.folder, n, length, seed)
        printed = capsys.readouterr().out.strip("\n").split("\n\n")
        return [read(text, *row) for text, row in zip(printed, rows, strict=True)]

    return shown


def read(text: str, seen: list[str], types: list[int]) -> Shown:
    head, *segments, asked = text.split("\n")
    title = re.fullmatch(r"Chunk ([\d,]+) of ([\d,]+): (.*), (\d+) of (\d+) positions", head)
    n = re.fullmatch(r"  to predict, (\d+): (.*)", asked)
    assert title and n
    answers = {}
    for one in n[2].split(", "):
        said = re.fullmatch(r"(\d+) (\S+)(?: \((.*)\))?", one)
        assert said
        answers[int(said[1])] = (said[2], said[3] or "")
    assert [line[:5] for line in segments] == ["  A  ", "  B  "][: len(segments)]
    return Shown(
        int(title[1].replace(",", "")),
        int(title[2].replace(",", "")),
        title[3],
        int(title[4]),
        int(title[5]),
        [line[5:] for line in segments],
        int(n[1]),
        answers,
        seen,
        types,
    )


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("length", [16, 32])
def test_with_the_answers_put_back_the_chunk_is_there(
    corpus: Corpus, show: Callable[..., list[Shown]], length: int, seed: int
) -> None:
    chunks = corpus.split(TRAIN, length)
    vocabulary = corpus.tokenizer.get_vocab()
    orders = set()
    for one in show(corpus, 60, length, seed):
        assert one.of == len(chunks) and one.length == length
        full = list(one.seen)
        for place, (answer, _) in one.answers.items():
            full[place] = answer
        full = [token for token in full if token != PAD]
        assert len(full) == one.places and full[0] == CLS and full[-1] == SEP
        parts = [[]]  # type: list[list[str]]
        for token in full[1:]:
            if token == SEP:
                parts.append([])
            else:
                parts[-1].append(token)
        assert parts.pop() == [] and len(parts) == len(one.segments)
        if one.order == ORDERS[1]:
            parts.reverse()
        tokens, boundaries = chunks[one.chunk]
        assert [vocabulary[token] for part in parts for token in part] == tokens.tolist()
        assert len(parts[0]) in boundaries if len(parts) == 2 else one.order == ORDERS[-100]
        orders.add(one.order)
    assert {ORDERS[0], ORDERS[1]} <= orders


@pytest.mark.parametrize("length", [16, 32])
def test_the_segments_are_what_the_model_sees(
    corpus: Corpus, show: Callable[..., list[Shown]], length: int
) -> None:
    for one in show(corpus, 60, length):
        for number, segment in enumerate(one.segments):
            places = [p for p in range(one.places) if one.types[p] == number]
            words: list[str] = []
            for place in places:
                token = one.seen[place]
                joined = token.startswith("##") and words and one.seen[place - 1] != CLS
                token = token.removeprefix("##") if joined else token
                token = (
                    f"{{{token}}}" if place in one.answers and one.seen[place] != MASK else token
                )
                words.append(("" if joined or not words else " ") + token)
            assert segment == "".join(words)
            assert segment.endswith(SEP) and segment.startswith(CLS) == (number == 0)


def test_what_is_asked_is_said_to_be_what_it_is(
    corpus: Corpus, show: Callable[..., list[Shown]]
) -> None:
    kinds = set()
    for one in show(corpus, 200, 32):
        assert one.n_asked == len(one.answers) == max(1, min(5, round(0.15 * one.places)))
        for place, (answer, said) in one.answers.items():
            kind = (
                "mask"
                if one.seen[place] == MASK
                else "kept"
                if one.seen[place] == answer
                else "other"
            )
            assert (
                said
                == {"mask": "", "kept": "left as it is", "other": f"shown as {one.seen[place]}"}[
                    kind
                ]
            )
            kinds.add(kind)
    assert kinds == {"mask", "kept", "other"}


def test_they_are_the_first_that_a_run_trains_on(
    corpus: Corpus, show: Callable[..., list[Shown]]
) -> None:
    shown = show(corpus, 8, 16, 5)
    _, chunks = samples_of_step(0, 64, len(corpus.split(TRAIN, 16)), 5)
    assert [one.chunk for one in shown] == chunks[:8].tolist()
    recipe = PretrainRecipe(sequence_length=16, max_predictions=2, seed=5)
    (batch,) = Examples(recipe, corpus, BatchLayout(64, 64, 1, 0)).of_step(0)
    vocabulary, trained_on = corpus.tokenizer.get_vocab(), batch["input_ids"].tolist()
    assert all([vocabulary[t] for t in one.seen] in trained_on for one in shown)
    assert [one.seen for one in show(corpus, 8, 16, 6)] != [one.seen for one in shown]


def test_by_default_the_first_length_is_shown(
    corpus: Corpus, show: Callable[..., list[Shown]]
) -> None:
    assert {one.length for one in show(corpus, 5, None)} == {16}


def test_a_length_that_is_not_there_is_told(corpus: Corpus) -> None:
    with pytest.raises(UserError, match="only to 16, 32"):
        inspect(corpus.folder, 1, 24, 0)


def test_a_folder_that_is_no_corpus_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="sqzb prepare-corpus"):
        inspect(tmp_path, 1, None, 0)


def test_a_small_corpus_of_tiny_chunks(
    corpus_recipe: CorpusRecipe,
    tmp_path: Path,
    show: Callable[..., list[Shown]],
    write_prose: Callable[..., list[str]],
) -> None:
    """More examples than there are chunks go on in the next epoch."""
    write_prose(tmp_path / "text" / "a.jsonl", 2, 3)
    given = {
        name: s.model_copy(update={"path": str(tmp_path / "text")})
        for name, s in corpus_recipe.sources.items()
    }
    changes = {
        "output": str(tmp_path / "out"),
        "sources": given,
        "sequence_lengths": [8],
        "heldout": 0.0,
    }
    corpus = build(corpus_recipe.model_copy(update={**changes, "min_characters": 1}), workers=1)
    n = len(corpus.split(TRAIN, 8))
    shown = show(corpus, n + 3, None)
    assert len(shown) == n + 3 and {one.length for one in shown} == {8}
    assert {one.chunk for one in shown[:n]} == set(range(n))
    assert all(one.n_asked == len(one.answers) == 1 for one in shown)
