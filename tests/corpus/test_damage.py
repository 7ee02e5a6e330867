"""Damaged files: reading them ends, raises only UserError, and loses no document silently."""

import bz2
import faulthandler
import gzip
import json
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from examples import scaled
from sqzb.corpus.build import build
from sqzb.corpus.formats.common import LONGEST_DOCUMENT, UnreadableDocument
from sqzb.corpus.sources import documents, units
from sqzb.errors import UserError
from sqzb.recipe import CorpusRecipe, Source

SECONDS = 20  # of a core for an example, which takes milliseconds: what takes longer hangs

# About 500 files in all, and 3,300 in `make soak`.
many = settings(max_examples=scaled(45), suppress_health_check=list(HealthCheck))
few = settings(max_examples=scaled(6), suppress_health_check=list(HealthCheck))

TEXTS = [
    f"Document {n} says «{'stone and water ' * (n % 4)}» 😀\nand שלום in its line {n * 7919}."
    for n in range(14)
]


def _sealed_zst(content: bytes) -> bytes:
    """Compress as the command zstd does, with a checksum at the end, which pyarrow leaves out."""
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    frame = bytearray(sink.getvalue().to_pybytes())
    frame[4] |= 4  # the header's flag for it
    return bytes(frame) + (xxhash.xxh64(content).intdigest() % 2**32).to_bytes(4, "little")


def _parquet(compression: str, dictionary: bool, version: str) -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.table({"id": list(range(len(TEXTS))), "text": TEXTS})
    pq.write_table(
        table,
        sink,
        row_group_size=5,
        data_page_size=150,
        write_batch_size=2,
        use_dictionary=dictionary,
        compression=compression,
        data_page_version=version,
        write_page_checksum=True,
    )
    content: bytes = sink.getvalue().to_pybytes()
    return content


LINES = [
    (json.dumps({"id": n, "text": text}, ensure_ascii=False) + "\n").encode()
    for n, text in enumerate(TEXTS)
]
BLOCKS = [f"{text}\n\n".encode() for text in TEXTS]
PAGES = [
    f'<doc id="{n}" title="T{n}">\nT{n}\n\n{text}\n</doc>\n'.encode()
    for n, text in enumerate(TEXTS)
]
JSONL = b"".join(LINES)

SEALED = {  # formats with checksums
    "none.parquet": _parquet("none", False, "1.0"),
    "dictionary.parquet": _parquet("none", True, "2.0"),
    "snappy.parquet": _parquet("snappy", True, "1.0"),
    "zstd.parquet": _parquet("zstd", False, "2.0"),
    "a.jsonl.gz": gzip.compress(JSONL, mtime=0),
    "a.jsonl.zst": _sealed_zst(JSONL),
    "a.jsonl.bz2": bz2.compress(JSONL),
}
PLAIN = {
    "a.jsonl": LINES,
    "blocks.txt": BLOCKS,
    "wiki_00": PAGES,
    "wiki_01": LINES,
}  # the bytes of each document
WHOLE = SEALED | {name: b"".join(parts) for name, parts in PLAIN.items()}

Damage = Callable[[bytes], bytes]


@st.composite
def one_damage(draw: st.DrawFn) -> Damage:
    share = draw(st.floats(0, 1, exclude_max=True) | st.floats(0.9, 1, exclude_max=True))
    length = draw(st.integers(1, 3) | st.integers(1, 400))
    noise = draw(st.binary(min_size=length, max_size=length))
    ways: list[Callable[[bytes, int], bytes]] = [
        lambda whole, at: whole[:at] + bytes([whole[at] ^ (noise[0] or 1)]) + whole[at + 1 :],
        lambda whole, at: whole[:at],
        lambda whole, at: whole[:at] + whole[at + length :],
        lambda whole, at: whole[:at] + noise + whole[at:],
        lambda whole, at: whole[:at] + noise[: len(whole) - at] + whole[at + length :],
        lambda whole, at: whole[:at] + bytes(min(length, len(whole) - at)) + whole[at + length :],
    ]
    way = draw(st.sampled_from(ways))
    return lambda whole: way(whole, int(share * len(whole))) if whole else whole


@st.composite
def damages(draw: st.DrawFn) -> Damage:
    several = draw(st.lists(one_damage(), min_size=1, max_size=3))

    def all_of_them(whole: bytes) -> bytes:
        for damage in several:
            whole = damage(whole)
        return whole

    return all_of_them


