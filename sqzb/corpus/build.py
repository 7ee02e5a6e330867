"""prepare-corpus: sources to a finished corpus folder, a unit of work after the other.

Each unit becomes one shard a split, and a mark with its counts, written last; a command that was stopped goes on
with the units that have no mark. What a shard holds follows from its unit and the recipe alone.
"""

import hashlib
import json
import math
import os
import shutil
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from sqzb import console
from sqzb.corpus.chunks import SPECIAL_PLACES, cut
from sqzb.corpus.sources import Unit, documents, units
from sqzb.corpus.store import HELDOUT, MANIFEST, SPLITS, TRAIN, Corpus, read_shard, write_shard
from sqzb.corpus.text import sentences
from sqzb.draws import Permutation
from sqzb.errors import UserError
from sqzb.files import whole_file, write_json
from sqzb.hub import local_folder
from sqzb.recipe import CorpusRecipe, dump_recipe
from sqzb.tokenizer import load_tokenizer, save_tokenizer, special_ids, train_tokenizer

RECIPE, MARKS, UNITS = "recipe.yaml", "marks", "units.json"
DOCUMENTS_AT_ONCE = 64


def build(recipe: CorpusRecipe, workers: int) -> Corpus:
    """Run the recipe with so many processes, or go on with it where it was stopped."""
    folder = Path(recipe.output)
    work = [unit for name, source in recipe.sources.items() for unit in units(name, source)]
    if not work:
        raise UserError("The sources hold no rows at all. Check that they are the right files.")
    _claim(folder, recipe, work)
    tokenizer = _vocabulary(folder, recipe, work)
    counts = _run(folder, recipe, work, workers)
    if not counts["chunks", TRAIN, recipe.sequence_lengths[0]]:
        shutil.rmtree(folder)
        raise UserError(
            f"No document of {', '.join(source.path for source in recipe.sources.values())} could be used: "
            f"{counts['documents_read']:,} were read and {counts['documents_dropped_short']:,} of them are under "
            f"{recipe.min_characters} characters. Check the sources, or lower min_characters."
        )
    write_json(folder / MANIFEST, _manifest(folder, recipe, tokenizer, counts, len(work)))
    shutil.rmtree(folder / MARKS)
    return Corpus(folder)


def _claim(folder: Path, recipe: CorpusRecipe, work: list[Unit]) -> None:
    """Make the folder ours: a new or empty one, or one where the same recipe was stopped on the same sources."""
    if (folder / MANIFEST).exists():
        raise UserError(f"{folder} holds a finished corpus. Use it as it is, or give another --output.")
    stopped, listed = folder / RECIPE, folder / MARKS / UNITS
    if stopped.exists():
        if stopped.read_text(encoding="utf-8") != dump_recipe(recipe):
            raise UserError(
                f"{folder} holds an unfinished corpus of another recipe ({stopped}). Give another --output, or "
                "remove that folder."
            )
        if listed.exists() and json.loads(listed.read_text(encoding="utf-8")) != [list(unit) for unit in work]:
            raise UserError(
                f"The sources have changed since the unfinished corpus in {folder} was begun. Put them back as they "
                "were, or remove that folder to begin anew."
            )
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not empty and holds no corpus. Give another --output.")
    with whole_file(stopped) as aside:
        aside.write_text(dump_recipe(recipe), encoding="utf-8")
    write_json(listed, work)


def _vocabulary(folder: Path, recipe: CorpusRecipe, work: list[Unit]) -> Tokenizer:
    """The tokenizer in the folder; loaded or trained, and put there, at the first call."""
    if (folder / "tokenizer_config.json").exists():  # the last of its files
        return load_tokenizer(folder)
    wanted = recipe.vocabulary
    if wanted.path is not None:
        path = Path(wanted.path)
        tokenizer = load_tokenizer(path if path.is_file() else local_folder(wanted.path))
    else:
        console.out.print(f"Training a vocabulary of {wanted.size:,} WordPieces.")
        sample = islice(_sample(recipe, work), wanted.sample_documents)
        tokenizer = train_tokenizer(sample, wanted.size, wanted.lowercase)
    save_tokenizer(tokenizer, folder, max(recipe.sequence_lengths))
    return tokenizer


