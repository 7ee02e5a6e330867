"""Output of wikiextractor: the text of each page, or what is wrong with the page."""

from pathlib import Path

import pytest

from sqzb.corpus.formats.common import UnreadableDocument
from sqzb.recipe import Source
from text_files import rows, written


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ('<doc title="A">\nA\n\nText.\n</doc>', "\nText.\n"),
        ('<doc title="A">\nText.\n</doc>', "Text.\n"),  # only what the tag names is a title
        ('<doc title="A &amp; B">\r\nA & B\r\nText.\r\n</doc>\r\n', "Text.\r\n"),
        ('<doc>\n<doc title="A">\nA\n <doc > and </doc> in a line\n</doc>', None),
        ('<doc title="A">\n</doc>', ""),
    ],
)
def test_a_wiki_page_is_its_text_without_title(tmp_path: Path, page: str, text: str | None) -> None:
    found = rows(Source(path=str(written(tmp_path / "wiki_00", page.encode()))))
    if text is None:
        assert found == [
            UnreadableDocument(f"{tmp_path}/wiki_00:1", "is outside of any <doc ...>"),
            " <doc > and </doc> in a line\n",
        ]
    else:
        assert found == [text]


@pytest.mark.parametrize(
    ("content", "where", "why"),
    [
        (b"<doc >\nlost\n<doc >\none\n</doc>\n", 1, "has no </doc>"),
        (b"<doc >\none\n</doc>\n<doc >\nlost\n", 4, "has no </doc>"),
        (b"<doc >\none\n</doc>\nlost\nlost\n</doc>\n", 4, "is outside of any <doc ...>"),
        (b"lost\n<doc >\none\n</doc>\n", 1, "is outside of any <doc ...>"),
        (b"<doc >\none\n</doc>\n<doc >\nlost\xff\n</doc>\n", 5, "is not UTF-8"),
    ],
)
def test_a_broken_wiki_page_is_named(tmp_path: Path, content: bytes, where: int, why: str) -> None:
    path = written(tmp_path / "wiki_00", content)
    found = rows(Source(path=str(path)))
    [bad] = [row for row in found if isinstance(row, UnreadableDocument)]
    assert (
        bad.where == f"{path}:{where}"
        and why in bad.why
        and [row for row in found if row != bad] == ["one\n"]
    )
