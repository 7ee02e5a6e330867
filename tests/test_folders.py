"""Folders and globs: every file once, loops of links end, and nothing is lost."""

import glob
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples import scaled
from sqzb.folders import expand, walk

names = st.sampled_from(["a", "b", "c"])
trees = st.dictionaries(
    st.lists(names, min_size=1, max_size=4).map(tuple), st.sampled_from(["x", "y"]), max_size=6
)
links = st.lists(st.tuples(names, st.sampled_from([".", "a", "b", "a/b", "..", "/x/y"])))
patterns = st.lists(
    st.sampled_from(["**", "*", "a", "b", "[ab]", "?", "x.txt", "*.txt", "x*"]),
    min_size=1,
    max_size=4,
)


def make(top: Path, tree: dict[tuple[str, ...], str]) -> None:
    for folders, name in tree.items():
        folder = top.joinpath(*folders)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.txt").touch()


@settings(deadline=None, max_examples=scaled(30))
@given(trees, patterns)
def test_a_glob_matches_as_that_of_the_library(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[tuple[str, ...], str], parts: list[str]
) -> None:
    top = tmp_path_factory.mktemp("tree")
    make(top, tree)
    pattern = str(top.joinpath(*parts))
    due = {os.path.normpath(match) for match in glob.glob(pattern, recursive=True)}
    assert {str(file) for file in expand(pattern).files} == {p for p in due if os.path.isfile(p)}
    if parts[-1] != "**":
        found = {str(folder) for folder in expand(pattern).folders}
        assert found == {path for path in due if os.path.isdir(path)}


@settings(deadline=None, max_examples=scaled(30))
@given(trees, links)
def test_every_file_is_listed_once_whatever_the_links(
    tmp_path_factory: pytest.TempPathFactory,
    tree: dict[tuple[str, ...], str],
    given: list[tuple[str, str]],
) -> None:
    top = tmp_path_factory.mktemp("tree")
    outside = top / "outside"
    make(top / "in", {("k",): "x", **tree})
    make(outside, {("x", "y"): "z"})
    for number, (folder, target) in enumerate(given):
        at = top / "in" / folder
        at.mkdir(exist_ok=True)
        inside = outside / "x" / "y" if target == "/x/y" else top / "in" / target
        if inside.is_dir() and inside.resolve() != top.resolve():
            (at / f"link{number}").symlink_to(inside)

    listing = walk(top / "in")
    real = [os.path.realpath(file) for file in listing.files]
    due = {os.path.realpath(file) for file in (top / "in").rglob("*.txt") if file.is_file()}
    if any(".." not in target and target == "/x/y" for _, target in given):
        due.add(str(outside.resolve() / "x" / "y" / "z.txt"))
    assert len(real) == len(set(real)) and set(real) == due
    assert listing.files == sorted(listing.files)


def test_two_links_to_the_folder_itself_end_a_recursive_glob(tmp_path: Path) -> None:
    make(tmp_path, {("a",): "x"})
    (tmp_path / "l1").symlink_to(".")
    (tmp_path / "l2").symlink_to(".")
    assert expand(f"{tmp_path}/**/*.txt").files == [tmp_path / "a" / "x.txt"]
    assert expand(f"{tmp_path}/**/**/**/x.txt").files == [tmp_path / "a" / "x.txt"]


def test_an_entry_that_is_no_file_is_passed_over(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    listing = walk(tmp_path)
    assert not listing.files
    assert listing.about_passed() == f"{tmp_path}/pipe.txt (no regular file)"


def test_a_link_to_a_file_that_is_there_is_passed_over(tmp_path: Path) -> None:
    make(tmp_path, {("a",): "x"})
    (tmp_path / "a" / "a.txt").symlink_to("x.txt")
    listing = walk(tmp_path)
    assert listing.files == [tmp_path / "a" / "x.txt"]
    assert "(a link to" in listing.about_passed()
