"""Prepare a corpus: from sources to a finished corpus folder.

Stage one makes shards of tokens from units of text; stage two makes a table of chunks for each
shard. An interrupted command continues where it stopped. On a finished corpus, the command makes
again each file that is damaged or missing.
"""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import yaml
from tokenizers import Tokenizer

from sqzb import console
from sqzb.corpus.claim import BEFORE, check_folder, check_mended, claim, list_units
from sqzb.corpus.executors import Run, open_executor
from sqzb.corpus.manifest import (
    RECIPE,
    damaged,
    make_manifest,
    recipe_sha256,
    report,
)
from sqzb.corpus.progress import Progress
from sqzb.corpus.shards import (
    ShardRecord,
    check_bad,
    write_unit,
)
from sqzb.corpus.sources import Unit
from sqzb.corpus.store import HELDOUT, MANIFEST, TRAIN, Corpus, read_manifest
from sqzb.corpus.tables import Table, find_repeated, write_table
from sqzb.corpus.text import DROPPING, NO_ENDS, READ
from sqzb.corpus.vocabulary import vocabulary_of
from sqzb.errors import UserError
from sqzb.files import locked, write_json
from sqzb.recipe import CorpusRecipe

# Bytes of a corpus for a byte of its text, with 16 and with 32 bits a token, and some to spare:
# English with 16 bits takes 0.5 to 0.65.
DISK_SHARE, DISK_SHARE_WIDE = 0.75, 1.25

# Bytes of text that a process prepares in about the time that its start takes.
PROCESS_BYTES = 2 * 2**20


