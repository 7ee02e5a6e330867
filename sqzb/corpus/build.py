"""Prepare a corpus: from sources to a finished corpus folder.

Stage one makes shards of tokens from units of text; stage two makes a table of chunks for each
shard. An interrupted command continues where it stopped. On a finished corpus, the command makes
again each file that is damaged or missing.
"""

import errno
import json
import math
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from tokenizers import Tokenizer

from sqzb import console
from sqzb.corpus.executors import Run, open_executor
from sqzb.corpus.manifest import (
    RECIPE,
    UNITS,
    WITHOUT_EFFECT,
    damaged,
    make_manifest,
    recipe_sha256,
    report,
)
from sqzb.corpus.shards import (
    ShardRecord,
    check_bad,
    record_path,
    records_of,
    shard_path,
    write_unit,
)
from sqzb.corpus.source_keys import check_keys
from sqzb.corpus.sources import Unit, about_files, documents, local_files, units
from sqzb.corpus.store import HELDOUT, MANIFEST, SHARDS, TRAIN, Corpus, read_manifest, relative
from sqzb.corpus.tables import Table, find_repeated, write_table
from sqzb.corpus.text import DROPPING, NO_ENDS, READ, Cleaner
from sqzb.draws import Permutation
from sqzb.errors import RecipeError, UserError
from sqzb.files import ASIDE, check_output_folder, locked, sha256, whole_file, write_json
from sqzb.hub import local_folder
from sqzb.recipe import CorpusRecipe, dump_recipe, load_recipe
from sqzb.tokenizer import TOKENIZER_FILES, load_tokenizer, save_tokenizer, train_tokenizer

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
    _check_folder(folder)
    work = _units(folder, recipe)
    if not work:
        raise UserError("The sources contain no documents. Check the paths of the sources.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder) as is_ours:
            if not is_ours:
                advice = "Wait for it, or give another --output."
                raise UserError(f"Another prepare-corpus is writing to {folder}. {advice}")
            if _claim(folder, recipe, work):
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
    tokenizer = _vocabulary(folder, recipe, work)

    records = _shards(folder, recipe, work, tokenizer, run)
    _check_mended(folder, records)
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
    console.out.print(f"All {n:,} files of {folder} are intact.")
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


# The folder


def _check_folder(folder: Path) -> None:
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


def _units(folder: Path, recipe: CorpusRecipe) -> list[Unit]:
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


def _claim(folder: Path, recipe: CorpusRecipe, work: list[Unit]) -> bool:
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


def _check_mended(folder: Path, records: dict[str, ShardRecord]) -> None:
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


# The vocabulary


def _vocabulary(folder: Path, recipe: CorpusRecipe, work: list[Unit]) -> Tokenizer:
    """Return the tokenizer of the corpus. The first call loads or trains it and saves it."""
    vocabulary = recipe.vocabulary
    if all((folder / name).exists() for name in TOKENIZER_FILES):
        tokenizer = load_tokenizer(folder)
    elif vocabulary.path is not None:
        path = Path(vocabulary.path)
        tokenizer = load_tokenizer(path if path.is_file() else local_folder(vocabulary.path))
    else:
        console.out.print(f"Training a vocabulary of {vocabulary.size:,} WordPieces.")
        sample = _sample(recipe, work)
        tokenizer = train_tokenizer(
            sample, vocabulary.size, vocabulary.lowercase, vocabulary.strip_accents
        )
    save_tokenizer(tokenizer, folder, max(recipe.sequence_lengths))
    return tokenizer


def _sample(recipe: CorpusRecipe, work: list[Unit]) -> Iterator[str]:
    """Yield cleaned text from the start of each unit, in random order, the same amount of each."""
    order = Permutation(len(work), recipe.seed)[range(len(work))]
    share = math.ceil(recipe.vocabulary.sample_characters / len(work))
    with console.bar("Reading a sample", len(work)) as bar:
        for index in order:
            left = share
            for text in _cleaned(recipe, work[index]):
                yield text[:left]
                left -= len(text)
                if left <= 0:
                    break
            bar.advance()


def _cleaned(recipe: CorpusRecipe, unit: Unit) -> Iterator[str]:
    """Yield the cleaned documents of a unit, a paragraph a sentence."""
    source = recipe.sources[unit.source]
    cleaner = Cleaner(recipe, source)
    for row in documents(unit, source):
        if isinstance(row, str) and (document := cleaner.document(row)) is not None:
            yield "\n\n".join(document.sentences)


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
    progress = _Progress(folder, work)
    left = [number for number in range(len(work)) if not progress.look(number)]
    _check_disk(folder, progress.total - progress.done, tokenizer)

    tasks = [(folder, recipe, number, work[number]) for number in left]
    unfinished = set(left)
    with console.bar("Preparing", progress.total, progress.done, unit=console.size) as bar:
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


class _Progress:
    """The progress of stage one, read from the records in the folder.

    `total` and `done` are sizes of units.
    """

    def __init__(self, folder: Path, work: list[Unit]) -> None:
        self._folder = folder
        self._work = work
        self._records_of: dict[int, dict[str, ShardRecord]] = {}  # by unit and name
        self._started = time.monotonic()
        self._first_bytes: int | None = None  # bytes read when `texts` was called first
        self.total = sum(unit.size for unit in work)
        self.done = 0

    def look(self, number: int) -> bool:
        """Read the records of a unit again; return whether the unit is finished."""
        records: dict[str, ShardRecord] = {}
        for name, record in records_of(self._folder, number):
            if record is not None:
                records[name] = record
        before = self._records_of.get(number, {})
        self.done += self._size(number, records) - self._size(number, before)
        self._records_of[number] = records
        return _is_finished(records)

    def _size(self, number: int, records: dict[str, ShardRecord]) -> int:
        """Return the finished part of a unit's size, which may be only an estimate of its text."""
        size = self._work[number].size
        if _is_finished(records):
            return size
        bytes_read: int = sum(record["counts"][READ]["bytes"] for record in records.values())
        return min(size, bytes_read)

    def records(self) -> dict[str, ShardRecord]:
        """Return the records of all units, in order, by name."""
        records: dict[str, ShardRecord] = {}
        for number in sorted(self._records_of):
            records |= self._records_of[number]
        return records

    def unreadable(self) -> tuple[int, list[str]]:
        """Return the number of unreadable documents, and location and reason of some of them."""
        documents = 0
        named: list[str] = []
        for record in self.records().values():
            documents += record["bad"]["documents"]
            named += record["bad"]["named"]
        return documents, named

    def texts(self) -> tuple[str, str, str]:
        """Return speed, documents and tokens for the progress bar."""
        documents = tokens = bytes_read = 0
        for record in self.records().values():
            documents += record["counts"][READ]["documents"]
            tokens += record["tokens"]
            bytes_read += record["counts"][READ]["bytes"]

        if self._first_bytes is None:
            self._first_bytes = bytes_read
        seconds = max(1e-9, time.monotonic() - self._started)
        speed = (bytes_read - self._first_bytes) / seconds
        return f"{speed / 1e6:.1f} MB/s", f"{documents:,} documents", f"{tokens:,} tokens"


def _is_finished(records: dict[str, ShardRecord]) -> bool:
    return any(record["last"] for record in records.values())


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
