"""What a corpus says of itself: its manifest, the tables that a person sees, whether its files are as they were."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from sqzb import console
from sqzb.corpus.chunks import SPECIAL_PLACES
from sqzb.corpus.shards import BAD_NAMED, Counts, ShardRecord, record_path, shard_path
from sqzb.corpus.sources import Unit
from sqzb.corpus.store import FORMAT, HELDOUT, MANIFEST, SPLITS, TRAIN, Corpus, read_manifest, relative
from sqzb.corpus.tables import Repeated, Table, table_path
from sqzb.corpus.text import CHANGING, DROPPING, KEPT, READ
from sqzb.files import sha256
from sqzb.recipe import CorpusRecipe, Source
from sqzb.tokenizer import TOKENIZER_FILES, special_ids


def make_manifest(
    folder: Path,
    recipe: CorpusRecipe,
    work: Sequence[Unit],
    records: dict[str, ShardRecord],
    tables: dict[str, Table],
    repeated: Repeated,
    tokenizer: Tokenizer,
) -> dict[str, Any]:
    """All that is known of a finished corpus. It says nothing of when, where and by how many it was made."""
    of_source = {name: _counts(records, repeated, name) for name in recipe.sources}
    bad = [record["bad"] for record in records.values()]
    frequencies = sum((table.frequencies for table in tables.values()), np.zeros((2, tokenizer.get_vocab_size()), int))
    tokens = dict(zip(SPLITS, frequencies.sum(1).tolist(), strict=True))
    return {
        "format": FORMAT,
        "sources": {name: _about(recipe.sources[name], work, name) | {"counts": of_source[name]} for name in of_source},
        "counts": _sum(of_source.values()),
        "bad": {
            "documents": sum(one["documents"] for one in bad),
            "named": [name for one in bad for name in one["named"]][:BAD_NAMED],
        },
        "documents": {split: sum(table.documents[split] for table in tables.values()) for split in SPLITS},
        "tokens": tokens,
        "sequence_lengths": recipe.sequence_lengths,
        "lengths": {str(length): _of_length(length, tables, tokens[TRAIN]) for length in recipe.sequence_lengths},
        "heldout_unigram_nats": _unigram_nats(frequencies),
        "vocab_size": tokenizer.get_vocab_size(),
        "special_ids": special_ids(tokenizer)._asdict(),
        "files": _files(folder, records, tables),
        "marks": {relative(path): _of_file(path) for path in (record_path(folder, name) for name in records)},
    }


def _about(source: Source, work: Sequence[Unit], name: str) -> dict[str, Any]:
    revision = next((unit.revision for unit in work if unit.source == name), None)
    about = {
        "path": source.path,
        "config": source.config,
        "revision": revision,
        "licence": source.licence,
        "documents_are": None
        if source.sentences_per_document is None
        else f"{source.sentences_per_document} consecutive sentences: the source does not say where documents end",
    }
    return {key: value for key, value in about.items() if value is not None}


def _counts(records: dict[str, ShardRecord], repeated: Repeated, source: str) -> Counts:
    """Documents and bytes that were read, kept and taken away by each rule."""
    ours = {name: record for name, record in records.items() if record["source"] == source}
    found = _sum(record["counts"] for record in ours.values())
    kept = found.pop(KEPT)
    for rule, by_shard in repeated.items():
        gone = [by_shard[name] for name in ours]
        found[rule] = {"documents": sum(g.documents for g in gone), "bytes": sum(g.bytes for g in gone)}
        kept = {of: n - found[rule][of] for of, n in kept.items()}
    return {rule: n for rule, n in found.items() if rule == READ or any(n.values())} | {KEPT: kept}


def _sum(all_counts: Any) -> Counts:
    found: Counts = {what: {"documents": 0, "bytes": 0} for what in (READ, *CHANGING, *DROPPING, KEPT)}
    for counts in all_counts:
        for what, of in counts.items():
            before = found.setdefault(what, {"documents": 0, "bytes": 0})
            found[what] = {key: before[key] + n for key, n in of.items()}
    kept = found.pop(KEPT)
    return found | {KEPT: kept}


def _of_length(length: int, tables: dict[str, Table], train_tokens: int) -> dict[str, Any]:
    """Chunks of each split; of the places in training, the share that no token fills; of the tokens, the share that
    is in no chunk."""
    chunks = {split: sum(table.chunks[length][split] for table in tables.values()) for split in SPLITS}
    tokens = sum(table.chunk_tokens[length][TRAIN] for table in tables.values())
    places = length * chunks[TRAIN]
    return {
        "chunks": chunks,
        "padding": round(1 - (tokens + SPECIAL_PLACES * chunks[TRAIN]) / max(1, places), 4),
        "dropped": round(1 - tokens / max(1, train_tokens), 4),
    }


def _unigram_nats(frequencies: Any) -> float | None:
    """Cross-entropy of the held-out tokens under the training tokens' frequencies (each counted once more): the
    loss of a model that knows how often each token comes and nothing else. None without a held-out part."""
    train, heldout = frequencies[0] + 1, frequencies[1]
    if not heldout.sum():
        return None
    return float(-(heldout * np.log(train / train.sum())).sum() / heldout.sum())


def _files(folder: Path, records: dict[str, ShardRecord], tables: dict[str, Table]) -> dict[str, dict[str, Any]]:
    """Size and sha256 of every file, by its path in the folder."""
    of_tokenizer = {name: _of_file(folder / name) for name in TOKENIZER_FILES}
    of_shards = {
        relative(shard_path(folder, n)): {k: record[k] for k in ("bytes", "sha256")} for n, record in records.items()
    }
    of_tables = {relative(table_path(folder, n)): {"bytes": t.bytes, "sha256": t.sha256} for n, t in tables.items()}
    return of_tokenizer | of_shards | of_tables


def _of_file(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def damaged(folder: Path) -> dict[str, str]:
    """Of a finished corpus, the files that are not what they were when it was finished: what is wrong with each."""
    manifest = read_manifest(folder)
    files = manifest["files"] | manifest["marks"]
    found = {}
    with console.bar("Checking", sum(file["bytes"] for file in files.values()), unit=console.size) as bar:
        for name, file in files.items():
            path = folder / name
            if not path.is_file():
                found[name] = "missing"
            elif path.stat().st_size != file["bytes"]:
                found[name] = f"{path.stat().st_size:,} bytes in place of {file['bytes']:,}"
            elif sha256(path) != file["sha256"]:
                found[name] = "its content has changed"
            bar.advance(file["bytes"], name)
    return found


def report(corpus: Corpus) -> None:
    """What each rule took away, and what there is to train on."""
    manifest = corpus.manifest
    read = manifest["counts"][READ]["bytes"]
    rows = [
        (rule, f"{of['documents']:,}", console.size(of["bytes"]), f"{of['bytes'] / max(1, read):.2%}")
        for rule, of in manifest["counts"].items()
        if rule in (READ, KEPT) or any(of.values())
    ]
    if manifest["bad"]["documents"]:
        rows.insert(1, ("could not be read", f"{manifest['bad']['documents']:,}", "", ""))
    console.table("From text to documents", ("", "documents", "bytes", "share"), rows)
    lengths = [
        (length, *(f"{of['chunks'][split]:,}" for split in SPLITS), f"{of['padding']:.1%}", f"{of['dropped']:.1%}")
        for length, of in manifest["lengths"].items()
    ]
    console.table("Chunks", ("length", "for training", "held out", "padding", "tokens dropped"), lengths)
    tokens, nats = manifest["tokens"], manifest["heldout_unigram_nats"]
    console.out.print(
        f"{corpus.folder / MANIFEST}: {tokens[TRAIN]:,} tokens for training, {tokens[HELDOUT]:,} held out, "
        f"a vocabulary of {manifest['vocab_size']:,}"
        + ("." if nats is None else f"; the loss of knowing their frequencies alone is {nats:.3f} nats."),
        markup=False,
    )
