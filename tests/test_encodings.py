"""Encodings that messages name."""

import pytest

from sqzb.encodings import likely_encoding

FRENCH = "Le café était fermé, à côté d\u2019une forêt. Où est l\u2019hôtel ?"
RUSSIAN = "Это предложение написано по-русски."
CHINESE = "这是一个中文句子。"


@pytest.mark.parametrize("text", [FRENCH, RUSSIAN, CHINESE])
@pytest.mark.parametrize("codec", ["utf-16", "utf-32"])
def test_a_byte_order_mark_tells(text: str, codec: str) -> None:
    guess = likely_encoding(text.encode(codec))
    assert text.encode(codec).decode(guess.name) == text


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-32-be"])
def test_zeros_tell_without_a_mark(codec: str) -> None:
    assert "UTF-16" in likely_encoding(FRENCH.encode(codec)).words


def test_accents_are_few_in_western_text() -> None:
    assert FRENCH.encode("cp1252").decode(likely_encoding(FRENCH.encode("cp1252")).name) == FRENCH


@pytest.mark.parametrize(("text", "codec"), [(RUSSIAN, "cp1251"), (CHINESE, "gb18030")])
def test_other_scripts_have_no_name(text: str, codec: str) -> None:
    guess = likely_encoding(text.encode(codec))
    assert guess.name == "NAME" and "Windows-1251" in guess.words
    assert guess.command("a.txt") == "iconv -f NAME -t UTF-8 a.txt > NEW"
