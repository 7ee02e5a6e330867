"""The pictures of docs/screens.md: both widths, colours for light and dark, no local paths."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "screens.md").read_text(encoding="utf-8")
PICTURES = sorted((DOCS / "screens").glob("*.svg"))
SVG = "{http://www.w3.org/2000/svg}"
# Folders of systems and homes; the script replaces them.
PATHS = re.compile(r"/(?:root|tmp/|work|Users|opt|mnt|home/(?!sq|\.))")


def text_of(picture: Path) -> str:
    """Return the text of a picture, its lines without what divides them."""
    texts = ElementTree.parse(picture).iter(f"{SVG}text")
    return "".join("".join(text.itertext()) for text in texts).replace("\xa0", " ")


def test_the_page_shows_each_picture_in_both_widths() -> None:
    shown = re.findall(r"\[!\[.*?\]\(screens/(.+?)-80\.svg\)\]\(screens/(.+?)-120\.svg\)", PAGE)
    assert all(small == large for small, large in shown)
    expected = {f"{name}-{width}.svg" for name, _ in shown for width in (80, 120)}
    assert {picture.name for picture in PICTURES} == expected and len(shown) > 10


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.stem)
def test_a_picture_has_two_palettes_and_no_path(picture: Path) -> None:
    source = picture.read_text(encoding="utf-8")
    assert source.count(".ground { fill:") == 2 and "prefers-color-scheme: dark" in source
    assert "http" not in source.replace("http://www.w3.org", "").replace("https://huggingface", "")
    assert len(source) < 100_000
    text = text_of(picture)
    assert text.startswith("$ sqzb") and not PATHS.search(text)
    assert "Traceback" not in text and "error:" not in text
