"""prepare-corpus: sources to a finished corpus folder.

Stage one makes shards of tokens from units of text, stage two a table of chunks for each shard. A command that was
stopped goes on where it was; one that is called on a finished corpus makes again what is damaged or missing.
"""

import errno
import json
import math
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from sqzb import console
from sqzb.corpus.executors import run
from sqzb.corpus.manifest import damaged, make_manifest, report
from sqzb.corpus.shards import ShardRecord, check_bad, record_path, records_of, shard_path, write_unit
from sqzb.corpus.sources import Unit, documents, units
from sqzb.corpus.store import MANIFEST, SHARDS, Corpus, read_manifest, relative
from sqzb.corpus.tables import Table, find_repeated, write_table
from sqzb.corpus.text import DROPPING, READ, Cleaner
from sqzb.draws import Permutation
from sqzb.errors import RecipeError, UserError
from sqzb.files import ASIDE, locked, sha256, whole_file, write_json
from sqzb.hub import local_folder
from sqzb.recipe import CorpusRecipe, dump_recipe, load_recipe
from sqzb.tokenizer import TOKENIZER_FILES, load_tokenizer, save_tokenizer, train_tokenizer

RECIPE, UNITS, VOCABULARY = "recipe.yaml", "units.json", "vocab.txt"
BEFORE = "manifest.before.json"  # of a finished corpus, while it is mended or cut anew
# Keys that stage one does not ask for: they may be others when the command is called again.
STAGE_TWO = {"output", "sequence_lengths", "short_seq_prob", "heldout", "drop_duplicates", "max_bad_documents"}
# Bytes of a corpus for a byte of its text. Measured for English with 16 bits a token: 0.5 to 0.65.
DISK_SHARE, DISK_SHARE_WIDE = 0.75, 1.25


