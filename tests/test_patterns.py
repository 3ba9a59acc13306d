"""Patterns: what they stand for, each once, in an order that stays."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermalert.errors import Unreadable
from dermalert.intake.patterns import has_braces, in_braces, matching
from dermalert.intake.sources import names_in

TREE = ["a.jpg", "b.png", "x/a.jpg", "x/y/a.jpg", "x/y/z/a.jpg", "y/b.jpg", ".h/a.jpg", "x/masks/a.jpg", "x/.a.jpg"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    for name in TREE:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def found(tree: Path, pattern: str) -> list[str]:
    def listed(folder: str) -> tuple[list[str], list[str]]:
        return names_in(Path(folder)) if Path(folder).is_dir() else ([], [])

    return [str(Path(one[0]).relative_to(tree)) for one in matching(f"{tree}/{pattern}", listed)]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("{00..03}.tar", ["00.tar", "01.tar", "02.tar", "03.tar"]),
        ("{8..11}", ["8", "9", "10", "11"]),
        ("{3..1}", ["3", "2", "1"]),
        ("{0009..0010}", ["0009", "0010"]),
        ("{a,b}-{0..1}", ["a-0", "a-1", "b-0", "b-1"]),
        ("{a,}x", ["ax", "x"]),
        ("{0..10}", [str(number) for number in range(11)]),
        ("{alone}", ["{alone}"]),
        ("plain", ["plain"]),
    ],
)
def test_braces_stand_for_numbers_and_words_as_in_a_shell(pattern: str, expected: list[str]) -> None:
    assert sorted(in_braces(pattern)) == sorted(expected)
    assert has_braces(pattern) is (expected != [pattern])


def test_braces_are_expanded_as_they_are_asked_for() -> None:
    assert next(in_braces("{0..99999999999999}")) == "0"


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["a.jpg"]),
        ("*", ["a.jpg", "b.png", "x", "y"]),
        ("*/", ["a.jpg", "b.png", "x", "y"]),
        ("*/*.jpg", ["x/a.jpg", "y/b.jpg"]),
        ("**/a.jpg", ["a.jpg", "x/a.jpg", "x/y/a.jpg", "x/y/z/a.jpg"]),
        ("**/y/**/a.jpg", ["x/y/a.jpg", "x/y/z/a.jpg"]),
        ("**/**/b.*", ["b.png", "y/b.jpg"]),
        ("x/**", ["x/a.jpg", "x/y"]),
        ("?/[ab].jpg", ["x/a.jpg", "y/b.jpg"]),
        ("x/masks/*.jpg", ["x/masks/a.jpg"]),
        ("?/masks/*.jpg", ["x/masks/a.jpg"]),
        (".h/*.jpg", [".h/a.jpg"]),
        ("x/.*.jpg", ["x/.a.jpg"]),
        ("*/nothing/*", []),
        ("[!a]*.jpg", []),
    ],
)
def test_patterns_find_each_file_once_and_in_order(tree: Path, pattern: str, expected: list[str]) -> None:
    assert found(tree, pattern) == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["*", "**", "x", "y", "?", "*.jpg", "a.*"]), min_size=1, max_size=4))
def test_files_are_those_that_python_finds_too(tree: Path, parts: list[str]) -> None:
    pattern = "/".join([*parts, "*.jpg"])
    theirs = {str(one.relative_to(tree)) for one in tree.glob(pattern)}
    ours = found(tree, pattern)
    assert len(ours) == len(set(ours))
    assert set(ours) == {one for one in theirs if "masks" not in one and "/." not in f"/{one}"}


def test_a_folder_that_cannot_be_listed_is_told_in_its_place() -> None:
    def listed(folder: str) -> tuple[list[str], list[str]]:
        if folder == "r/bad":
            raise Unreadable(folder, "it is locked", "Unlock it.")
        return ([], ["bad", "good"]) if folder == "r" else (["x.jpg"], [])

    first, second = matching("r/*/*.jpg", listed)
    assert isinstance(first, Unreadable)
    assert second == ("r/good/x.jpg", False)


def test_links_to_folders_are_not_followed_into_loops(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.jpg").touch()
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert found(tmp_path, "**/*.jpg") == ["a/x.jpg"]