@contextmanager
def no_hang() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise AssertionError(f"not ended after {SECONDS} s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    faulthandler.dump_traceback_later(
        15 * SECONDS, exit=True
    )  # a library's loop does not let a signal through
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged")


def source_of(path: Path) -> Source:
    if path.name == "blocks.txt":
        return Source(path=str(path), txt_documents="blank-lines")
    return Source(path=str(path))


def write(path: Path, content: bytes) -> Source:
    path.unlink(missing_ok=True)  # what is open, or mapped into memory, is not changed
    path.write_bytes(content)
    return source_of(path)


def read(source: Source) -> tuple[list[str], list[UnreadableDocument]]:
    rows = [row for unit in units("s", source) for row in documents(unit, source)]
    return [row for row in rows if isinstance(row, str)], [
        row for row in rows if isinstance(row, UnreadableDocument)
    ]


@pytest.mark.parametrize("name", WHOLE)
def test_whole_files_are_whole(name: str, folder: Path) -> None:
    found, bad = read(write(folder / name, WHOLE[name]))
    assert not bad and [text.strip() for text in found] == TEXTS


@many
@given(damage=damages())
@pytest.mark.parametrize("name", SEALED)
def test_a_format_with_checksums_loses_and_alters_nothing_in_silence(
    name: str, folder: Path, damage: Damage
) -> None:
    source = write(folder / name, damage(SEALED[name]))
    with no_hang():
        try:
            found, bad = read(source)
        except UserError as error:
            assert name in str(error)
            return
    assert all(name in row.where and row.why for row in bad)
    if not bad:
        assert found == TEXTS
    elif name.endswith(".parquet"):  # each page has a checksum, of the other formats only the end
        assert set(found) <= set(TEXTS)


