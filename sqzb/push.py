"""Upload of a finished model to the Hugging Face Hub."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from sqzb import console
from sqzb.errors import UserError, WrongArgument
from sqzb.files import ASIDE, locked
from sqzb.hub import HUB_ID, brief_retries, offline
from sqzb.recipe import FinetuneRecipe, PretrainRecipe
from sqzb.training.card import CARD, MODEL_ID
from sqzb.training.run_folder import METRICS, final_figures, last_logged, recipe_of

TOKEN = "Make a token with write access at huggingface.co/settings/tokens, then run"
LOGIN = f"{TOKEN} `hf auth login`, or set HF_TOKEN."
SERVER_TEXT = 300  # characters of a server's answer that are shown


class File(NamedTuple):
    """A file to upload. name: its path in the repository."""

    name: str
    path: Path

    @property
    def size(self) -> int:
        """Bytes of the file on this disk."""
        return self.path.stat().st_size


def push(run: Path, name: str, private: bool, agreed: Callable[[str], bool]) -> None:
    """Upload a finished run's final/ to owner/name on the Hub, in one commit.

    run: folder of the run, or of a saved model.
    agreed: asks the user a question; the files have been printed before.

    Raises:
        WrongArgument: `name` is not owner/name.
        UserError: the run is not finished, there is no token, or the Hub refuses the upload.
    """
    if not HUB_ID.fullmatch(name):
        raise WrongArgument(f"{name} cannot be a model on the Hub. Give OWNER/NAME.")
    files = model_files(finished_model(run))
    token = _token()

    rows = [(file.name, console.size(file.size)) for file in files]
    rows.append(("total", console.size(sum(file.size for file in files))))
    console.table(f"Files for {name} on the Hub", ("file", "size"), rows)
    readers = "private: only its owner can read it" if private else "public: everyone can read it"
    if not agreed(f"Upload these {len(files)} files to {name} ({readers})?"):
        raise UserError("Nothing was uploaded.")
    url = _upload(files, name, private, token)
    console.out.print(f"The model is at {url}")


# The model


def finished_model(run: Path) -> Path:
    """Return the folder of a finished run's model, or of a saved model.

    Raises:
        UserError: there is no run and no model, or the run is not finished.
    """
    if not run.is_dir():
        raise UserError(f"There is no folder {run}. Give the folder of a finished run.")
    given = run.absolute()  # because the path may be "."
    if given.name == "final" and (given.parent / METRICS).exists():
        given = given.parent
    if not (given / METRICS).exists():
        if not (given / "config.json").is_file():
            raise UserError(f"{run} is no run and no saved model. Give the folder of a run.")
        return given
    with locked(given) as is_free:
        if not is_free:
            raise UserError(f"The run {run} is at work. Wait until it has ended.")
        if not _is_finished(given):
            raise UserError(
                f"The run {run} is not finished, so its model is not the one of its recipe. "
                "Finish it with --resume auto and the command that began it."
            )
    return given / "final"


def _is_finished(run: Path) -> bool:
    """Return whether final/ is complete and no step was logged after it."""
    # The card is the last file of final/.
    if not all((run / "final" / name).is_file() for name in ("config.json", CARD)):
        return False
    recipe = recipe_of(str(run), PretrainRecipe)
    if isinstance(recipe, PretrainRecipe):
        line = last_logged(run)
        return line is not None and line["step"] >= recipe.steps
    recipe_of(str(run), FinetuneRecipe)  # raises an error for a damaged recipe
    return final_figures(run) is not None


def model_files(folder: Path) -> list[File]:
    """Return the files of a model in alphabetical order, without hidden and unfinished ones.

    Raises:
        UserError: there are no weights, or a link leads out of the folder.
    """
    files = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        is_hidden = any(part.startswith(".") for part in name.split("/"))
        if is_hidden or path.suffix == ASIDE or not path.is_file():
            continue
        if not path.resolve().is_relative_to(folder.resolve()):
            raise UserError(
                f"{path} is a link to a file outside of {folder}, which is not uploaded. Remove "
                "the link, or put a copy in its place."
            )
        files.append(File(name, path))
    if not any(file.name.endswith(".safetensors") for file in files):
        raise UserError(f"{folder} has no weights (*.safetensors). Give the folder of a run.")
    return files


# The Hub


def _token() -> str:
    """Return the user's token, which is never printed.

    Raises:
        UserError: there is none, or the Hub may not be asked.
    """
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise UserError(f"A model cannot be uploaded offline{offline()}, then run it again.")
    token = get_token()
    if token is None:
        raise UserError(f"There is no token of the Hub on this machine. {LOGIN}")
    return token


def _upload(files: list[File], name: str, private: bool, token: str) -> str:
    """Upload the files in one commit, and return the address of the model.

    Raises:
        UserError: the Hub cannot be reached, or it refuses the upload.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError

    operations = [CommitOperationAdd(file.name, _content(file, name)) for file in files]
    api = HfApi(endpoint=constants.ENDPOINT, token=token)
    try:
        with brief_retries():
            url = str(api.create_repo(name, private=private, exist_ok=True))
            if private and not api.model_info(name).private:
                raise UserError(
                    f"{name} exists on the Hub and is public, so nothing was uploaded. Make it "
                    "private in its settings there, give another name, or leave --private out."
                )
            api.create_commit(name, operations, commit_message="Upload the model with sqzb")
    except UserError:
        raise
    # The cause is left out, because a server's answer may repeat the token.
    except HfHubHTTPError as error:
        problem = _explain(error.response.status_code, name)
        said = _plain(error.server_message or "", token)
        raise UserError(f"{problem}{said} Nothing was published.") from None
    except ValueError as error:  # how the library reports wrong metadata
        raise UserError(
            f"The Hub refuses the model card {CARD}.{_plain(str(error), token)} Nothing was "
            "published."
        ) from None
    # The library lets the errors of its HTTP client through, and they have no common base class.
    except Exception as error:
        raise UserError(
            f"The Hub cannot be reached ({type(error).__name__}). Nothing was published. Check the "
            "network, then run the command again; files that have arrived are not sent again."
        ) from None
    return url


def _content(file: File, name: str) -> str | bytes:
    """Return the path of a file; of the model card, the text with the model's own name."""
    if file.name != CARD:
        return str(file.path)
    return file.path.read_bytes().replace(MODEL_ID.encode(), name.encode())


def _explain(status: int, name: str) -> str:
    """Return what an error of the Hub means, and what to do."""
    owner = name.partition("/")[0]
    if status == 401:
        return f"The Hub does not accept the token (401). {LOGIN}"
    if status == 403:
        return (
            f"The token must not write to {owner} on the Hub (403). Use your own name or one of "
            f"your organisations before the /, or a token with more rights. {LOGIN}"
        )
    if status == 404:
        return f"{name} is not to be found on the Hub (404). Check the name and the token."
    if status == 409:
        return f"Someone else is changing {name} on the Hub (409). Run the command again."
    if status == 429:
        return "The Hub has had too many requests (429). Wait some minutes, then try again."
    if status >= 500:
        return f"The Hub has a problem of its own ({status}). Try again later."
    return f"The Hub refuses the upload to {name} ({status})."


def _plain(answer: str, token: str) -> str:
    """Return a server's answer as a short sentence, without the token and other tokens."""
    text = re.sub(r"hf_\w+", "hf_...", answer.replace(token, "..."))
    text = " ".join(text.split())[:SERVER_TEXT]
    return f" Its answer: {text.rstrip('.')}." if text else ""
