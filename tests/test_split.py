from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermalert.errors import DataError
from dermalert.intake.duplicates import find
from dermalert.intake.manifest import SCHEMA, Manifest
from dermalert.intake.split import clean_test, divide, group_numbers, split

DIAGNOSES = ["melanoma", "nevus", "akiec"]


def manifest(rows: list[dict[str, Any]]) -> Manifest:
    """Labelled nevi unless a row says otherwise."""
    filled = [
        {"image_id": f"{n}.jpg", "path": f"{n}.jpg", "source": "drawn", "diagnosis": "nevus"} | row
        for n, row in enumerate(rows)
    ]
    return Manifest(Path("pictures"), pa.Table.from_pylist(filled, schema=SCHEMA))


def parts_by_group(manifest: Manifest) -> dict[int, set[str]]:
    """The parts that each group stands in, unused rows left out."""
    found: dict[int, set[str]] = {}
    for group, part in zip(group_numbers(manifest).tolist(), manifest.column("split"), strict=True):
        if part is not None:
            found.setdefault(group, set()).add(part)
    return found


def enough(*given_splits: str | None) -> list[dict[str, Any]]:
    """Single pictures, enough to fill every part."""
    return [{"given_split": word} for word in given_splits for _ in range(10)]


PICTURE = st.fixed_dictionaries(
    {
        "diagnosis": st.sampled_from([*DIAGNOSES, None]),
        "group": st.integers(0, 12) | st.none(),
        "resolution": st.sampled_from(["keep", "drop", None]),
    }
)


@given(st.lists(PICTURE, max_size=60), st.integers(0, 5), st.sampled_from([0.1, 0.2, 0.4]), st.sampled_from([0, 0.2]))
@settings(deadline=None, max_examples=100)
def test_a_group_never_stands_on_both_sides_of_a_split(
    rows: list[dict[str, Any]], seed: int, validation: float, test: float
) -> None:
    divided = split(manifest([*rows, *enough(None)]), validation=validation, test=test, seed=seed)
    assert all(len(parts) == 1 for parts in parts_by_group(divided).values())


@given(st.lists(PICTURE, max_size=60), st.sampled_from([("train", "test"), ("train", "validation", "test")]), st.data())
@settings(deadline=None, max_examples=100)
def test_a_group_never_stands_in_training_and_validation_where_folders_are_given(
    rows: list[dict[str, Any]], folders: tuple[str, ...], data: st.DataObject
) -> None:
    for row in rows:
        row["given_split"] = data.draw(st.sampled_from(folders))
    divided = split(manifest([*rows, *enough(*folders)]))
    assert not any({"train", "validation"} <= parts for parts in parts_by_group(divided).values())


@given(
    st.lists(
        st.tuples(*(st.integers(0, 9) | st.none() for _ in range(2)), st.sampled_from([0, 1, 2**40, 2**255])),
        max_size=25,
    ),
    st.integers(0, 3),
)
@settings(deadline=None, max_examples=60)
def test_a_lesion_a_patient_or_a_duplicate_never_stands_on_both_sides_of_a_split(
    told: list[tuple[int | None, int | None, int]], seed: int
) -> None:
    """From the tables and the hashes themselves to the split, by way of the duplicates' groups."""
    chance = np.random.default_rng(seed)
    others = [(None, None, int.from_bytes(chance.bytes(32), "big")) for _ in range(20)]
    rows = [
        {
            "lesion_id": lesion if lesion is None else f"L{lesion}",
            "patient_id": patient if patient is None else f"P{patient}",
            "dhash": picture.to_bytes(32, "big"),
            "sha256": f"{picture:064x}",
        }
        for lesion, patient, picture in [*told, *others]
    ]
    indexed = manifest(rows)
    divided = split(indexed.with_columns(group=find(indexed).lesion_group), seed=seed)
    for key in ("lesion_id", "patient_id", "sha256"):
        parts: dict[str, set[str]] = {}
        for value, part in zip(divided.column(key), divided.column("split"), strict=True):
            if value is not None:
                parts.setdefault(value, set()).add(part)
        assert all(len(found) == 1 for found in parts.values()), key


@given(st.lists(st.sampled_from(DIAGNOSES), min_size=10, max_size=150), st.integers(0, 5))
@settings(deadline=None, max_examples=60)
def test_single_pictures_are_divided_in_each_class_to_within_one_picture(words: list[str], seed: int) -> None:
    divided = split(manifest([{"diagnosis": word} for word in words]), validation=0.2, test=0.2, seed=seed)
    found = list(zip(divided.column("diagnosis"), divided.column("split"), strict=True))
    for word in set(words):
        for part, share in {"train": 0.6, "validation": 0.2, "test": 0.2}.items():
            assert abs(found.count((word, part)) - share * words.count(word)) < 1
        if words.count(word) >= 5:
            assert all((word, part) in found for part in ("train", "validation", "test"))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 6)), min_size=1, max_size=60), st.integers(0, 5))