def alike(one: bytes, other: bytes) -> int:
    """How many bytes are the same from the start."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def undamaged(parts: list[bytes], damaged: bytes) -> tuple[int, int]:
    """How many documents lie wholly before the first byte that differs, and wholly behind the last.

    Before a document behind it, the end of line and the blank line must be undamaged too.
    """
    whole = b"".join(parts)
    before = alike(whole, damaged)
    behind = min(alike(whole[::-1], damaged[::-1]), len(damaged) - before, len(whole) - before)
    ends = list(accumulate(map(len, parts)))
    starts = [0, *ends[:-1]]
    return sum(end <= before for end in ends), sum(
        start - 2 >= len(whole) - behind for start in starts
    )


@many
@given(damage=damages())
@pytest.mark.parametrize("name", PLAIN)
def test_plain_text_changes_where_it_is_damaged_alone(
    name: str, folder: Path, damage: Damage
) -> None:
    whole = WHOLE[name]
    expected, _ = read(write(folder / name, whole))
    damaged = damage(whole)
    source = write(folder / name, damaged)
    with no_hang():
        try:
            found, bad = read(source)
        except UserError as error:
            assert not damaged and f"{name} is empty" in str(error)
            return
    assert all(name in row.where and row.why for row in bad)
    if name.startswith("wiki") and damaged[:1] != whole[:1]:  # which tells tags from JSON
        assert bad
        return
    before, behind = undamaged(PLAIN[name], damaged)
    assert found[:before] == expected[:before]
    assert found[len(found) - behind :] == expected[len(expected) - behind :]


@few
@given(damage=damages())
@pytest.mark.parametrize("name", WHOLE)
def test_a_corpus_of_damaged_files_counts_the_bad_or_is_refused(
    name: str, folder: Path, corpus_recipe: CorpusRecipe, damage: Damage
) -> None:
    source = write(folder / name, damage(WHOLE[name]))
    try:
        found, bad = read(source)
    except UserError:
        found, bad = [], []
    lost = sum(row.documents for row in bad)
    output = folder / "corpus"
    shutil.rmtree(output, ignore_errors=True)
    for allowed in (0, 10**6):  # the second goes on with what the first has made
        recipe = corpus_recipe.model_copy(
            update={
                "output": str(output),
                "sources": {"s": source},
                "min_characters": 10,
                "heldout": 0.0,
                "max_bad_documents": allowed,
            }
        )
        with no_hang():
            try:
                manifest = build(recipe, workers=1).manifest
            except UserError as error:
                assert name in str(error)
                assert lost > allowed or not found
                if found:
                    assert "max_bad_documents" in str(error) and bad[0].where in str(error)
                continue
        assert lost <= allowed and manifest["bad"]["documents"] == lost
        assert (
            manifest["bad"]["named"]
            == [f"{row.where} {row.why}" for row in bad][: len(manifest["bad"]["named"])]
        )
        assert manifest["counts"]["read"]["documents"] == len(found)


# Odd text that is not damaged


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.jsonl", '{"text": "%s"}\n'),
        ("blocks.txt", "%s\n\n"),
        ("wiki_00", "<doc >\n%s\n</doc>\n"),
    ],
)
def test_a_line_of_50_mb_is_no_document_and_hides_none(name: str, form: str, folder: Path) -> None:
    long = "word " * 10**7
    source = write(
        folder / name,
        "".join(form % text for text in ("one", long, "two", long[:1000], "three")).encode(),
    )
    with no_hang():
        found, [bad] = read(source)
    assert [text.strip() for text in found] == ["one", "two", long[:1000].strip(), "three"]
    assert "is over 32 MiB long" in bad.why and re.search(r":\d$", bad.where)


def test_a_line_just_short_enough_is_a_document(folder: Path) -> None:
    text = "a" * (LONGEST_DOCUMENT - 20)
    assert read(write(folder / "a.jsonl", f'{{"text": "{text}"}}\n'.encode())) == ([text], [])


ODD = {
    "nul": "NUL \0 in \0\0 a text.",
    "emoji": "A family 👨‍👩‍👧‍👦, a flag 🇩🇪, a skin 👍🏽.",
    "right to left": "שלום עולם. مرحبا بالعالم‏! \u202eabc\u202c",
    "marks": "e\u0301 \ufffd \ufeff \u2028 \x85 \x1c \x0b \x0c",
    "beyond": "\U0010ffff \ue000 \x7f",
}


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "blocks.txt", "wiki_00", "a.parquet"])
def test_odd_text_comes_as_it_is(name: str, folder: Path, corpus_recipe: CorpusRecipe) -> None:
    texts = list(ODD.values())
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    if name == "a.parquet":
        pq.write_table(pa.table({"text": texts}), folder / name)
    else:
        by_name = {
            "blocks.txt": "\n\n".join(texts).encode(),
            "a.jsonl.gz": gzip.compress(lines),
            "wiki_00": "".join(f"<doc >\n{text}\n</doc>\n" for text in texts).encode(),
        }
        write(folder / name, by_name.get(name, lines))
    source = source_of(folder / name)
    found, bad = read(source)
    assert not bad and [text.rstrip("\n") for text in found] == texts
    shutil.rmtree(folder / "odd", ignore_errors=True)
    update: dict[str, Any] = {"output": str(folder / "odd"), "sources": {"s": source}}
    update |= {"min_characters": 1, "heldout": 0.0}
    manifest = build(corpus_recipe.model_copy(update=update), workers=1).manifest
    assert (
        manifest["counts"]["read"]["documents"] == len(texts) and not manifest["bad"]["documents"]
    )


def test_two_hundred_thousand_empty_documents_are_read(folder: Path) -> None:
    pq.write_table(pa.table({"text": pa.array([""] * 199_999 + ["one"])}), folder / "empty.parquet")
    with no_hang():
        found, bad = read(source_of(folder / "empty.parquet"))
    assert not bad and len(found) == 200_000 and found[-1] == "one" and not any(found[:-1])


@pytest.mark.parametrize("name", ["a.jsonl", "blocks.txt", "wiki_00", "a.jsonl.zst"])
def test_blank_lines_alone_are_no_documents(name: str, folder: Path) -> None:
    blank = b" \n\r\n\n" * 40_000
    with no_hang():
        assert read(
            write(folder / name, _sealed_zst(blank) if name.endswith("zst") else blank)
        ) == ([], [])


def test_a_corpus_of_empty_documents_is_refused(folder: Path, corpus_recipe: CorpusRecipe) -> None:
    pq.write_table(pa.table({"text": pa.array([""] * 20_000)}), folder / "empty.parquet")
    update = {"output": str(folder / "none"), "sources": {"s": source_of(folder / "empty.parquet")}}
    with pytest.raises(UserError, match="read: 20,000; too short: 20,000"):
        build(corpus_recipe.model_copy(update=update), workers=1)
