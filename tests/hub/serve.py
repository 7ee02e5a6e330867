"""A hub on this machine: olah (a mirror of the Hub, from PyPI) serves git repositories, and asks no
other hub.

    python serve.py FOLDER PORT [--dies-at PART]

FOLDER has models/OWNER/NAME and datasets/OWNER/NAME. olah leaves to the Hub what its own
repositories do not answer, and offline that is nothing. What an unmodified client needs of it
stands in front here:
- a repository without a revision is its branch main;
- a file is given in parts (Range), as a stream of a data set reads it;
- what is not there has the Hub's status and X-Error-Code, by which huggingface_hub tells one from
  another.

--dies-at: the process kills itself when a file is asked for whose path has this part.
"""

import argparse
import os
import re
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvicorn
from fastapi import Request, Response
from git import GitError, Repo
from gitdb.exc import ODBError
from olah.configs import OlahConfig
from olah.errors import error_entry_not_found, error_repo_not_found, error_revision_not_found
from olah.server import AppSettings, app

NAME, REVISION = "(?P<name>[^/]+/[^/]+)", "(?P<revision>[^/]+)"
API = re.compile(f"/api/(?P<kind>models|datasets)/{NAME}(/(revision|tree|paths-info)/{REVISION})?")
FILE = re.compile(f"/((?P<kind>datasets)/)?{NAME}/resolve/{REVISION}/(?P<file>.+)")
RANGE = re.compile(r"bytes=(\d+)-(\d*)")


def add_what_is_missing(folder: Path, dies_at: str | None) -> None:
    @app.middleware("http")  # type: ignore[untyped-decorator]
    async def _(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        path = request.url.path
        asked = FILE.fullmatch(path) or API.match(path)
        if asked is None:
            return await answer(request)
        file = asked.groupdict().get("file")
        if dies_at is not None and dies_at in (file or ""):
            os.kill(os.getpid(), signal.SIGKILL)
        if asked["revision"] is None:
            request.scope["path"] = f"{path}/revision/main"
        gone = _gone(folder / (asked["kind"] or "models") / asked["name"], asked["revision"], file)
        if gone is not None:
            return gone
        response = await answer(request)
        wanted = RANGE.fullmatch(request.headers.get("range", ""))
        return (
            response if wanted is None or request.method != "GET" else await _part(response, wanted)
        )


def _gone(repository: Path, revision: str | None, file: str | None) -> Response | None:
    """The Hub's answer where the repository, the revision or the file is not there."""
    if not repository.is_dir():
        return error_repo_not_found()
    try:
        tree = Repo(repository).commit(revision or "main").tree
        if file is not None:
            tree.join(file)
    except KeyError:
        return error_entry_not_found()
    except (GitError, ODBError, ValueError):
        return error_revision_not_found(revision or "main")
    return None


async def _part(whole: Response, wanted: re.Match[str]) -> Response:
    body = b"".join([chunk async for chunk in whole.body_iterator])
    first, end = int(wanted[1]), min(len(body), int(wanted[2] or len(body)) + 1)
    return Response(body[first:end], 206, {"content-range": f"bytes {first}-{end - 1}/{len(body)}"})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("port", type=int)
    parser.add_argument("--dies-at")
    given = parser.parse_args()
    config = OlahConfig()
    config.offline = True
    config.repos_path = str(given.folder / "cache")
    config.mirrors_path = [str(given.folder)]
    app.state.app_settings = AppSettings(config=config)
    add_what_is_missing(given.folder, given.dies_at)
    uvicorn.run(app, host="127.0.0.1", port=given.port)


if __name__ == "__main__":
    main()
