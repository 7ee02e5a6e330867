"""The manifest of a corpus: its content, printed as tables, and checked against its files."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from sqzb import console
from sqzb.console import counted
from sqzb.corpus import seen
from sqzb.corpus.chunks import SPECIAL_PLACES
from sqzb.corpus.shards import BAD_NAMED, Counts, ShardRecord, record_path, shard_path
from sqzb.corpus.sources import Unit
from sqzb.corpus.store import (
    FORMAT,
    HELDOUT,
    MANIFEST,
    SPLITS,
    TRAIN,
    Corpus,
    read_manifest,
    relative,
)
from sqzb.corpus.tables import Repeated, Table, table_path
from sqzb.corpus.text import CHANGING, DROPPING, KEPT, READ
from sqzb.files import sha256
from sqzb.recipe import CorpusRecipe, Source
from sqzb.recipe.strict_yaml import parse
from sqzb.tokenizer import TOKENIZER_FILES, special_ids

RECIPE, UNITS = "recipe.yaml", "units.json"  # the recipe, and the units of all its sources
# Keys whose change leaves a finished corpus as it is.
WITHOUT_EFFECT = {"output", "max_bad_documents"}

# Making


def make_manifest(
    folder: Path,
    recipe: CorpusRecipe,
    work: Sequence[Unit],
    records: dict[str, ShardRecord],
    tables: dict[str, Table],
    repeated: Repeated,
    tokenizer: Tokenizer,
) -> dict[str, Any]:
    """Return the manifest of a corpus whose files are all written.

    The manifest does not depend on the time and place of the work, or on the number of workers.

    Args:
        folder: folder of the corpus.
        recipe: its recipe.
        work: all units of all sources.
        records: record of each shard, by name.
        tables: table of each shard, by name.
        repeated: documents that were dropped as duplicates.
        tokenizer: tokenizer of the corpus.
    """
    sources: dict[str, Any] = {}
    counts: list[Counts] = []
    for name, source in recipe.sources.items():
        of_source = _counts(records, repeated, name)
        sources[name] = _about(source, work, name) | {"counts": of_source}
        counts.append(of_source)

    vocab_size = tokenizer.get_vocab_size()
    frequencies = np.zeros((len(SPLITS), vocab_size), np.int64)
    for table in tables.values():
        frequencies += table.frequencies
    tokens = dict(zip(SPLITS, frequencies.sum(1).tolist(), strict=True))

    documents: dict[str, int] = {}
    for split in SPLITS:
        documents[split] = sum(table.documents[split] for table in tables.values())
    lengths: dict[str, Any] = {}
    for length in recipe.sequence_lengths:
        lengths[str(length)] = _of_length(length, tables, tokens[TRAIN])

    return {
        "format": FORMAT,
        "sources": sources,
        "counts": _sum(counts),
        "bad": _unreadable(records),
        "documents": documents,
        "tokens": tokens,
        "sequence_lengths": recipe.sequence_lengths,
        "lengths": lengths,
        "heldout_unigram_nats": _unigram_nats(frequencies),
        "seen": seen.total(records.values(), frequencies, special_ids(tokenizer).unk),
        "vocab_size": vocab_size,
        "vocab_asked": recipe.vocabulary.size if recipe.vocabulary.path is None else None,
        "special_ids": special_ids(tokenizer)._asdict(),
        "files": _files(folder, records, tables),
        "marks": _record_files(folder, records),
        "recipe_sha256": recipe_sha256(folder / RECIPE),
    }


def recipe_sha256(path: Path) -> str:
    """Return the SHA-256 of a recipe's values, less those without effect on a finished corpus.

    The values are those in the file, so that a key of a later version does not change them.

    Raises:
        OSError: the file cannot be read.
        ValueError, yaml.YAMLError: the file is not YAML in UTF-8.
    """
    values = parse(path.read_text(encoding="utf-8"))
    if isinstance(values, dict):
        values = {key: value for key, value in values.items() if key not in WITHOUT_EFFECT}
    return hashlib.sha256(json.dumps(values, default=str).encode()).hexdigest()


def _about(source: Source, work: Sequence[Unit], name: str) -> dict[str, Any]:
    """Return the origin of a source, without the keys that do not apply."""
    revision = next((unit.revision for unit in work if unit.source == name), None)
    about: dict[str, Any] = {
        "path": source.path,
        "config": source.config,
        "revision": revision,
        "licence": source.licence,
    }
    if source.sentences_per_document is not None:
        sentences = f"{source.sentences_per_document} consecutive sentences"
        about["documents_are"] = f"{sentences}: the source does not say where documents end"
    return {key: value for key, value in about.items() if value is not None}


def _counts(records: dict[str, ShardRecord], repeated: Repeated, source: str) -> Counts:
    """Return documents and bytes of a source that were read, kept and taken away by each rule."""
    ours = {name: record for name, record in records.items() if record["source"] == source}
    counts = _sum(record["counts"] for record in ours.values())
    kept = counts.pop(KEPT)

    for rule, by_shard in repeated.items():
        dropped = [by_shard[name] for name in ours]
        documents = sum(of_shard.documents for of_shard in dropped)
        n_bytes = sum(of_shard.bytes for of_shard in dropped)
        counts[rule] = {"documents": documents, "bytes": n_bytes}
        kept["documents"] -= documents
        kept["bytes"] -= n_bytes

    used = {rule: count for rule, count in counts.items() if rule == READ or any(count.values())}
    return used | {KEPT: kept}


def _sum(all_counts: Iterable[Counts]) -> Counts:
    """Add up counts by rule. Known rules come first, in the order of their use; KEPT is last."""
    total: Counts = {}
    for rule in (READ, *CHANGING, *DROPPING, KEPT):
        total[rule] = {"documents": 0, "bytes": 0}
    for counts in all_counts:
        for rule, count in counts.items():
            of_rule = total.setdefault(rule, {"documents": 0, "bytes": 0})
            of_rule["documents"] += count["documents"]
            of_rule["bytes"] += count["bytes"]
    kept = total.pop(KEPT)
    return total | {KEPT: kept}


def _unreadable(records: dict[str, ShardRecord]) -> dict[str, Any]:
    """Return the number of unreadable documents, and location and reason of the first ones."""
    documents = 0
    named: list[str] = []
    for record in records.values():
        documents += record["bad"]["documents"]
        named += record["bad"]["named"]
    return {"documents": documents, "named": named[:BAD_NAMED]}


def _of_length(length: int, tables: dict[str, Table], train_tokens: int) -> dict[str, Any]:
    """Return the figures of a sequence length.

    chunks: their number in each split. padding: share of the positions in training that no token
    fills. dropped: share of the tokens for training that are in no chunk.
    """
    chunks: dict[str, int] = {}
    for split in SPLITS:
        chunks[split] = sum(table.chunks[length][split] for table in tables.values())
    tokens = sum(table.chunk_tokens[length][TRAIN] for table in tables.values())

    positions = length * chunks[TRAIN]
    filled = tokens + SPECIAL_PLACES * chunks[TRAIN]
    return {
        "chunks": chunks,
        "padding": round(1 - filled / max(1, positions), 4),
        "dropped": round(1 - tokens / max(1, train_tokens), 4),
    }


def _unigram_nats(frequencies: NDArray[Any]) -> float | None:
    """Return the loss on held-out tokens of a model that knows only how frequent each token is.

    This loss is the cross-entropy of the held-out tokens under the frequencies of the training
    tokens, each plus 1. None if nothing is held out.

    Args:
        frequencies: (2, vocabulary) occurrences of each token, in training and held out.
    """
    train, heldout = frequencies[0] + 1, frequencies[1]
    if not heldout.sum():
        return None
    return float(-(heldout * np.log(train / train.sum())).sum() / heldout.sum())


def _files(
    folder: Path,
    records: dict[str, ShardRecord],
    tables: dict[str, Table],
) -> dict[str, dict[str, Any]]:
    """Return size and sha256 of each file but the records, by its path in the folder."""
    files: dict[str, dict[str, Any]] = {}
    for name in TOKENIZER_FILES:
        files[name] = _of_file(folder / name)
    for name, record in records.items():
        path = relative(shard_path(folder, name))
        files[path] = {"bytes": record["bytes"], "sha256": record["sha256"]}
    for name, table in tables.items():
        path = relative(table_path(folder, name))
        files[path] = {"bytes": table.bytes, "sha256": table.sha256}
    return files


def _record_files(folder: Path, records: dict[str, ShardRecord]) -> dict[str, dict[str, Any]]:
    """Return size and sha256 of each record and of the list of units, by path in the folder."""
    files: dict[str, dict[str, Any]] = {UNITS: _of_file(folder / UNITS)}
    for name in records:
        path = record_path(folder, name)
        files[relative(path)] = _of_file(path)
    return files


def _of_file(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


# Checking


def damaged(folder: Path) -> dict[str, str]:
    """Return the files of a finished corpus that have changed, with the problem of each.

    Raises:
        UserError: the folder holds no finished corpus.
    """
    manifest = read_manifest(folder)
    files = manifest["files"] | manifest["marks"]
    total = sum(file["bytes"] for file in files.values())
    problems: dict[str, str] = {}
    with console.bar("Checking", total, unit=console.size) as bar:
        for name, file in files.items():
            problem = _problem(folder / name, file)
            if problem is not None:
                problems[name] = problem
            bar.advance(file["bytes"], name)
    return problems


def _problem(path: Path, due: dict[str, Any]) -> str | None:
    """Return how a file differs from its entry in the manifest; None if it does not."""
    if not path.is_file():
        return "missing"
    size = path.stat().st_size
    if size != due["bytes"]:
        return f"{counted(size, 'byte')} in place of {due['bytes']:,}"
    if sha256(path) != due["sha256"]:
        return "its content has changed"
    return None


# Printing


def report(corpus: Corpus) -> None:
    """Print the losses by rule, the numbers of chunks and tokens, and the text that is not seen."""
    manifest = corpus.manifest
    _print_counts(manifest)
    seen_rows = seen.rows(manifest)
    if seen_rows:
        console.table("From documents to tokens", ("", "count", "share"), seen_rows)
    _print_chunks(manifest)

    tokens = manifest["tokens"]
    nats = manifest["heldout_unigram_nats"]
    loss = "."
    if nats is not None:
        loss = f". A model that knows only token frequencies has a loss of {nats:.3f} nats."
    console.out.print(
        f"{corpus.folder / MANIFEST}: {tokens[TRAIN]:,} tokens for training, "
        f"{tokens[HELDOUT]:,} held out, vocabulary of {manifest['vocab_size']:,}{loss}",
    )
    seen.warn(manifest)


def _print_counts(manifest: dict[str, Any]) -> None:
    bytes_read = max(1, manifest["counts"][READ]["bytes"])
    rows: list[tuple[str, str, str, str]] = []
    for rule, count in manifest["counts"].items():
        if rule in (READ, KEPT) or any(count.values()):
            share = f"{count['bytes'] / bytes_read:.1%}"
            rows.append((rule, f"{count['documents']:,}", console.size(count["bytes"]), share))
    unreadable = manifest["bad"]["documents"]
    if unreadable:
        rows.insert(1, ("could not be read", f"{unreadable:,}", "", ""))
    console.table("From text to documents", ("", "documents", "bytes", "share"), rows)


def _print_chunks(manifest: dict[str, Any]) -> None:
    rows: list[tuple[str, ...]] = []
    for length, of_length in manifest["lengths"].items():
        chunks = [f"{of_length['chunks'][split]:,}" for split in SPLITS]
        shares = [f"{of_length[share]:.1%}" for share in ("padding", "dropped")]
        rows.append((length, *chunks, *shares))
    heads = ("length", "for training", "held out", "padding", "tokens dropped")
    console.table("Chunks", heads, rows)
