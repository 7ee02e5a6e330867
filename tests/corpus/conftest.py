"""A stand-in for the Hub, and what tests of whole corpora watch or make small."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import datasets
import pytest

from conftest import UNIT_BYTES
from sqzb.corpus import shards, sources
from sqzb.corpus.build import build
from sqzb.corpus.store import Corpus
from sqzb.recipe import CorpusRecipe


class Hub:
    """A stand-in for load_dataset_builder that notes each load: path, config, revision, split."""

    def __init__(self, data: Callable[[bool], Any], commit: str) -> None:
        self.data, self.commit = data, commit
        self.loads: list[tuple[str | None, ...]] = []

    def builder(self, path: str, config: str | None, *, revision: str | None) -> SimpleNamespace:
        def load(split: str, streaming: bool) -> Any:
            self.loads.append((path, config, revision, split))
            return self.data(streaming)

        return SimpleNamespace(
            hash=self.commit,
            as_streaming_dataset=lambda split: load(split, True),
            download_and_prepare=lambda: None,
            as_dataset=lambda split: load(split, False),
        )


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Hub]:
    def put(
        data: dict[str, list[Any]] | Callable[[bool], Any], shards: int = 3, commit: str = 40 * "0"
    ) -> Hub:
        def table(streaming: bool) -> Any:
            whole = datasets.Dataset.from_dict(data)
            return whole.to_iterable_dataset(num_shards=shards) if streaming else whole

        made = Hub(data if callable(data) else table, commit)
        monkeypatch.setattr(datasets, "load_dataset_builder", made.builder)
        return made

    return put


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory, corpus_recipe: CorpusRecipe) -> Corpus:
    """The finished corpus of `corpus_recipe`, in small units."""
    output = tmp_path_factory.mktemp("corpus") / "finished"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sources, "UNIT_BYTES", UNIT_BYTES)
        return build(corpus_recipe.model_copy(update={"output": str(output)}), workers=1)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The shards that are made from here on, by name."""
    own: Any = shards.ShardWriter.write
    names: list[str] = []

    def write(writer: Any, name: str, rows: Any) -> Any:
        record = own(writer, name, rows)
        names.append(name)
        return record

    monkeypatch.setattr(shards.ShardWriter, "write", write)
    return names


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives each unit several shards, in this process."""
    monkeypatch.setattr(shards, "SHARD_TOKENS", 1500)
    monkeypatch.setattr(shards, "BATCH_CHARACTERS", 3000)
