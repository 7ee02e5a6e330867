"""A stand-in for the Hub."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import datasets
import huggingface_hub
import pytest


class Hub:
    """Stands behind load_dataset and HfApi; notes what both are called with."""

    def __init__(self, data: Callable[[bool], Any], commit: str | Exception) -> None:
        self.data, self.commit = data, commit
        self.loads: list[tuple[Any, Any]] = []
        self.asked: list[tuple[str, str | None]] = []

    def load(self, *args: Any, streaming: bool, **options: Any) -> Any:
        self.loads.append((args, options))
        return self.data(streaming)

    def dataset_info(self, path: str, revision: str | None = None) -> SimpleNamespace:
        self.asked.append((path, revision))
        if isinstance(self.commit, Exception):
            raise self.commit
        return SimpleNamespace(sha=self.commit)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Hub]:
    def put(data: dict[str, list[Any]] | Callable[[bool], Any], shards: int = 3, commit: Any = 40 * "0") -> Hub:
        def table(streaming: bool) -> Any:
            whole = datasets.Dataset.from_dict(data)
            return whole.to_iterable_dataset(num_shards=shards) if streaming else whole

        made = Hub(data if callable(data) else table, commit)
        monkeypatch.setattr(datasets, "load_dataset", made.load)
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: made)
        return made

    return put
