"""The fixtures of several test files: text, a corpus made from it, and a model small enough to
train in a second.
"""

import functools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from conftest import UNIT_BYTES, prose
from shared import shared_folder
from sqzb.corpus import sources
from sqzb.corpus.build import build
from sqzb.corpus.store import Corpus
from sqzb.model import SqueezeBertConfig, layers
from sqzb.recipe import CorpusRecipe, Source, Vocabulary
from sqzb.tokenizer import save_tokenizer, train_tokenizer
from sqzb.training import run_folder


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="session")
def _unflushed() -> Iterator[None]:
    """No test cuts the power: what a killed process has written, the kernel still has."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def _git_asked_once() -> Iterator[None]:
    """Each run records the commit of the package, which no test changes."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(run_folder, "git_state", functools.cache(run_folder.git_state))
        yield


@pytest.fixture(autouse=True)
def _all_numbers() -> Iterator[None]:
    """Training flushes denormal numbers for its whole process, and hypothesis refuses to work
    without them.
    """
    yield
    torch.set_flush_denormal(False)


@pytest.fixture
def known_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch does not see into our operators: grouped layers run as the products that it knows."""

    def product(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
        by_group = weight.view(groups, -1, weight.shape[1]).transpose(1, 2)
        parts = x.view(len(x), groups, -1).transpose(0, 1)
        return torch.baddbmm(bias.view(groups, 1, -1), parts, by_group).transpose(0, 1).flatten(1)

    in_turn: Callable[..., Tensor] = lambda layer, x: layer.output.conv1d(layer.intermediate(x))  # noqa: E731
    monkeypatch.setattr(layers, "grouped_linear", product)
    monkeypatch.setattr(layers.SqueezeBertLayer, "projected", in_turn)


@pytest.fixture(scope="session")
def write_prose() -> Callable[[Path, int, int], list[str]]:
    """Write so many documents, drawn from a seed, to a jsonl file; the documents."""

    def write(path: Path, documents: int, seed: int) -> list[str]:
        texts = prose(documents, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            "".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8"
        )
        return texts

    return write


@pytest.fixture(scope="session")
def source_folder(
    tmp_path_factory: pytest.TempPathFactory, write_prose: Callable[[Path, int, int], list[str]]
) -> Path:
    """Five jsonl files of prose; the last repeats documents of the first."""

    def fill(folder: Path) -> None:
        for number in range(4):
            write_prose(folder / f"{number}.jsonl", 50, number)
        (folder / "4.jsonl").write_text((folder / "0.jsonl").read_text()[:4000].rsplit("\n", 1)[0])

    return shared_folder(tmp_path_factory, "sources", fill)


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a vocabulary of 150 for `prose`."""

    def fill(folder: Path) -> None:
        save_tokenizer(train_tokenizer(prose(100, 0), 150, True), folder, 32)

    return shared_folder(tmp_path_factory, "vocabulary", fill)


@pytest.fixture(scope="session")
def corpus_recipe(source_folder: Path, vocabulary: Path) -> CorpusRecipe:
    """A recipe over `source_folder`; give it an output with model_copy."""
    return CorpusRecipe(
        sources={"prose": Source(path=str(source_folder))},
        vocabulary=Vocabulary(path=str(vocabulary)),
        sequence_lengths=[16, 32],
        heldout=0.2,
        min_characters=100,
    )


@pytest.fixture
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes five units of `source_folder`, instead of one."""
    monkeypatch.setattr(sources, "UNIT_BYTES", UNIT_BYTES)


@pytest.fixture(scope="session")
def corpus(
    tmp_path_factory: pytest.TempPathFactory,
    corpus_recipe: CorpusRecipe,
    write_prose: Callable[[Path, int, int], list[str]],
) -> Corpus:
    """A finished corpus to train on.

    It has few documents: an epoch is over soon, and all that is held out is evaluated in no time.
    """

    def fill(folder: Path) -> None:
        write_prose(folder / "prose.jsonl", 52, 0)
        sources = {"prose": Source(path=str(folder / "prose.jsonl"))}
        finished = {"sources": sources, "output": str(folder / "finished")}
        build(corpus_recipe.model_copy(update=finished), workers=1)

    return Corpus(shared_folder(tmp_path_factory, "corpus", fill) / "finished")


@pytest.fixture(scope="session")
def content() -> Callable[[Path], dict[str, bytes]]:
    """All files of a corpus but its recipe, which names the folder."""

    def read(folder: Path) -> dict[str, bytes]:
        files = {
            str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
        assert files.pop("recipe.yaml")
        return files

    return read


@pytest.fixture
def tiny_config(corpus: Corpus) -> SqueezeBertConfig:
    """A model for `corpus`, without dropout."""
    return SqueezeBertConfig(
        vocab_size=corpus.manifest["vocab_size"],
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=32,
        max_position_embeddings=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
