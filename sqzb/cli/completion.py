"""Values that a shell completes: recipes, GLUE tasks and folders of runs."""

import os
from collections.abc import Iterator

RUN_FILES = ("run.json", "metrics.jsonl")  # either is in a run's folder
DEPTH = 4  # folders below the typed one, as STAGE/TASK/SETTINGS of a sweep
MOST_FOLDERS = 2_000  # that are looked into, because a person waits


def complete_recipe(incomplete: str) -> list[str]:
    """Return the names of recipes that come with sqzb; the shell adds files."""
    from sqzb.recipe.shipped import names

    return [name for name in names() if name.startswith(incomplete)]


def complete_tasks(incomplete: str) -> list[str]:
    """Return names of GLUE tasks, also behind a comma."""
    from sqzb.glue.tasks import TASKS

    before, comma, begun = incomplete.rpartition(",")
    chosen = before.split(",")
    names = [name for name in (*TASKS, "all") if name.startswith(begun) and name not in chosen]
    return [f"{before}{comma}{name}" for name in names if not comma or name != "all"]


def complete_run(incomplete: str) -> list[str]:
    """Return the folders of runs that begin with the text; the shell adds other folders."""
    top = os.path.dirname(incomplete)
    runs = []
    budget = iter(range(MOST_FOLDERS))
    for folder in _runs(top or os.curdir, DEPTH, budget):
        name = folder if top else os.path.relpath(folder)
        if name.startswith(incomplete):
            runs.append(name)
    return sorted(runs)


def _runs(folder: str, depth: int, budget: Iterator[int]) -> Iterator[str]:
    """Yield runs below a folder, without hidden folders and links."""
    if next(budget, None) is None:
        return
    try:
        inside = list(os.scandir(folder))
    except OSError:
        return
    for entry in inside:
        if entry.name.startswith(".") or not entry.is_dir(follow_symlinks=False):
            continue
        if any(os.path.isfile(os.path.join(entry.path, name)) for name in RUN_FILES):
            yield entry.path
        elif depth > 1:
            yield from _runs(entry.path, depth - 1, budget)
