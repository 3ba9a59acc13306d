"""Several data sets as one: no lesion on both sides, whichever set it came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermalert.errors import DataError
from dermalert.intake.manifest import SCHEMA, Manifest
from dermalert.intake.pool import collections, concatenated, photographs, pool
from dermalert.intake.split import clean_test


def made(source: str, rows: list[dict[str, Any]], *, folder: str = "sets") -> Manifest:
    """A set of nevi with hashes of their own, unless a row says otherwise."""
    filled = [
        {
            "image_id": f"{n}.jpg",
            "path": f"{n}.jpg",
            "source": source,
            "diagnosis": "nevus",
            "dhash": hash_of(f"{source}{n}"),
            "sha256": f"{source}{n}",
            "resolution": "keep",
            "group": n,
        }
        | row
        for n, row in enumerate(rows)
    ]
    return Manifest(Path("/") / folder / source, pa.Table.from_pylist(filled, schema=SCHEMA))


def hash_of(word: str) -> bytes:
    """The same for the same word, far from all others."""
    return np.random.default_rng(list(word.encode())).bytes(32)


def part_of(pooled: Manifest, image_id: str) -> str | None:
    return dict(zip(pooled.column("image_id"), pooled.column("split"), strict=True))[image_id]  # type: ignore[no-any-return]


FIRST = [{"given_split": "train"}] * 20 + [{"given_split": "test"}] * 5


def test_a_picture_that_two_sets_hold_follows_the_first_set_to_its_part() -> None:
    copies = [{"dhash": hash_of(f"first{n}")} for n in range(20)]
    pooled = pool([made("first", FIRST), made("second", copies)], seed=3)
    assert {part_of(pooled, f"second:{n}.jpg") for n in range(20)} == {"train", "validation"}
    for n in range(20):
        assert part_of(pooled, f"second:{n}.jpg") == part_of(pooled, f"{n}.jpg")


def test_what_the_test_part_shows_is_never_learned_from_another_set() -> None:
    copies = [{"dhash": hash_of(f"first{n}")} for n in range(20, 25)]
    pooled = pool([made("first", FIRST), made("second", [*copies, *[{}] * 10])])
    assert {part_of(pooled, f"second:{n}.jpg") for n in range(5)} == {None}
    assert {part_of(pooled, f"second:{n}.jpg") for n in range(5, 15)} == {"train", "validation"}


def test_another_picture_of_a_test_lesion_is_left_out_too() -> None:
    lesion = [{"dhash": hash_of("first20"), "group": 7, "lesion_id": "L"}, {"group": 7, "lesion_id": "L"}]
    pooled = pool([made("first", FIRST), made("second", [*lesion, *[{"group": 10 + n} for n in range(9)]])])
    assert part_of(pooled, "second:0.jpg") is None
    assert part_of(pooled, "second:1.jpg") is None


def test_a_picture_with_the_archives_number_is_known_whatever_it_looks_like() -> None:
    named = [{"path": "Test/ISIC_0000001.jpg", "given_split": "test"}, *FIRST]
    pooled = pool([made("first", named), made("second", [{"path": "ISIC_0000001_downsampled.png"}, *[{}] * 9])])
    assert part_of(pooled, "second:0.jpg") is None


def test_one_lesion_number_in_two_sets_is_two_lesions() -> None:
    first = made("first", [{**row, "lesion_id": "7", "group": 0} if n < 2 else row for n, row in enumerate(FIRST)])
    pooled = pool([first, made("second", [{"lesion_id": "7"}, *[{}] * 9])])
    groups = dict(zip(pooled.column("image_id"), pooled.column("group"), strict=True))
    assert groups["0.jpg"] == groups["1.jpg"] != groups["second:0.jpg"]


def test_pictures_that_an_audit_proposes_to_drop_are_not_learned_from() -> None:
    second = made("second", [{"resolution": "drop"}, {"diagnosis": None}, *[{}] * 9])
    pooled = pool([made("first", FIRST), second])
    assert part_of(pooled, "second:0.jpg") is None
    assert part_of(pooled, "second:1.jpg") is None


def test_the_pictures_are_found_below_one_root() -> None:
    second = made("second", [{}], folder="elsewhere")
    joined = concatenated([made("first", FIRST[:1]), second])
    assert joined.paths() == [Path("/sets/first/0.jpg"), Path("/elsewhere/second/0.jpg")]
    assert joined.column("image_id") == ["0.jpg", "second:0.jpg"]


def test_two_sets_of_one_name_are_refused() -> None:
    with pytest.raises(DataError, match="different names"):
        pool([made("first", FIRST), made("first", FIRST, folder="elsewhere")])


def test_a_first_set_that_comes_split_keeps_its_split_but_parts_no_lesion_that_the_other_set_knows() -> None:
    rows = [{"split": "train"}] * 10 + [{"split": "validation"}] * 10 + [{"split": "test"}] * 5
    lesion = [{"dhash": hash_of(f"first{n}"), "group": 7, "lesion_id": "L"} for n in (0, 10)]
    pooled = pool([made("first", rows), made("second", [*lesion, *[{"group": 10 + n} for n in range(9)]])])
    assert [part_of(pooled, f"{n}.jpg") for n in (0, 9, 10, 11, 20)] == [
        *("train", "train", "train", "validation", "test"),
    ]


@given(st.lists(st.integers(0, 30), min_size=5, max_size=40), st.integers(0, 5))
@settings(deadline=None, max_examples=50)
def test_no_lesion_stands_on_both_sides_of_a_pooled_split(shows: list[int], seed: int) -> None:
    """`shows` says which of the first set's pictures each picture of the second one shows; over 24, one of its own."""
    rows = [{"dhash": hash_of(f"first{n}")} if n < len(FIRST) else {} for n in shows]
    pooled = pool([made("first", FIRST), made("second", rows)], seed=seed)
    parts: dict[int, set[str]] = {}
    for group, part in zip(pooled.column("group"), pooled.column("split"), strict=True):
        if part is not None:
            parts.setdefault(group, set()).add(part)
    assert all(len(found) == 1 for found in parts.values())
    ours = pooled.where([source == "first" for source in pooled.column("source")])
    assert clean_test(ours).sum() == 5


def test_each_photograph_is_kept_once_from_the_added_set_with_what_both_sets_say() -> None:
    first = made("first", [{"path": f"ISIC_00{n}.jpg", "image_id": str(n)} for n in (24306, 15000, 15001)])
    second = made("second", [{"path": f"ISIC_00{n}.jpg", "image_id": str(n)} for n in (24306, 15002)])
    both = concatenated([first, second])
    akiec, exact = frozenset({"actinic keratosis", "squamous cell carcinoma"}), frozenset({"actinic keratosis"})
    nevus = frozenset({"nevus"})
    kept, allowed = photographs(both, [exact, nevus, nevus, akiec, nevus])
    assert kept.column("image_id") == ["15000", "15001", "second:24306", "second:15002"]
    assert allowed == [nevus, nevus, exact, nevus]
    assert collections(kept).tolist() == ["older ISIC", "older ISIC", "ham10000", "older ISIC"]
    with pytest.raises(DataError, match="exclude each other"):
        photographs(both, [nevus, nevus, nevus, akiec, nevus])


def test_pictures_without_an_archive_number_belong_to_their_own_set_and_are_all_kept() -> None:
    both = concatenated([made("first", [{}, {}]), made("second", [{}])])
    kept, _ = photographs(both, [frozenset({"nevus"})] * 3)
    assert len(kept) == 3
    assert collections(kept).tolist() == ["first", "first", "second"]