def build(recipe: CorpusRecipe, workers: int | None = None, executor: str = "processes") -> Corpus:
    """Prepare the corpus of a recipe with `workers` processes, or complete or repair it.

    The default is a process for each core, and fewer for little text.

    Raises:
        UserError: the sources, the folder, the disk or a worker process prevent it.
    """
    folder = Path(recipe.output)
    check_folder(folder)
    work = list_units(folder, recipe)
    if not work:
        raise UserError("The sources contain no documents. Check the paths of the sources.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder) as is_ours:
            if not is_ours:
                advice = "Wait for it, or give another --output."
                raise UserError(f"Another prepare-corpus is writing to {folder}. {advice}")
            if claim(folder, recipe, work):
                with open_executor(executor, workers or _workers(work)) as run:
                    _run_stages(folder, recipe, work, run)
            else:
                message = f"{folder} is finished and intact: there is nothing to do."
                console.out.print(message)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        advice = "Free some space and run the command again: it resumes."
        raise UserError(f"The disk of {folder} is full. {advice}") from error
    return Corpus(folder)


def _workers(work: list[Unit]) -> int:
    """Return the number of processes that saves time: their start takes a second."""
    sizes = [unit.size or PROCESS_BYTES for unit in work]  # the size may be unknown
    return max(1, min(os.cpu_count() or 1, sum(sizes) // PROCESS_BYTES))


def _run_stages(folder: Path, recipe: CorpusRecipe, work: list[Unit], run: Run) -> None:
    tokenizer = vocabulary_of(folder, recipe, work)

    records = _shards(folder, recipe, work, tokenizer, run)
    check_mended(folder, records)
    _check_kept(folder, recipe, records)

    _tables(folder, recipe, work, records, tokenizer, run)
    (folder / BEFORE).unlink(missing_ok=True)


def verify(folder: Path) -> None:
    """Check every file of a finished corpus, and print what the corpus holds.

    Raises:
        UserError: files are damaged or missing (the message lists them), or the folder holds no
            finished corpus.
    """
    problems = damaged(folder)
    if problems:
        listed = "".join(f"\n  {name}: {problem}" for name, problem in problems.items())
        command = f"sqzb prepare-corpus {folder / RECIPE} --output {folder}"
        raise UserError(
            f"{console.counted(len(problems), 'file')} of {folder} changed or missing:{listed}\n"
            f"`{command}` rebuilds only these."
        )
    manifest = read_manifest(folder)
    _check_recipe(folder, manifest)
    n = len(manifest["files"] | manifest["marks"])
    console.out.print(
        f"{console.counted(n, 'file')} of {folder} {'is' if n == 1 else 'are'} intact."
    )
    report(Corpus(folder))


def _check_recipe(folder: Path, manifest: dict[str, Any]) -> None:
    """Compare the recipe in the folder with its hash, which manifests of older versions lack.

    Raises:
        UserError: the recipe is damaged, missing or edited.
    """
    due = manifest.get("recipe_sha256")
    try:
        is_whole = due is None or recipe_sha256(folder / RECIPE) == due
    except (OSError, ValueError, TypeError, yaml.YAMLError):
        is_whole = False
    if not is_whole:
        raise UserError(
            f"{folder / RECIPE} is not the recipe that the corpus was made with. The other files "
            "are intact, and runs can use them. Restore the recipe from a copy."
        )


# Stage one


def _shards(
    folder: Path,
    recipe: CorpusRecipe,
    work: list[Unit],
    tokenizer: Tokenizer,
    run: Run,
) -> dict[str, ShardRecord]:
    """Write the shards that are not there yet; return the records of all shards, by name.

    Raises:
        UserError: the disk has too little space, or too many documents are unreadable.
    """
    progress = Progress(folder, work)
    left = [number for number in range(len(work)) if not progress.look(number)]
    _check_disk(folder, progress.total - progress.done, tokenizer)

    tasks = [(folder, recipe, number, work[number]) for number in left]
    unfinished = set(left)
    with console.bar("Preparing", progress.total, progress.done, unit=console.size) as bar:
        bar.to(progress.done, *progress.texts())  # the speed counts from here
        check_bad(*progress.unreadable(), recipe)
        for result in run(write_unit, tasks):
            # While waiting, look at all units: any of them may have new shards.
            changed = list(unfinished) if result is None else [left[result[0]]]
            for number in changed:
                if progress.look(number):
                    unfinished.discard(number)
            bar.to(progress.done, *progress.texts())
            check_bad(*progress.unreadable(), recipe)
    return progress.records()


def _check_disk(folder: Path, text_bytes: int, tokenizer: Tokenizer) -> None:
    """Check that the disk has space for the corpus of `text_bytes` bytes of text.

    Raises:
        UserError: the disk has too little.
    """
    is_wide = tokenizer.get_vocab_size() > 2**16
    need = int(text_bytes * (DISK_SHARE_WIDE if is_wide else DISK_SHARE))
    free = shutil.disk_usage(folder).free
    if need > free:
        raise UserError(
            f"The corpus needs about {console.size(need)}, "
            f"and the disk of {folder} has {console.size(free)} free. "
            "Free some space, or give another --output."
        )


def _check_kept(folder: Path, recipe: CorpusRecipe, records: dict[str, ShardRecord]) -> None:
    """Check that the cleaning rules have left any document; remove the folder if not.

    Raises:
        UserError: no document is left.
    """
    if any(record["tokens"] for record in records.values()):
        return

    read = 0
    dropped = dict.fromkeys(DROPPING, 0)
    unreadable: list[str] = []
    for record in records.values():
        read += record["counts"][READ]["documents"]
        for rule in DROPPING:
            dropped[rule] += record["counts"].get(rule, {"documents": 0})["documents"]
        unreadable += record["bad"]["named"]

    reasons = [f"{rule}: {n:,}" for rule, n in dropped.items() if n]
    because = ", ".join(reasons) or "no rule dropped any"
    if unreadable:
        because += f"; {unreadable[0]}"
    paths = ", ".join(source.path for source in recipe.sources.values())
    shutil.rmtree(folder)
    if dropped[NO_ENDS]:
        because += (
            f". Stretches of over {recipe.max_sentence_characters:,} characters without a sentence "
            "end were dropped: put sentences on lines with blank lines between, raise "
            "max_sentence_characters, or set `language`"
        )
    raise UserError(
        f"No document of {paths} could be used. Documents read: {read:,}; {because}. Check the "
        f"sources and the limits min_characters={recipe.min_characters} and "
        f"max_sentence_characters={recipe.max_sentence_characters}."
    )


# Stage two


def _tables(
    folder: Path,
    recipe: CorpusRecipe,
    work: list[Unit],
    records: dict[str, ShardRecord],
    tokenizer: Tokenizer,
    run: Run,
) -> None:
    """Write the table of every shard, and the manifest."""
    names = list(records)
    repeated = find_repeated(folder, names, recipe)
    vocab_size = tokenizer.get_vocab_size()
    tasks = []
    for name in names:
        weight = recipe.sources[records[name]["source"]].weight
        dropped = [by_shard[name].flags for by_shard in repeated.values()]
        tasks.append((folder, recipe, name, weight, vocab_size, dropped))

    tables: dict[str, Table] = {}
    with console.bar("Cutting", len(names)) as bar:
        for result in run(write_table, tasks):
            if result is not None:
                number, table = result
                tables[names[number]] = table
                bar.advance()

    # Tables come in any order; the manifest has the order of the shards.
    in_order = {name: tables[name] for name in names}
    manifest = make_manifest(folder, recipe, work, records, in_order, repeated, tokenizer)
    _check_heldout(recipe, manifest["documents"])
    write_json(folder / MANIFEST, manifest)


def _check_heldout(recipe: CorpusRecipe, documents: dict[str, int]) -> None:
    """Check that a held-out part that was asked for is not empty; warn about an empty default.

    documents: their number by split.

    Raises:
        UserError: the recipe sets `heldout`, and no document is held out.
    """
    if not recipe.heldout or documents[HELDOUT]:
        return
    of = f"heldout={recipe.heldout:g} of {console.counted(documents[TRAIN], 'document')}"
    problem = f"No document is held out for evaluation: {of} is none."
    advice = "Raise heldout, add documents, or set heldout=0."
    if any(source.txt_documents == "file" for source in recipe.sources.values()):
        advice += (
            " A txt file is one document unless its source has `txt_documents: blank-lines`; for "
            "that, give another --output."
        )
    if "heldout" in recipe.model_fields_set:
        raise UserError(f"{problem} {advice}")
    console.warn(f"{problem} {advice}")