def _sample(recipe: CorpusRecipe, work: list[Unit]) -> Iterator[str]:
    """Documents in a random order of units, so that a short sample has something of every source."""
    for index in Permutation(len(work), recipe.seed)[range(len(work))]:
        yield from documents(work[index], recipe.sources[work[index].source])


def _run(folder: Path, recipe: CorpusRecipe, work: list[Unit], workers: int) -> Counter[Any]:
    """Do what has no mark yet; the counts of all units."""
    left = [index for index in range(len(work)) if not _mark(folder, index).exists()]
    _tokenizers.pop(folder, None)  # of an earlier corpus in this folder
    with console.bar("Preparing", len(work), len(work) - len(left)) as bar:
        if workers == 1:
            finished: Iterable[int] = (_do(folder, recipe, index, work[index]) for index in left)
            for _ in finished:
                bar.advance()
        else:
            _run_parallel(folder, recipe, work, left, workers, bar)
    counts: Counter[Any] = Counter()
    for index in range(len(work)):
        counts.update({_key(name): n for name, n in json.loads(_mark(folder, index).read_text()).items()})
    return counts


def _run_parallel(
    folder: Path, recipe: CorpusRecipe, work: list[Unit], left: list[int], workers: int, bar: console.Bar
) -> None:
    # Spawned, not forked: a fork would copy the threads' locks of tokenizers and pyarrow in an unknown state.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(_do, folder, recipe, index, work[index]) for index in left]
        try:
            for future in as_completed(futures):
                future.result()
                bar.advance()
        except BaseException:
            # Waits for the units at work alone; leaving the block would wait for all of them.
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _mark(folder: Path, index: int) -> Path:
    return folder / MARKS / f"{index:05d}.json"


def _key(name: str) -> Any:
    """Counts are kept under a name, or under (what, split, length), which JSON writes as what/split/length."""
    parts = name.split("/")
    return (parts[0], parts[1], int(parts[2])) if len(parts) == 3 else name


_tokenizers: dict[Path, Tokenizer] = {}


def _do(folder: Path, recipe: CorpusRecipe, index: int, unit: Unit) -> int:
    """One unit from text to its shards and its mark."""
    if folder not in _tokenizers:
        _tokenizers[folder] = load_tokenizer(folder)
        # A text that speaks of "[SEP]" means the word.
        _tokenizers[folder].encode_special_tokens = True
    counts: Counter[str] = Counter()
    shards = {split: _Shard(recipe) for split in SPLITS}
    for text_key, tokens in _tokenised(recipe, unit, _tokenizers[folder], counts):
        heldout = text_key < recipe.heldout * 2.0**64
        shards[HELDOUT if heldout else TRAIN].add(text_key, tokens)
    for split, shard in shards.items():
        counts.update(shard.write(folder / split / f"{index:05d}.safetensors", split))
    write_json(_mark(folder, index), counts)
    return index


def _tokenised(
    recipe: CorpusRecipe, unit: Unit, tokenizer: Tokenizer, counts: Counter[str]
) -> Iterator[tuple[int, list[list[int]]]]:
    """A key from its text, and the tokens of each sentence, for every document of the unit that is kept."""
    texts = iter(documents(unit, recipe.sources[unit.source]))
    while batch := list(islice(texts, DOCUMENTS_AT_ONCE)):
        split = [sentences(text, recipe.language, recipe.min_characters, counts) for text in batch]
        encoded = iter(tokenizer.encode_batch_fast([s for found in split for s in found], add_special_tokens=False))
        for found in split:
            if found:
                text_key = int.from_bytes(hashlib.blake2b("\n".join(found).encode(), digest_size=8).digest(), "big")
                yield text_key, [ids for encoding in islice(encoded, len(found)) if (ids := encoding.ids)]


