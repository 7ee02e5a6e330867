"""The files in a folder: links are followed, loops of links end, and nothing is lost in silence."""

import fnmatch
import glob
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from sqzb.errors import UserError

HIDDEN = (".", "_")  # beginnings of names: .ipynb_checkpoints, _SUCCESS
SUBFOLDERS = "**"
NAMED = 5  # entries to name in a sentence


class PassedOver(NamedTuple):
    """An entry of a folder that is not read, and the reason."""

    path: Path
    why: str


class Listing(NamedTuple):
    """The content of a folder at any depth, or the matches of a glob."""

    files: list[Path]  # in the order of their paths
    folders: list[Path]
    passed: list[PassedOver]

    def chosen(self, is_readable: Callable[[Path], bool]) -> "Listing":
        """Return the listing with only the readable files; all others are passed over."""
        files: list[Path] = []
        passed = list(self.passed)
        for file in self.files:
            if is_readable(file):
                files.append(file)
            else:
                passed.append(PassedOver(file, "another format"))
        return Listing(files, self.folders, passed)

    def about_passed(self) -> str:
        """Return the entries that are passed over with their reasons, for a sentence."""
        some = [f"{path} ({why})" for path, why in self.passed[:NAMED]]
        more = len(self.passed) - NAMED
        return ", ".join(some) + (f" and {more:,} more" if more > 0 else "")


def walk(top: Path, hidden: tuple[str, ...] = HIDDEN) -> Listing:
    """List a folder at any depth.

    A link to a folder is followed, unless the folder is read already.

    hidden: beginnings of the names of entries that are passed over.

    Raises:
        UserError: A folder cannot be read, or a link leads nowhere.
    """
    listing = Listing([], [], [])
    seen: dict[str, Path] = {}  # real path: the path by which it was read
    links: list[Path] = []
    _walk(top, hidden, listing, seen, links)

    # A folder that is there itself goes before links to it. Links found on the way come last.
    while links:
        link = links.pop(0)
        real = os.path.realpath(link)
        if real in seen:
            listing.passed.append(PassedOver(link, f"a link to {seen[real]}"))
        else:
            _walk(link, hidden, listing, seen, links)
    files = _once(sorted(listing.files), listing.passed)
    return Listing(files, sorted(listing.folders), sorted(listing.passed))


def _walk(
    top: Path,
    hidden: tuple[str, ...],
    listing: Listing,
    seen: dict[str, Path],
    links: list[Path],
) -> None:
    """Add a folder's content to a listing; links to folders are put off."""
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen[real] = folder
        listing.folders.append(folder)
        for entry in _entries(folder):
            path = folder / entry.name
            if entry.name.startswith(hidden):
                listing.passed.append(PassedOver(path, "hidden"))
            elif entry.is_dir(follow_symlinks=False):
                waiting.append(path)
            elif os.path.isdir(path):
                links.append(path)
            elif os.path.isfile(path):
                listing.files.append(path)
            elif entry.is_symlink():
                raise UserError(
                    f"{path} is a link to {os.readlink(path)}, which cannot be reached. Mend or "
                    "remove the link, or give a glob that leaves it out."
                )
            else:
                listing.passed.append(PassedOver(path, "no regular file"))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(
            f"The folder {folder} cannot be read ({error.strerror}). Get the right to read it, or "
            "give files or a glob that leave it out."
        ) from error


def _once(files: list[Path], passed: list[PassedOver]) -> list[Path]:
    """Return the files without links to others of them, which are added to `passed`."""
    first: dict[str, Path] = {}
    for file in sorted(files, key=lambda file: (file.is_symlink(), file)):
        real = os.path.realpath(file)
        if real in first:
            passed.append(PassedOver(file, f"a link to {first[real]}"))
        else:
            first[real] = file
    return sorted(first.values())


# Globs


def expand(pattern: str) -> Listing:
    """List the files and folders that a glob matches; `**` stands for folders at any depth.

    Unlike glob.glob, this function ends where links lead in a circle, and does not skip a folder
    that it cannot read.

    Raises:
        UserError: A folder below `**` cannot be read, or a link leads nowhere.
    """
    parts = Path(pattern).parts
    if SUBFOLDERS not in parts:
        matches = [Path(match) for match in sorted(glob.glob(pattern))]
        regular = [match for match in matches if match.is_file()]
        return Listing(regular, [match for match in matches if match.is_dir()], [])

    number = parts.index(SUBFOLDERS)
    top = str(Path(*parts[:number])) if number else "."
    files: set[Path] = set()
    folders: set[Path] = set()
    passed: set[PassedOver] = set()
    for match in sorted(glob.glob(top)):
        if not os.path.isdir(match):
            continue
        listing = walk(Path(match))
        files.update(_matching(listing.files, match, parts[number:]))
        folders.update(_matching(listing.folders, match, parts[number:]))
        passed.update(listing.passed)
    # `**` at the end matches each folder and each file in it.
    listed = [] if parts[-1] == SUBFOLDERS else sorted(folders)
    return Listing(sorted(files), listed, sorted(passed))


def _matching(paths: list[Path], top: str, parts: tuple[str, ...]) -> Iterator[Path]:
    for path in paths:
        if _matches(path.relative_to(top).parts, parts):
            yield path


def _matches(names: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    """Return whether the names of a path match the parts of a pattern."""
    matched = {0}  # numbers of parts that may match the names so far
    for name in (*names, None):
        # `**` also stands for no folder at all.
        for number in range(len(parts)):
            if number in matched and parts[number] == SUBFOLDERS:
                matched.add(number + 1)
        if name is None:
            break
        following: set[int] = set()
        for number in matched:
            if number < len(parts) and parts[number] == SUBFOLDERS:
                following.add(number)
            elif number < len(parts) and fnmatch.fnmatchcase(name, parts[number]):
                following.add(number + 1)
        matched = following
    return len(parts) in matched
