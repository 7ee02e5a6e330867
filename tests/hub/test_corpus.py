"""prepare-corpus with the shipped recipe's sources, from a hub."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.hub
PINNED = (
    "b04c8d1ceb2f5cd4588862100d08de323dccfbaa"  # by the shipped recipe, and not in the small copy
)
NEWEST = "sources.wikipedia.revision=null"


def downloaded(wanted: bool) -> list[str]:
    return [
        f"sources.{name}.streaming={json.dumps(not wanted)}" for name in ("wikipedia", "bookcorpus")
    ]


def manifest(folder: Path) -> Any:
    return json.loads((folder / "manifest.json").read_text())


def test_a_hub_that_dies_midway_is_told_and_the_corpus_goes_on_at_its_commit(
    mortal: Any, vocabulary: Path, content: Callable[[Path], dict[str, bytes]]
) -> None:
    """It takes a minute: so long do the clients try to reach it."""
    mine = [NEWEST, f"vocabulary.path={vocabulary}", "--workers", "1"]
    first = mortal.hub.head("datasets/wikimedia/wikipedia")
    mortal.hub.start()
    mortal.prepares("whole", *mine)
    mortal.hub.stop()
    mortal.hub.start("--dies-at", "train-00001-of")
    ended = mortal.prepares("corpus", *mine, code=1, timeout=90)
    for said in (
        "wikimedia/wikipedia could not be read to its end",
        "Run the command again: it resumes",
    ):
        assert said in ended.err
    done = sorted(path.name for path in (mortal.folder / "corpus" / "shards").glob("*.json"))
    assert done == ["00000-000.json"]
    mortal.hub.stop()
    mortal.hub.publish(
        "datasets/wikimedia/wikipedia",
        lambda folder: (folder / "README.md").write_text("moved away"),
    )
    mortal.hub.start()
    mortal.prepares("corpus", *mine)
    assert content(mortal.folder / "corpus") == content(mortal.folder / "whole")
    assert manifest(mortal.folder / "corpus")["sources"]["wikipedia"]["revision"] == first


@pytest.mark.parametrize("download", [False, True], ids=["streamed", "downloaded"])
def test_a_corpus_from_the_hub_is_that_of_its_files(person: Any, download: bool) -> None:
    person.prepares("corpus", NEWEST, *downloaded(download))
    wikipedia, books = (
        person.hub.folder / "datasets" / name
        for name in ("wikimedia/wikipedia", "rojagtap/bookcorpus")
    )
    files = [
        f"sources.wikipedia.path={wikipedia}/20231101.en",
        f"sources.bookcorpus.path={books}/data",
        "sources.wikipedia.config=null",
        NEWEST,
    ]
    person.prepares("local", *files, HF_HUB_OFFLINE="1")
    found, local = (manifest(person.folder / name) for name in ("corpus", "local"))
    commits = {name: source["revision"] for name, source in found["sources"].items()}
    assert commits == {
        name: person.hub.head(f"datasets/{found['sources'][name]['path']}") for name in commits
    }
    assert len(commits) == 2 and found["sources"]["wikipedia"]["counts"]["read"]["documents"] == 75
    for name in commits:
        assert found["sources"][name]["counts"] == local["sources"][name]["counts"]


def test_offline_a_downloaded_corpus_is_made_again_and_another_commit_is_not(
    person: Any, content: Callable[[Path], dict[str, bytes]]
) -> None:
    person.prepares("online", NEWEST, *downloaded(True))
    person.prepares("offline", NEWEST, *downloaded(True), HF_HUB_OFFLINE="1")
    assert content(person.folder / "offline") == content(person.folder / "online")
    refused = person.prepares("pinned", *downloaded(True), code=1, HF_HUB_OFFLINE="1").err
    for said in (
        person.hub.head("datasets/wikimedia/wikipedia"),
        "b04c8d1ceb2f5cd4588862100d08de323dccfbaa",
        "Connect to",
    ):
        assert said in refused
    assert not (person.folder / "pinned").exists()