@settings(deadline=None, max_examples=100)
def test_each_class_gets_its_share_to_within_its_largest_group(lesions: list[tuple[int, int]], seed: int) -> None:
    """A part takes a lesion only while it wants one, so none runs over by a whole lesion."""
    classes = np.repeat([kind for kind, _ in lesions], [size for _, size in lesions])
    groups = np.repeat(np.arange(len(lesions)), [size for _, size in lesions])
    shares = {"train": 0.7, "validation": 0.3}
    parts = divide(groups, classes, shares, seed=seed)
    for kind in set(classes.tolist()):
        largest = max(size for one, size in lesions if one == kind)
        for part, share in shares.items():
            wanted = share * (classes == kind).sum()
            assert abs(((classes == kind) & (parts == part)).sum() - wanted) <= largest


def test_lesions_of_many_pictures_are_evened_out_by_those_of_one() -> None:
    sizes = [*range(2, 8), *[1] * 73]
    groups = np.repeat(np.arange(len(sizes)), sizes)
    parts = divide(groups, np.zeros(len(groups), np.int64), {"train": 0.8, "validation": 0.2})
    assert (parts == "validation").sum() == round(0.2 * len(groups))


def test_the_same_seed_gives_the_same_split_and_another_seed_another() -> None:
    rows = manifest([{"diagnosis": word, "group": n // 2} for n in range(60) for word in DIAGNOSES])
    assert split(rows, seed=3).column("split") == split(rows, seed=3).column("split")
    assert split(rows, seed=3).column("split") != split(rows, seed=4).column("split")


def test_a_part_without_a_share_gets_no_picture_whatever_its_groups() -> None:
    divided = split(manifest([{"group": n // 3} for n in range(60)]), validation=0.2, test=0)
    assert set(divided.column("split")) == {"train", "validation"}
    assert divided.column("split").count("validation") == 12


def test_a_given_test_folder_is_respected_and_only_the_rest_is_divided() -> None:
    divided = split(manifest([*enough("train"), *enough("train"), *enough("test")]), validation=0.2, test=0.3)
    assert divided.column("split")[20:] == ["test"] * 10
    assert sorted(divided.column("split")[:20]) == ["train"] * 16 + ["validation"] * 4


def test_given_training_validation_and_test_folders_are_respected() -> None:
    divided = split(manifest(enough("train", "validation", "test")), validation=0.5)
    assert divided.column("split") == ["train"] * 10 + ["validation"] * 10 + ["test"] * 10


def test_a_given_validation_picture_whose_lesion_trains_moves_to_training() -> None:
    rows = [{"given_split": "train", "group": 1}, {"given_split": "validation", "group": 1}]
    divided = split(manifest([*rows, *enough("train", "validation")]))
    assert divided.column("split")[:2] == ["train", "train"]


def test_what_is_unlabelled_or_to_be_dropped_is_in_no_part_but_a_given_test_folder_stays_whole() -> None:
    rows: list[dict[str, Any]] = [
        {"given_split": "train", "diagnosis": None},
        {"given_split": "train", "resolution": "drop"},
        {"given_split": "test", "diagnosis": None},
        {"given_split": "test", "resolution": "drop"},
        {"given_split": "train", "resolution": "relabel", "group": 1},
    ]
    divided = split(manifest([*rows, *enough("train", "test")])).column("split")
    assert divided[:4] == [None, None, None, "test"]
    assert divided[4] in {"train", "validation"}


@given(st.lists(PICTURE, max_size=60), st.data())
@settings(deadline=None, max_examples=100)
def test_the_clean_test_view_holds_just_the_test_pictures_that_nothing_else_knows(
    rows: list[dict[str, Any]], data: st.DataObject
) -> None:
    for row in rows:
        row["given_split"] = data.draw(st.sampled_from(["train", "test"]))
    divided = split(manifest([*rows, *enough("train", "test")]))
    where = parts_by_group(divided)
    expected = [
        part == "test" and where[group] == {"test"} and resolution != "drop"
        for part, group, resolution in zip(
            divided.column("split"), group_numbers(divided).tolist(), divided.column("resolution"), strict=True
        )
    ]
    assert clean_test(divided).tolist() == expected


def test_pictures_that_no_audit_has_grouped_stand_alone() -> None:
    assert group_numbers(manifest([{"group": 3}, {}, {"group": 3}, {}])).tolist() == [3, -2, 3, -4]


@pytest.mark.parametrize(
    ("validation", "test"), [(0, 0.2), (1, 0), (-0.1, 0.2), (0.2, -0.1), (0.2, 1), (0.5, 0.5), (float("nan"), 0.2)]
)
def test_shares_that_leave_nothing_to_train_on_are_refused(validation: float, test: float) -> None:
    with pytest.raises(DataError, match="shares"):
        split(manifest(enough(None)), validation=validation, test=test)


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"diagnosis": None}] * 20,
        [{"group": 1}] * 20,
        [{"resolution": "drop"}] * 20,
        [{"given_split": "test"}] * 20,
        [{"given_split": "validation"}] * 20,
    ],
    ids=["no rows", "no labels", "one lesion", "all dropped", "test alone", "validation alone"],
)
def test_a_set_with_nothing_to_train_or_validate_on_is_refused(rows: list[dict[str, Any]]) -> None:
    with pytest.raises(DataError, match="No picture is left"):
        split(manifest(rows))
