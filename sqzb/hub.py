"""A model's folder, from a path or a Hub id."""

import re
from pathlib import Path

from sqzb.console import brief_retries
from sqzb.errors import UserError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
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


def local_folder(source: str | Path) -> Path:
    """Return the folder of a saved model; a Hub id is first downloaded to the Hub's cache.

    source: a folder of a model, a run's folder (whose final/ is returned), or a Hub id
    (owner/name).

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
    if isinstance(source, Path) or not HUB_ID.fullmatch(source):
        raise UserError(
            f"There is no folder {source}. Give the folder of a saved model, or a Hub id "
            "(owner/name)."
        )
    return _download(source)


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


def _download(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        with brief_retries():
            folder = Path(snapshot_download(hub_id, allow_patterns=MODEL_FILES))
    except GatedRepoError:
        raise UserError(
            f"The Hub restricts access to {hub_id}. Request access there, then run `hf auth login`."
        ) from None
    except RepositoryNotFoundError:
        raise UserError(
            f"There is no folder {hub_id}, and no public model of that name on the Hub. Check the "
            "name; for a private model, run `hf auth login` first."
        ) from None
    # The library lets the errors of its HTTP client through, and they have no common base class.
    except Exception as error:
        raise UserError(
            f"There is no folder {hub_id}, the local cache has no model of that name, and the Hub "
            f"cannot be reached ({type(error).__name__}). Connect to the network, or give a local "
            "folder (for finetune: --model DIR) with config.json, weights and tokenizer.json."
        ) from error
    if not folder.is_dir():
        raise UserError(
            f"{hub_id} on the Hub has none of a model's files ({', '.join(MODEL_FILES)}). "
            "Check the name."
        )
    return folder