def build(recipe: CorpusRecipe, workers: int, executor: str = "processes") -> Corpus:
    """Run the recipe with so many processes, go on with it where it was stopped, or mend what it has made."""
    folder = Path(recipe.output)
    _check_folder(folder)
    work = _units(folder, recipe)
    if not work:
        raise UserError("The sources hold no rows at all. Check that they are the right files.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder) as ours:
            if not ours:
                raise UserError(
                    f"Another prepare-corpus is at work on {folder}. Wait for it, or give another --output."
                )
            if _claim(folder, recipe, work):
                tokenizer = _vocabulary(folder, recipe, work)
                records = _shards(folder, recipe, work, tokenizer, workers, executor)
                _check_mended(folder, records)
                _check_kept(folder, recipe, records)
                _tables(folder, recipe, work, records, tokenizer, workers, executor)
                (folder / BEFORE).unlink(missing_ok=True)
            else:
                console.out.print(f"{folder} is finished and whole: there is nothing to do.", markup=False)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(f"The disk of {folder} is full. Make room and run the command again: it goes on.") from error
    return Corpus(folder)


# The folder


def _check_folder(folder: Path) -> None:
    begun = f"{RECIPE}{ASIDE}"  # all that is there when the command was killed with its first file
    used = folder.exists() and (not folder.is_dir() or any(path.name != begun for path in folder.iterdir()))
    if used and not (folder / RECIPE).exists():
        raise UserError(f"{folder} is not empty and holds no corpus. Give another --output.")


def _units(folder: Path, recipe: CorpusRecipe) -> list[Unit]:
    """All units; of a Hub data set at the commit with which the work in the folder was begun."""
    begun = {unit.source: unit.revision for unit in (Unit(*row) for row in _listed(folder) or [])}
    found = []
    for name, source in recipe.sources.items():
        revision = begun.get(name) or source.revision
        found += units(name, source.model_copy(update={"revision": revision}))
    return found


def _listed(folder: Path) -> list[Any] | None:
    try:
        listed: list[Any] = json.loads((folder / UNITS).read_text(encoding="utf-8"))
        return listed
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{folder / UNITS} is damaged ({error}). Remove {folder} to begin anew.") from error


def _claim(folder: Path, recipe: CorpusRecipe, work: list[Unit]) -> bool:
    """Make the folder ours: a new one, or one where the same recipe has been at work on the same sources.

    Of a finished corpus, takes away what is damaged; False if there is nothing to do.
    """
    begun = folder / RECIPE
    if begun.exists():
        before = _recipe_of(folder)
        changed = [k for k in type(recipe).model_fields if getattr(before, k) != getattr(recipe, k)]
        if other := [key for key in changed if key not in STAGE_TWO]:
            raise UserError(
                f"{folder} holds a corpus of another recipe: {', '.join(other)} differ{'s' * (len(other) == 1)} from "
                f"{begun}. Give another --output, or remove that folder."
            )
        if _listed(folder) not in (None, json.loads(json.dumps(work))):
            raise UserError(
                f"The sources have changed since the corpus in {folder} was begun. Put them back as they were, or "
                "remove that folder to begin anew."
            )
        if (folder / MANIFEST).exists():
            (folder / BEFORE).unlink(missing_ok=True)
            gone = damaged(folder)
            if not gone and set(changed) <= {"output", "max_bad_documents"}:
                return False
            _take_apart(folder, gone)
    with whole_file(begun) as aside:
        aside.write_text(dump_recipe(recipe), encoding="utf-8")
    write_json(folder / UNITS, work)
    return True


def _recipe_of(folder: Path) -> CorpusRecipe:
    try:
        return load_recipe(CorpusRecipe, folder / RECIPE)
    except RecipeError as error:
        raise UserError(f"{folder} holds no corpus that this version can go on with. Give another --output.") from error


def _take_apart(folder: Path, gone: Iterable[str]) -> None:
    """Remove what is damaged; what there was stays written down until all of it is there again."""
    for name in gone:
        _remove(folder, name)
        console.warn(f"{name} is damaged or missing and is made again.")
    (folder / MANIFEST).replace(folder / BEFORE)


def _remove(folder: Path, name: str) -> None:
    """A shard goes with its record."""
    path = folder / name
    path.unlink(missing_ok=True)
    if path.parent.name == SHARDS:
        record_path(folder, path.stem).unlink(missing_ok=True)


def _check_mended(folder: Path, records: dict[str, ShardRecord]) -> None:
    """UserError when what was made again of a finished corpus is not what it was. It is taken away, so that the next
    call makes it once more."""
    if not (folder / BEFORE).exists():
        return
    files = json.loads((folder / BEFORE).read_text(encoding="utf-8"))["files"]
    due = {name: file["sha256"] for name, file in files.items() if name.startswith(f"{SHARDS}/") or name == VOCABULARY}
    made = {relative(shard_path(folder, name)): record["sha256"] for name, record in records.items()}
    made[VOCABULARY] = sha256(folder / VOCABULARY)
    other = [name for name in due | made if due.get(name) != made.get(name)]
    for name in other:
        _remove(folder, name)
    if other:
        raise UserError(
            f"{', '.join(other[:5])} could not be made again as before: the content of the sources has changed since "
            f"the corpus in {folder} was made. Put them back as they were, or remove that folder to begin anew."
        )


# The vocabulary


def _vocabulary(folder: Path, recipe: CorpusRecipe, work: list[Unit]) -> Tokenizer:
    """The tokenizer in the folder; loaded or trained, and put there, at the first call."""
    wanted = recipe.vocabulary
    if all((folder / name).exists() for name in TOKENIZER_FILES):
        tokenizer = load_tokenizer(folder)
    elif wanted.path is not None:
        path = Path(wanted.path)
        tokenizer = load_tokenizer(path if path.is_file() else local_folder(wanted.path))
    else:
        console.out.print(f"Training a vocabulary of {wanted.size:,} WordPieces.")
        tokenizer = train_tokenizer(_sample(recipe, work), wanted.size, wanted.lowercase)
    save_tokenizer(tokenizer, folder, max(recipe.sequence_lengths))
    return tokenizer


def _sample(recipe: CorpusRecipe, work: list[Unit]) -> Iterator[str]:
    """As much cleaned text from the beginning of each unit, in a random order of these."""
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
    source = recipe.sources[unit.source]
    cleaner = Cleaner(recipe, source)
    for row in documents(unit, source):
        if isinstance(row, str) and (document := cleaner.document(row)) is not None:
            yield "\n\n".join(document.sentences)


# Stage one


def _shards(
    folder: Path, recipe: CorpusRecipe, work: list[Unit], tokenizer: Tokenizer, workers: int, executor: str
) -> dict[str, ShardRecord]:
    """Make the shards that are not there yet; the records of all, by name."""
    progress = _Progress(folder, work)
    left = [number for number in range(len(work)) if not progress.look(number)]
    _check_disk(folder, progress.total - progress.done, tokenizer)
    with console.bar("Preparing", progress.total, progress.done, unit=console.size) as bar:
        check_bad(*progress.bad(), recipe)
        at_work = set(left)
        for result in run(executor, workers, write_unit, [(folder, recipe, number, work[number]) for number in left]):
            for number in list(at_work) if result is None else [left[result[0]]]:
                if progress.look(number):
                    at_work.discard(number)
            bar.to(progress.done, progress.text())
            check_bad(*progress.bad(), recipe)
    return progress.records()


class _Progress:
    """What the records in the folder say."""

    def __init__(self, folder: Path, work: list[Unit]) -> None:
        self._folder, self._work = folder, work
        self._found: dict[int, dict[str, ShardRecord]] = {}
        self._started, self._first_bytes = time.monotonic(), -1
        self.total = sum(unit.size for unit in work)
        self.done = 0

    def look(self, number: int) -> bool:
        """Whether a unit is finished."""
        records = {name: record for name, record in records_of(self._folder, number) if record is not None}
        self.done += self._size(number, records) - self._size(number, self._found.get(number, {}))
        self._found[number] = records
        return _finished(records)

    def _size(self, number: int, records: dict[str, ShardRecord]) -> int:
        """The finished part of a unit's size, which is that of its text or a guess."""
        size = self._work[number].size
        return (
            size
            if _finished(records)
            else min(size, sum(record["counts"][READ]["bytes"] for record in records.values()))
        )

    def records(self) -> dict[str, ShardRecord]:
        return {name: record for number in sorted(self._found) for name, record in self._found[number].items()}

    def bad(self) -> tuple[int, list[str]]:
        bad = [record["bad"] for record in self.records().values()]
        return sum(one["documents"] for one in bad), [name for one in bad for name in one["named"]]

    def text(self) -> str:
        records = self.records().values()
        read = sum(record["counts"][READ]["bytes"] for record in records)
        if self._first_bytes < 0:
            self._first_bytes = read
        speed = (read - self._first_bytes) / max(1e-9, time.monotonic() - self._started)
        found = sum(record["counts"][READ]["documents"] for record in records)
        tokens = sum(record["tokens"] for record in records)
        return f"{found:,} documents  {tokens:,} tokens  {speed / 1e6:.1f} MB/s"


def _finished(records: dict[str, ShardRecord]) -> bool:
    return any(record["last"] for record in records.values())


def _check_disk(folder: Path, text_bytes: int, tokenizer: Tokenizer) -> None:
    wide = tokenizer.get_vocab_size() > 2**16
    need = int(text_bytes * (DISK_SHARE_WIDE if wide else DISK_SHARE))
    free = shutil.disk_usage(folder).free
    if need > free:
        raise UserError(
            f"The corpus will take about {console.size(need)}, and the disk of {folder} has {console.size(free)} free. "
            "Make room, or give another --output."
        )


def _check_kept(folder: Path, recipe: CorpusRecipe, records: dict[str, ShardRecord]) -> None:
    """UserError when no document is left."""
    if any(record["tokens"] for record in records.values()):
        return
    counts = [record["counts"] for record in records.values()]
    by_rule = {rule: sum(of[rule]["documents"] for of in counts if rule in of) for rule in (READ, *DROPPING)}
    read = by_rule.pop(READ)
    dropped = ", ".join(f"{n:,} {'is' if n == 1 else 'are'} {rule}" for rule, n in by_rule.items() if n)
    bad = [name for record in records.values() for name in record["bad"]["named"]]
    shutil.rmtree(folder)
    raise UserError(
        f"No document of {', '.join(source.path for source in recipe.sources.values())} could be used: {read:,} were "
        f"read, {dropped or 'none was dropped by a rule'}{f'; {bad[0]}' if bad else ''}. Check the sources, or lower "
        f"min_characters ({recipe.min_characters})."
    )


# Stage two


def _tables(
    folder: Path,
    recipe: CorpusRecipe,
    work: list[Unit],
    records: dict[str, ShardRecord],
    tokenizer: Tokenizer,
    workers: int,
    executor: str,
) -> None:
    """Write the table of every shard, and the manifest."""
    names = list(records)
    repeated = find_repeated(folder, names, recipe)
    dropped = {name: [dropped_by_shard[name].flags for dropped_by_shard in repeated.values()] for name in names}
    weights = {name: recipe.sources[records[name]["source"]].weight for name in names}
    size = tokenizer.get_vocab_size()
    tasks = [(folder, recipe, name, weights[name], size, dropped[name]) for name in names]
    tables: dict[str, Table] = {}
    with console.bar("Cutting", len(names)) as bar:
        for result in run(executor, workers, write_table, tasks):
            if result is not None:
                tables[names[result[0]]] = result[1]
                bar.advance()
    in_order = {name: tables[name] for name in names}
    write_json(folder / MANIFEST, make_manifest(folder, recipe, work, records, in_order, repeated, tokenizer))


def verify(folder: Path) -> None:
    """Check every file of a finished corpus; UserError naming those that are not whole."""
    found = damaged(folder)
    if found:
        listed = "".join(f"\n  {name}: {what}" for name, what in found.items())
        raise UserError(
            f"{len(found):,} of the files of {folder} are not as they were:{listed}\n"
            f"`sqzb prepare-corpus {folder / RECIPE} --output {folder}` makes just these again."
        )
    manifest = read_manifest(folder)
    n = len(manifest["files"] | manifest["marks"])
    console.out.print(f"All {n:,} files of {folder} are as they were.", markup=False)
    report(Corpus(folder))
