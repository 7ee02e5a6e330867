"""A model's folder from a path or a Hub id, and what this process has taken from the Hub."""

import difflib
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from sqzb.console import warn
from sqzb.errors import UserError

# As the Hub has it: letters, digits, _, - and dots, without .. and --, and no .git at the end.
HUB_ID = re.compile(r"(?!.*(\.\.|--|\.git$|[.-]$))[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}", re.ASCII)
REVISION = re.compile(r"[\w./-]+", re.ASCII)
COMMIT = re.compile("[0-9a-f]{40}")
# Files that hold a vocabulary: of the tokenizers library, WordPiece, byte-level BPE, sentencepiece.
VOCABULARIES = ["tokenizer.json", "vocab.txt", "vocab.json", "*.model"]
MODEL_FILES = [
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "pytorch_model.bin",
    *VOCABULARIES,
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
]
SECONDS_TO_ANSWER = 10.0

_taken: dict[str, str] = {}
_answered: set[str] = set()


def taken() -> dict[str, str]:
    """Return the commits of what this process has taken from the Hub, by `owner/name`."""
    return dict(_taken)


def note(name: str, commit: str) -> None:
    """Remember the commit of a model or a data set of the Hub, for `taken`."""
    if commit:
        _taken[name] = commit


@contextmanager
def brief_retries() -> Iterator[None]:
    """Replace the Hub client's lines about each failed attempt by one warning."""
    logger = logging.getLogger("huggingface_hub.utils._http")
    warned = False

    def is_other(record: logging.LogRecord) -> bool:
        nonlocal warned
        text = record.getMessage()
        if "thrown while requesting" not in text and "[Retry " not in text:
            return True
        if not warned:
            warn("The Hub does not respond. Trying again for up to half a minute ...")
        warned = True
        return False

    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


class HubId(NamedTuple):
    """The name of a repository on the Hub: owner/name, or owner/name@revision.

    revision: a commit, a branch or a tag; None: the newest commit of the main branch.
    """

    name: str
    revision: str | None


def hub_id(given: str) -> HubId | None:
    """Return the Hub id that a text is; None if the Hub cannot have such a name."""
    name, at, revision = given.partition("@")
    if not HUB_ID.fullmatch(name) or (at and not REVISION.fullmatch(revision)):
        return None
    return HubId(name, revision or None)


def local_folder(source: str | Path) -> Path:
    """Return the folder of a saved model; a Hub id is first downloaded to the Hub's cache.

    source: a folder of a model, a run's folder (whose final/ is returned), or a Hub id
    (owner/name, or owner/name@revision).

    Raises:
        UserError: `source` is none of these, the run has no final/, or the download failed.
    """
    path = Path(source)
    if (path / "final").is_dir():
        return path / "final"
    if (path / "metrics.jsonl").exists() and not (path / "config.json").exists():
        raise UserError(
            f"The run {path} has no final/ model yet. Finish it, or give one of its checkpoints/."
        )
    if path.is_dir():
        _refuse_folder_of_runs(path)
        return path
    if path.exists():
        raise UserError(
            f"{path} is a file; give the folder of a saved model (with config.json in it)."
        )
    asked = None if isinstance(source, Path) else hub_id(source)
    if asked is None:
        raise UserError(
            f"There is no folder {source}.{_near(path)} Give the folder of a saved model, or a Hub "
            "id (owner/name, or owner/name@revision)."
        )
    return _download(asked)


def _near(path: Path) -> str:
    """Return a question that names folders like the one that is missing; or nothing."""
    try:
        names = [inside.name for inside in path.parent.iterdir() if inside.is_dir()]
    except OSError:
        return ""
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.6)
    if not near:
        return ""
    return f" Did you mean {' or '.join(str(path.with_name(name)) for name in near)}?"


def _refuse_folder_of_runs(folder: Path) -> None:
    """Refuse a folder that is no model and holds runs.

    Raises:
        UserError: the folder is one of runs.
    """
    if (folder / "config.json").exists():
        return
    # The runs of a sweep are in SWEEP/TASK/SETTINGS, with stages in SWEEP/STAGE/TASK/SETTINGS.
    logs = [log for depth in (1, 2, 3) for log in folder.glob("*/" * depth + "metrics.jsonl")]
    runs = sorted(log.parent for log in logs)
    if runs:
        shown = ", ".join(map(str, runs[:5]))
        others = f" and {len(runs) - 5} others" if len(runs) > 5 else ""
        raise UserError(f"{folder} is a folder of runs. Give one of them: {shown}{others}.")


def _download(asked: HubId) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    name, revision = asked
    near = _near(Path(name))
    try:
        with brief_retries():
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=MODEL_FILES))
    except GatedRepoError:
        raise UserError(
            f"The Hub restricts access to {name}. Request access there, then run `hf auth login`."
        ) from None
    except RevisionNotFoundError:
        raise UserError(
            f"{name} on the Hub has no revision {revision}. Give a commit, a branch or a tag "
            f"behind the @, or {name} alone for the newest."
        ) from None
    except RepositoryNotFoundError:
        raise UserError(
            f"There is no folder {name}, and no public model of that name on the Hub.{near} Check "
            "the name; for a private model, run `hf auth login` first."
        ) from None
    # The library lets the errors of its HTTP client through, and they have no common base class.
    except Exception as error:
        raise UserError(
            f"There is no folder {name}, the local cache has no model of that name"
            f"{f' at revision {revision}' if revision else ''}, and the Hub cannot be reached "
            f"({type(error).__name__}{offline()}).{near} "
            "Connect to the network, or give a local folder (for finetune: --model DIR) with "
            "config.json, weights and tokenizer.json."
        ) from error
    if not folder.is_dir():
        raise UserError(
            f"{name} on the Hub has none of a model's files ({', '.join(MODEL_FILES)}). "
            "Check the name."
        )
    note(name, folder.name if COMMIT.fullmatch(folder.name) else "")
    return folder


# The Hub's state


def offline() -> str:
    """Return a clause that names the setting for which the Hub is not asked; or nothing."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        value = os.environ.get(name, "")
        if value.upper() in ("1", "ON", "YES", "TRUE"):
            return f"; the Hub was not asked, because {name}={value} is set: unset it"
    return ""


@contextmanager
def asked_once(name: str) -> Iterator[None]:
    """Let `datasets` open a data set in the block; without a network, from its cache at once.

    The library itself tries for half a minute before it looks into its cache.

    name: of the data set, for the one request of this process that finds whether the Hub answers.
    """
    import datasets
    from huggingface_hub import constants

    before = (datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE)
    is_gone = not any(before) and name not in _answered and not _answers(name)
    if is_gone:
        datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        with brief_retries():
            yield
    except Exception as error:
        # Nobody has set the offline mode that the library names.
        if is_gone and "OfflineModeIsEnabled" in str(error):
            raise ConnectionError("the Hub does not answer, and the cache has no copy") from error
        raise
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


def _answers(name: str) -> bool:
    """Return whether the Hub answers a question about a data set, whatever its answer is."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().dataset_info(name, timeout=SECONDS_TO_ANSWER)
    except HfHubHTTPError:
        pass  # an answer too; `datasets` reports it
    except Exception:  # the errors of the library's HTTP client have no common base class
        return False
    _answered.add(name)
    return True
