"""Data sets of the Hub: one commit for all units, and failures that say what to do."""

from collections.abc import Callable, Iterator
from typing import Any

import datasets
import pytest

from sqzb.corpus import sources
from sqzb.corpus.formats.common import UnreadableDocument
from sqzb.corpus.sources import documents, units
from sqzb.recipe import Source
from text_files import TEXTS, read, refusal, rows

COMMIT = "0123456789abcdef0123456789abcdef01234567"


Hub = Callable[..., Any]


@pytest.mark.parametrize("streaming", [True, False])
def test_a_hub_source_is_read_at_one_commit(
    hub: Hub, streaming: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "UNIT_BYTES", 100)
    made = hub({"body": [*TEXTS, None], "id": list(range(11))}, commit=COMMIT)
    source = Source(
        path="owner/name",
        text="body",
        config="20231101.en",
        revision="main",
        split="test",
        streaming=streaming,
    )
    found = units("s", source)
    assert {unit.revision for unit in found} == {COMMIT}
    bounds = [part[1:] for unit in found for part in unit.parts]
    assert len(bounds) >= 3 and [end for _, end in bounds[:-1]] == [
        start for start, _ in bounds[1:]
    ]
    assert [row for unit in found for row in documents(unit, source)] == [*TEXTS, ""]
    loads = [
        ("owner/name", "20231101.en", revision, "test")
        for revision in ("main", *[COMMIT] * len(found))
    ]
    assert made.loads == loads


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_the_commit_that_is_read_is_named(hub: Hub, revision: str | None) -> None:
    hub({"text": TEXTS}, commit=COMMIT)
    assert {unit.revision for unit in units("s", Source(path="owner/name", revision=revision))} == {
        COMMIT
    }


@pytest.mark.parametrize("streaming", [True, False])
def test_another_commit_than_the_named_one_is_refused(hub: Hub, streaming: bool) -> None:
    hub({"text": TEXTS}, commit=COMMIT)
    message = refusal(Source(path="owner/name", revision=COMMIT[::-1], streaming=streaming))
    assert COMMIT in message and COMMIT[::-1] in message and "Connect to the network" in message


def test_a_hub_source_gathers_sentences(hub: Hub) -> None:
    hub({"text": ["A.", "B.", "C."]}, shards=1)
    assert read(Source(path="owner/name", sentences_per_document=2)) == ["A.\n\nB.", "C."]


def test_an_empty_hub_data_set_has_no_units(hub: Hub) -> None:
    hub({"text": []})
    assert not units("s", Source(path="owner/name", streaming=False))


@pytest.mark.parametrize("streaming", [True, False])
def test_a_hub_column_that_is_missing_or_no_text_is_named(hub: Hub, streaming: bool) -> None:
    hub({"id": [1, 2, 3], "body": ["a", "b", "c"]})
    assert "no column text; it has id, body" in refusal(
        Source(path="owner/name", streaming=streaming)
    )
    found = rows(Source(path="owner/name", text="id", streaming=streaming))
    assert len(found) == 3
    for row in found:
        assert (
            isinstance(row, UnreadableDocument)
            and row.where.startswith("owner/name, ")
            and "id holds '" in row.why
        )


def test_a_hub_data_set_that_cannot_be_opened_is_refused(hub: Hub) -> None:
    def fails(streaming: bool) -> None:
        raise ConnectionError("no route to host")

    hub(fails)
    message = refusal(Source(path="owner/name"))
    assert "owner/name" in message and "no route to host" in message


def generated() -> Iterator[dict[str, str]]:
    yield {"text": "one"}
    raise ConnectionError("reset by peer")


def test_a_hub_data_set_that_breaks_off_is_refused(hub: Hub) -> None:
    hub(lambda streaming: datasets.IterableDataset.from_generator(generated))
    message = refusal(Source(path="owner/name"))
    assert "owner/name" in message and "reset by peer" in message and "again" in message


def test_a_hub_column_that_only_rows_tell_of_is_named(hub: Hub) -> None:
    hub(
        lambda streaming: datasets.IterableDataset.from_generator(
            lambda: iter([{"text": "one"}, {"text": "two"}])
        )
    )
    found = rows(Source(path="owner/name", text="body"))
    assert [row.where for row in found if isinstance(row, UnreadableDocument)] == [
        "owner/name, shard 0, row 1",
        "owner/name, shard 0, row 2",
    ]
    assert all(
        isinstance(row, UnreadableDocument) and "no column body; it has text" in row.why
        for row in found
    )
