"""The folder of a corpus: new, resumed, finished or to be repaired."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sqzb import console
from sqzb.corpus.manifest import (
    RECIPE,
    UNITS,
    WITHOUT_EFFECT,
    damaged,
)
from sqzb.corpus.shards import (
    ShardRecord,
    record_path,
    shard_path,
)
from sqzb.corpus.source_keys import check_keys
from sqzb.corpus.sources import Unit, about_files, local_files, units
from sqzb.corpus.store import MANIFEST, SHARDS, relative
from sqzb.errors import RecipeError, UserError
from sqzb.files import ASIDE, check_output_folder, sha256, whole_file, write_json
from sqzb.recipe import CorpusRecipe, dump_recipe, load_recipe

VOCABULARY = "vocab.txt"

# The manifest of a finished corpus, while the corpus is repaired or cut to other lengths.
BEFORE = "manifest.before.json"

# Keys that stage one does not use: they may change between calls of the command.
STAGE_TWO = {
    "output",
    "sequence_lengths",
    "short_seq_prob",
    "heldout",
    "drop_duplicates",
    "max_bad_documents",
}


def check_folder(folder: Path) -> None:
    """Check that the folder is new or empty, or holds a corpus that was begun.

    Raises:
        UserError: the folder holds something else.
        OSError: the folder cannot be made.
    """
    if (folder / RECIPE).exists():
        return
    if not folder.exists():
        check_output_folder(folder)  # before the sources are listed, which may take long
        return
    # If the command was killed while it wrote its first file, that file is alone in the folder.
    first_file = f"{RECIPE}{ASIDE}"
    if not folder.is_dir():
        raise UserError(f"{folder} is a file, not a folder. Give another --output.")
    if any(path.name != first_file for path in folder.iterdir()):
        raise UserError(f"The folder {folder} holds other files. Give another --output.")


def list_units(folder: Path, recipe: CorpusRecipe) -> list[Unit]:
    """Return all units of all sources.

    Raises:
        RecipeError: a source has a key without effect.

    The units of a Hub data set are those of the commit with which the work in the folder began.
    """
    begun: dict[str, str | None] = {}
    for row in _listed(folder) or []:
        unit = Unit(*row)
        begun[unit.source] = unit.revision

    work: list[Unit] = []
    for name, source in recipe.sources.items():
        revision = begun.get(name) or source.revision
        listing = local_files(source)
        for line in about_files(name, source, listing):
            console.out.print(line)
        of_source = units(name, source.model_copy(update={"revision": revision}), listing)
        check_keys(name, source, {unit.kind for unit in of_source})
        work += of_source
    return work


def _listed(folder: Path) -> list[Any] | None:
    """Return the units of the work that was begun, as lists; None if there are none.

    Raises:
        UserError: the file is damaged.
    """
    try:
        listed: list[Any] = json.loads((folder / UNITS).read_text(encoding="utf-8"))
        return listed
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        advice = f"Remove {folder} to start from scratch."
        raise UserError(f"{folder / UNITS} is damaged ({error}). {advice}") from error


def claim(folder: Path, recipe: CorpusRecipe, work: list[Unit]) -> bool:
    """Prepare the folder for the recipe; return whether there is anything to do.

    Damaged files of a finished corpus are removed, so that they are made again.

    Raises:
        UserError: the folder holds a corpus of another recipe or of other sources.
    """
    if (folder / RECIPE).exists():
        changed = _changed_keys(folder, recipe)
        as_listed = json.loads(json.dumps(work))
        if _listed(folder) not in (None, as_listed):
            raise UserError(
                f"The sources have changed since the corpus in {folder} was started. "
                "Restore them, or remove that folder to start from scratch."
            )
        if (folder / MANIFEST).exists():
            (folder / BEFORE).unlink(missing_ok=True)
            problems = damaged(folder)
            if not problems and changed <= WITHOUT_EFFECT:
                return False
            _take_apart(folder, problems)

    with whole_file(folder / RECIPE) as aside:
        aside.write_text(dump_recipe(recipe), encoding="utf-8")
    write_json(folder / UNITS, work)
    return True


def _changed_keys(folder: Path, recipe: CorpusRecipe) -> set[str]:
    """Return the keys of the recipe that differ from the recipe in the folder.

    Raises:
        UserError: stage one uses such a key, or the folder's recipe is not valid.
    """
    before = _recipe_of(folder)
    keys = type(recipe).model_fields
    changed = [key for key in keys if getattr(before, key) != getattr(recipe, key)]

    other = [key for key in changed if key not in STAGE_TWO]
    if other:
        differ = "differs" if len(other) == 1 else "differ"
        raise UserError(
            f"{folder} holds a corpus of another recipe: {', '.join(other)} {differ} from "
            f"{folder / RECIPE}. Give another --output, or remove that folder."
        )
    return set(changed)


def _recipe_of(folder: Path) -> CorpusRecipe:
    try:
        return load_recipe(CorpusRecipe, folder / RECIPE, stored=True)
    except RecipeError as error:
        problem = "holds no corpus that this version can resume"
        raise UserError(f"{folder} {problem}. Give another --output.") from error


def _take_apart(folder: Path, names: Iterable[str]) -> None:
    """Remove the damaged files, and put the manifest aside until all files are there again."""
    for name in names:
        _remove(folder, name)
        console.warn(f"{name} is damaged or missing and is rebuilt.")
    (folder / MANIFEST).replace(folder / BEFORE)


def _remove(folder: Path, name: str) -> None:
    """Remove a file of the corpus; with a shard, also its record."""
    path = folder / name
    path.unlink(missing_ok=True)
    if path.parent.name == SHARDS:
        record_path(folder, path.stem).unlink(missing_ok=True)


def check_mended(folder: Path, records: dict[str, ShardRecord]) -> None:
    """Check that files of a finished corpus that were made again are equal to the files before.

    Raises:
        UserError: files differ. They are removed, so that the next call makes them once more.
    """
    if not (folder / BEFORE).exists():
        return
    files = json.loads((folder / BEFORE).read_text(encoding="utf-8"))["files"]

    due: dict[str, str] = {}
    for name, file in files.items():
        if name.startswith(f"{SHARDS}/") or name == VOCABULARY:
            due[name] = file["sha256"]
    made: dict[str, str] = {}
    for name, record in records.items():
        made[relative(shard_path(folder, name))] = record["sha256"]
    made[VOCABULARY] = sha256(folder / VOCABULARY)

    other = [name for name in due | made if due.get(name) != made.get(name)]
    for name in other:
        _remove(folder, name)
    if other:
        raise UserError(
            f"{', '.join(other[:5])} could not be rebuilt with the same content: "
            f"the sources have changed since the corpus in {folder} was made. "
            "Restore them, or remove that folder to start from scratch."
        )
