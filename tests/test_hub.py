"""A model's folder is found by path or by Hub id, and where it is not, the error says what to
do.
"""

import logging
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors
from huggingface_hub.utils import _http as http_client
from hypothesis import given
from hypothesis import strategies as st

from sqzb import hub
from sqzb.errors import UserError
from sqzb.hub import HUB_ID, hub_id, local_folder

HUB = "squeezebert/squeezebert-uncased"
# The library's own HTTP client: httpx, or its successor.
client = import_module(
    import_module("huggingface_hub.errors").HTTPError.__module__.partition(".")[0]
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *args, **rest: pytest.fail("the Hub was asked")
    )


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize("kind", [str, Path])
def test_a_local_folder_is_itself_and_a_run_its_final_model(kind: type, tmp_path: Path) -> None:
    (tmp_path / "run" / "final").mkdir(parents=True)
    (tmp_path / "run" / "metrics.jsonl").touch()
    assert local_folder(kind("run/final")) == Path("run/final")
    assert local_folder(kind("run")) == Path("run/final")
    assert local_folder(kind(tmp_path / "run")) == tmp_path / "run" / "final"


@pytest.mark.usefixtures("no_hub")
def test_a_folder_of_runs_is_answered_with_its_runs(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / "runs" / name / "final").mkdir(parents=True)
        (tmp_path / "runs" / name / "metrics.jsonl").touch()
    (tmp_path / "sweep" / "base" / "mrpc" / "seed=0").mkdir(parents=True)
    (tmp_path / "sweep" / "base" / "mrpc" / "seed=0" / "metrics.jsonl").touch()
    with pytest.raises(UserError, match=r"sweep is a folder of runs.*: .*sweep/base/mrpc/seed=0\."):
        local_folder(str(tmp_path / "sweep"))
    with pytest.raises(UserError, match=r"runs is a folder of runs.*: runs/a, runs/b\."):
        local_folder("runs")


