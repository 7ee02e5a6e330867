"""What a hub does not have, or a hub that is not there, is told at once: what, where, and what to
do next.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.hub
NEWEST = "sources.wikipedia.revision=null"
NO_FILES = """---
configs:
- config_name: default
  data_files:
  - {split: train, path: data/train-*}
---
"""
RETRYING = "Trying again"  # the warning before the client tries for half a minute


def assert_told(ended: Any, *said: str) -> None:
    last = ended.err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    for part in said:
        assert part in last
    assert RETRYING not in ended.err


def write_only(hub: Any, repository: str, name: str, text: str) -> None:
    hub.publish(repository, lambda folder: (folder / name).write_text(text))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            [],
            (
                "wikimedia/wikipedia",
                "Revision 'b04c8d1ceb2f5cd4588862100d08de323dccfbaa' doesn't exist",
                "Check",
            ),
        ),
        (
            ["sources.wikipedia.path=owner/name"],
            ("owner/name", "doesn't exist on the Hub", "path, config"),
        ),
        (
            [NEWEST, "sources.wikipedia.config=20231101.de"],
            ("20231101.de", "20231101.en", "path, config"),
        ),
        ([NEWEST, "sources.wikipedia.split=test"], ("test", "path, config, split")),
        (
            ["sources.wikipedia={path: made/no-files}"],
            ("made/no-files", "No (supported) data files", "path, config"),
        ),
        (
            [NEWEST, "sources.wikipedia.text=body"],
            ("no column body", "id, url, title, text", "`text`"),
        ),
        (
            [NEWEST, "vocabulary.path=made/no-tokenizer"],
            ("made--no-tokenizer", "no tokenizer", "Give a folder"),
        ),
        (
            [NEWEST, "vocabulary.path=made/no-model"],
            ("made/no-model", "none of a model's files", "Check the name"),
        ),
    ],
    ids=["revision", "repository", "config", "split", "files", "column", "tokenizer", "model"],
)
def test_what_a_corpus_needs_and_the_hub_has_not(
    person: Any, overrides: list[str], said: tuple[str, ...]
) -> None:
    write_only(person.hub, "datasets/made/no-files", "README.md", NO_FILES)
    write_only(person.hub, "models/made/no-tokenizer", "config.json", "{}")
    write_only(person.hub, "models/made/no-model", "README.md", "nothing else")
    assert_told(person.prepares("corpus", *overrides, code=1), *said)


def test_what_a_finetuning_needs_and_the_hub_has_not(
    person: Any, write_model: Callable[[Path, str], None]
) -> None:
    def without_weights(folder: Path) -> None:
        write_model(folder, "model.safetensors")
        (folder / "model.safetensors").unlink()

    person.hub.publish("models/made/no-weights", without_weights)
    ended = person.runs("finetune", "--task", "mrpc", "--model", "made/no-weights", code=1)
    assert_told(ended, "made--no-weights", "has no weights", "Give the folder")
    ended = person.runs("finetune", "--task", "mrpc", "--model", "owner/name", code=1)
    assert_told(ended, "owner/name", "no public model of that name", "Check the name")
    ended = person.runs("finetune", "--task", "cola", code=1)
    assert_told(ended, "cola's train split", "nyu-mll/glue", "--glue-dir")


def test_a_hub_that_is_not_there(mortal: Any, write_model: Callable[[Path, str], None]) -> None:
    """It is asked once: nothing is tried for half a minute."""
    (mortal.folder / "model").mkdir()
    write_model(mortal.folder / "model", "model.safetensors")
    assert_told(
        mortal.runs("eval", "owner/name", code=1),
        "owner/name",
        "cannot be reached",
        "Connect to the network",
    )
    ended = mortal.runs("finetune", "--task", "mrpc", "--model", "model", code=1)
    assert (
        "mrpc's train split could not be loaded from nyu-mll/glue on the Hub" in ended.err
        and "--glue-dir" in ended.err
    )
    assert RETRYING not in ended.err and "thrown while requesting" not in ended.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["prepare-corpus", "RECIPE", "--output", "corpus"],
            ("wikimedia/wikipedia", "Couldn't reach", "network"),
        ),
        (
            ["finetune", "--task", "mrpc"],
            ("squeezebert/squeezebert-uncased", "Connect to the network", "--model DIR"),
        ),
        (
            ["finetune", "--task", "mrpc", "--model", "model"],
            ("mrpc's train split", "HF_HUB_OFFLINE", "--glue-dir"),
        ),
    ],
    ids=["corpus", "model", "glue"],
)
def test_offline_what_is_not_in_the_cache_is_told_at_once(
    person: Any,
    write_model: Callable[[Path, str], None],
    arguments: list[str],
    said: tuple[str, ...],
) -> None:
    (person.folder / "model").mkdir()
    write_model(person.folder / "model", "model.safetensors")
    recipe = str(Path(__file__).parents[2] / "recipes" / "corpus.yaml")
    given = [recipe if argument == "RECIPE" else argument for argument in arguments]
    ended = person.runs(*given, code=1, HF_HUB_OFFLINE="1")
    assert_told(ended, *said)