class _Shard:
    """Documents gathered towards one shard."""

    def __init__(self, recipe: CorpusRecipe) -> None:
        self._recipe = recipe
        # Packed: a unit may be a file of gigabytes, and a list takes ten times the memory.
        self._tokens, self._sentences = array("I"), array("I")
        self._documents = 0
        self._starts: dict[int, list[int]] = {length: [] for length in recipe.sequence_lengths}

    def add(self, text_key: int, sentences: list[list[int]]) -> None:
        bounds = [len(self._tokens)]
        for ids in sentences:
            self._tokens.extend(ids)
            bounds.append(len(self._tokens))
        self._sentences.extend(bounds[:-1])
        self._documents += 1
        for length, starts in self._starts.items():
            starts += cut(bounds, length, self._recipe.short_seq_prob, self._recipe.seed, length, text_key)

    def write(self, path: Path, split: str) -> dict[str, int]:
        """Write the shard unless it is empty; its counts."""
        if not self._tokens:
            return {}
        tokens = np.frombuffer(self._tokens, np.uint32)
        arrays: dict[str, NDArray[Any]] = {
            "tokens": tokens.astype(np.uint16) if tokens.max() < 2**16 else tokens,
            "sentences": np.array(self._sentences, np.uint32),
        }
        for length, starts in self._starts.items():
            arrays[f"chunks_{length}"] = np.array([*starts, len(self._tokens)], np.uint32)
        write_shard(path, arrays)
        chunks = {f"chunks/{split}/{length}": len(starts) for length, starts in self._starts.items()}
        return {f"tokens_{split}": len(self._tokens), f"documents_{split}": self._documents, **chunks}


def _manifest(
    folder: Path, recipe: CorpusRecipe, tokenizer: Tokenizer, counts: Counter[Any], n_units: int
) -> dict[str, Any]:
    names = [f"{index:05d}" for index in range(n_units)]
    shards = {split: [n for n in names if (folder / split / f"{n}.safetensors").exists()] for split in SPLITS}
    totals = {key: count for key, count in counts.items() if isinstance(key, str)}
    lengths = {
        str(length): {
            "chunks": {split: counts["chunks", split, length] for split in SPLITS},
            "padding": _padding(totals[f"tokens_{TRAIN}"], counts["chunks", TRAIN, length], length),
        }
        for length in recipe.sequence_lengths
    }
    return {
        "sequence_lengths": recipe.sequence_lengths,
        "vocab_size": tokenizer.get_vocab_size(),
        "vocab_sha256": hashlib.sha256((folder / "vocab.txt").read_bytes()).hexdigest(),
        "special_ids": special_ids(tokenizer)._asdict(),
        "counts": totals,
        "lengths": lengths,
        "heldout_unigram_nats": _unigram_nats(folder, shards, tokenizer.get_vocab_size()),
        "shards": shards,
    }


def _padding(tokens: int, chunks: int, length: int) -> float:
    """The share of a batch's places that no token fills."""
    return round(1 - (tokens + SPECIAL_PLACES * chunks) / (length * chunks), 4)


def _unigram_nats(folder: Path, shards: dict[str, list[str]], vocab_size: int) -> float | None:
    """Cross-entropy of the held-out tokens under the training tokens' frequencies (each counted once more): the
    loss of a model that knows how often each token comes and nothing else. None without a held-out part."""
    frequencies = {split: np.zeros(vocab_size) for split in SPLITS}
    for split, names in shards.items():
        for name in names:
            tokens = read_shard(folder / split / f"{name}.safetensors")["tokens"]
            frequencies[split] += np.bincount(tokens, minlength=vocab_size)
    train, heldout = frequencies[TRAIN] + 1, frequencies[HELDOUT]
    if not heldout.sum():
        return None
    nats = float(-(heldout * np.log(train / train.sum())).sum() / heldout.sum())
    return nats if math.isfinite(nats) else None


def report(corpus: Corpus) -> None:
    """The closing table."""
    manifest, counts = corpus.manifest, corpus.manifest["counts"]
    rows = [(name.replace("_", " "), f"{count:,}") for name, count in counts.items()]
    for length, figures in manifest["lengths"].items():
        rows += [(f"chunks of {length}, {split}", f"{n:,}") for split, n in figures["chunks"].items()]
        rows.append((f"padding at {length}", f"{figures['padding']:.1%}"))
    rows.append(("vocabulary", f"{manifest['vocab_size']:,}"))
    if manifest["heldout_unigram_nats"] is not None:
        rows.append(("held-out unigram baseline", f"{manifest['heldout_unigram_nats']:.3f} nats"))
    console.table(f"Corpus {corpus.folder}", ("", "count"), rows)