@pytest.mark.usefixtures("no_hub")
def test_a_local_folder_comes_before_the_hub(tmp_path: Path) -> None:
    (tmp_path / HUB).mkdir(parents=True)
    assert local_folder(HUB) == Path(HUB)


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("run", r"run .*final/.*checkpoints/"),
        ("file.bin", r"file\.bin is a file.*config\.json"),
        ("missing", r"missing.*owner/name"),
        ("./owner/name", r"\./owner/name.*owner/name"),
        ("/owner/name", "/owner/name"),
        ("../owner/name", "owner/name"),
        ("owner/name/more", "owner/name/more"),
        ("owner/na me", "owner/na me"),
        (Path(HUB), HUB),
    ],
)
def test_what_is_no_folder_and_no_hub_id_is_refused_without_asking_the_hub(
    source: str | Path, told: str, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").touch()
    (tmp_path / "file.bin").touch()
    with pytest.raises(UserError, match=told):
        local_folder(source)


@given(st.from_regex(r"[\w.-]{1,20}/[\w.-]{1,20}", fullmatch=True))
def test_what_the_hub_takes_for_an_id_is_one_here(name: str) -> None:
    try:
        import_module("huggingface_hub.utils").validate_repo_id(name)
    except errors.HFValidationError:
        return
    # Names that begin with a mark are valid there but looked up as folders here.
    assert HUB_ID.fullmatch(name) or not name[0].isalnum()


def test_a_hub_id_is_downloaded_without_what_the_model_does_not_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def snapshot_download(repo_id: str, *, revision: None, allow_patterns: list[str]) -> str:
        asked.append(repo_id)
        names = [
            "config.json",
            "pytorch_model.bin",
            "model.safetensors",
            "sop_head.safetensors",
            "tokenizer.json",
        ]
        names += ["vocab.txt", "tokenizer_config.json"]
        others = ["tf_model.h5", "README.md", "flax_model.msgpack", "training_args.bin", "run.py"]
        chosen = import_module("huggingface_hub.utils").filter_repo_objects
        wanted = chosen(names + others, allow_patterns=allow_patterns)
        assert sorted(wanted) == sorted(names)
        (tmp_path / "cache").mkdir()
        return str(tmp_path / "cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert local_folder(HUB) == tmp_path / "cache"
    assert asked == [HUB]


def answer(status: int) -> Any:
    return client.Response(
        status, request=client.Request("GET", "https://huggingface.co/api/models")
    )


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (
            errors.RepositoryNotFoundError("401", response=answer(401)),
            "Check the name.*hf auth login",
        ),
        (errors.GatedRepoError("403", response=answer(403)), "Request access.*hf auth login"),
        (
            errors.LocalEntryNotFoundError("nothing cached"),
            "Connect to the network, or give a local folder",
        ),
        (
            errors.OfflineModeIsEnabled("HF_HUB_OFFLINE=1"),
            "Connect to the network, or give a local folder",
        ),
        (errors.RevisionNotFoundError("404", response=answer(404)), "no revision"),
        (
            errors.HfHubHTTPError("500", response=answer(500)),
            "Connect to the network, or give a local folder",
        ),
        (errors.HFValidationError("--"), "give a local folder"),
        (client.ProxyError("no proxy"), "Connect to the network, or give a local folder"),
        (client.ReadTimeout("too slow"), "Connect to the network, or give a local folder"),
        (ConnectionResetError("reset"), "Connect to the network, or give a local folder"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_every_failure_of_the_hub_tells_what_to_do(
    error: Exception, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def snapshot_download(*args: Any, **rest: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(UserError, match=f"{HUB}.*{advice}") as told:
        local_folder(HUB)
    assert "\n" not in str(told.value)


def test_offline_the_real_library_ends_in_advice_too(tmp_path: Path) -> None:
    program = f"from sqzb.hub import local_folder; local_folder({HUB!r})"
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment
    )
    assert "sqzb.errors.UserError" in ended.stderr.splitlines()[-1]
    assert "give a local folder" in ended.stderr.splitlines()[-1]
    assert "because HF_HUB_OFFLINE=1 is set: unset it" in ended.stderr.splitlines()[-1]


@given(
    st.from_regex(HUB_ID, fullmatch=True),
    st.from_regex(re.compile(r"[\w./-]{1,20}", re.ASCII), fullmatch=True),
)
def test_a_revision_follows_an_at_sign(name: str, revision: str) -> None:
    assert hub_id(name) == (name, None)
    assert hub_id(f"{name}@{revision}") == (name, revision)


@pytest.mark.parametrize(
    "given",
    ["a/b@", "a/b@x y", "a@b", "a/b/c", "a/b..c", "a--b/c", "a/b.git", "a/b-", f"a/{'b' * 97}", ""],
)
def test_what_the_hub_cannot_have_is_no_id(given: str) -> None:
    assert hub_id(given) is None


def test_the_revision_is_asked_for_and_its_commit_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789" * 4

    def snapshot_download(repo_id: str, *, revision: str, allow_patterns: list[str]) -> str:
        assert (repo_id, revision) == (HUB, "v1.0")
        (tmp_path / commit).mkdir()
        return str(tmp_path / commit)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(hub, "_taken", {})
    assert local_folder(f"{HUB}@v1.0") == tmp_path / commit
    assert hub.taken() == {HUB: commit}


@pytest.mark.usefixtures("no_hub")
def test_a_mistyped_path_is_answered_with_the_nearest_folder(tmp_path: Path) -> None:
    (tmp_path / "reviews" / "final").mkdir(parents=True)
    with pytest.raises(UserError, match=r"no folder reviws\. Did you mean reviews\?"):
        local_folder("reviws")


def test_the_hub_is_asked_once_where_nothing_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network, `datasets` looks into its cache at once, and only then."""
    import datasets
    from huggingface_hub import HfApi, constants

    asked = []

    def dataset_info(self: HfApi, name: str, timeout: float) -> None:
        asked.append(name)
        raise client.ConnectError("no network")

    monkeypatch.setattr(HfApi, "dataset_info", dataset_info)
    for module in (datasets.config, constants):
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", False)
    with pytest.raises(ConnectionError, match="the Hub does not answer"), hub.asked_once(HUB):
        raise ConnectionError("Couldn't reach (OfflineModeIsEnabled)")
    asked.clear()
    with hub.asked_once(HUB):
        assert datasets.config.HF_HUB_OFFLINE and constants.HF_HUB_OFFLINE
    assert not datasets.config.HF_HUB_OFFLINE and not constants.HF_HUB_OFFLINE
    assert asked == [HUB]


def test_retries_of_the_hub_client_are_one_warning(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    client = logging.getLogger("huggingface_hub.utils._http")
    with hub.brief_retries():
        for attempt in (1, 2):
            client.warning("'refused' thrown while requesting HEAD http://127.0.0.1:9/a")
            client.warning(f"Retrying in {attempt}s [Retry {attempt}/5].")
        client.warning("other")
    assert capsys.readouterr().err.count("The Hub does not respond") == 1
    assert [record.message for record in caplog.records] == ["other"]
    client.warning("Retrying in 1s [Retry 1/5].")
    assert len(caplog.records) == 2


def test_retries_are_recognised_by_the_words_of_the_installed_client() -> None:
    source = Path(http_client.__file__ or "").read_text(encoding="utf-8")
    assert "thrown while requesting" in source and "[Retry {" in source
    assert http_client.__name__ == "huggingface_hub.utils._http"
