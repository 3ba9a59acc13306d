from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dermalert.intake.duplicates import find
from dermalert.intake.fingerprint import hashes_to_array
from dermalert.intake.manifest import SCHEMA, Manifest
from dermalert.intake.neighbours import ALTERED_RADIUS, NEAR_RADIUS


def picture(seed: int, *, flipped: int = 0) -> bytes:
    """The hash of one drawn picture, or of a near copy that differs in `flipped` bits."""
    bits = np.random.default_rng(seed).random(256) < 0.5
    bits[:flipped] ^= True
    return np.packbits(bits).tobytes()


def manifest(*rows: dict[str, Any]) -> Manifest:
    """Unless it says otherwise, each row is another picture, named by its number."""
    filled = [
        {"image_id": f"{n}", "path": f"{n}.jpg", "source": "drawn", "sha256": f"{n:064x}", "dhash": picture(n)} | row
        for n, row in enumerate(rows)
    ]
    return Manifest(Path("pictures"), pa.Table.from_pylist(filled, schema=SCHEMA))


def together(groups: NDArray[np.int64]) -> set[tuple[int, ...]]:
    """The rows of each group of several."""
    found = {tuple(np.flatnonzero(groups == group).tolist()) for group in groups}
    return {rows for rows in found if len(rows) > 1}


def test_byte_identical_files_are_one_exact_group_and_no_near_pair() -> None:
    same = {"sha256": "ab" * 32, "dhash": picture(99)}
    found = find(manifest({}, same, {}, same, same))
    assert found.exact == ((1, 3, 4),)
    assert len(found.near) == 0
    assert together(found.picture_group) == together(found.lesion_group) == {(1, 3, 4)}


@pytest.mark.parametrize(("flipped", "near"), [(0, True), (1, True), (NEAR_RADIUS, True), (NEAR_RADIUS + 1, False)])
def test_pictures_within_the_radius_are_near_duplicates_and_beyond_it_are_not(flipped: int, near: bool) -> None:
    found = find(manifest({}, {}, {"dhash": picture(0, flipped=flipped)}))
    pairs = list(zip(found.near.first.tolist(), found.near.second.tolist(), found.near.distance.tolist(), strict=True))
    assert pairs == ([(0, 2, flipped)] if near else [])
    assert together(found.picture_group) == ({(0, 2)} if near else set())
    assert found.exact == ()


def test_identical_bytes_are_found_even_where_the_hashes_say_otherwise() -> None:
    found = find(manifest({"sha256": "ab" * 32}, {"sha256": "ab" * 32}))
    assert found.exact == ((0, 1),)
    assert together(found.picture_group) == {(0, 1)}


def test_a_chain_of_near_copies_is_one_picture() -> None:
    found = find(manifest(*({"dhash": picture(0, flipped=flipped)} for flipped in (0, 12, 24, 36)), {}))
    assert together(found.picture_group) == {(0, 1, 2, 3)}


def test_pictures_of_one_lesion_or_patient_belong_together_without_being_one_picture() -> None:
    found = find(
        manifest(
            {"lesion_id": "L1", "patient_id": "P1"},
            {"lesion_id": "L1"},
            {"lesion_id": "L2", "patient_id": "P1"},
            {"lesion_id": "L3", "patient_id": "P2"},
            {},
            {},
        )
    )
    assert together(found.picture_group) == set()
    assert together(found.lesion_group) == {(0, 1, 2)}


def test_a_lesion_and_a_patient_of_the_same_name_are_not_confused() -> None:
    assert together(find(manifest({"lesion_id": "1"}, {"patient_id": "1"})).lesion_group) == set()


def test_copies_join_their_lesions() -> None:
    """A copy under another lesion's number still cannot be parted from the original."""
    rows = manifest(
        {"lesion_id": "L1"},
        {"lesion_id": "L1"},
        {"lesion_id": "L2", "dhash": picture(1, flipped=3)},
        {"lesion_id": "L2"},
    )
    assert together(find(rows).lesion_group) == {(0, 1, 2, 3)}


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "lesion_id": st.sampled_from([None, "L1", "L2", "L3"]),
                "patient_id": st.sampled_from([None, "P1", "P2"]),
                "sha256": st.integers(0, 8).map(lambda n: f"{n:064x}"),
                "dhash": st.builds(picture, st.integers(0, 4), flipped=st.sampled_from([0, 10, 20])),
            }
        ),
        max_size=14,
    )
)
@settings(deadline=None, max_examples=100)
def test_groups_are_the_finest_that_keep_every_bond(rows: list[dict[str, Any]]) -> None:
    found = find(manifest(*rows))
    bits = np.array([np.unpackbits(np.frombuffer(row["dhash"], np.uint8)) for row in rows])

    def grouped(bound: Any) -> set[tuple[int, ...]]:
        """By brute force: rows that a chain of bonds connects."""
        number = list(range(len(rows)))
        for i in range(len(rows)):
            for j in range(i):
                if bound(i, j):
                    number = [number[j] if one == number[i] else one for one in number]
        return together(np.array(number, np.int64))

    def one_picture(i: int, j: int) -> bool:
        return bool(rows[i]["sha256"] == rows[j]["sha256"] or (bits[i] != bits[j]).sum() <= NEAR_RADIUS)

    def one_lesion(i: int, j: int) -> bool:
        return one_picture(i, j) or any(
            rows[i][key] is not None and rows[i][key] == rows[j][key] for key in ("lesion_id", "patient_id")
        )

    assert together(found.picture_group) == grouped(one_picture)
    assert together(found.lesion_group) == grouped(one_lesion)


def test_matches_in_another_set_are_found_and_join_our_pictures_of_its_lesion() -> None:
    theirs = manifest(
        {"dhash": picture(50), "lesion_id": "L1"},
        {"dhash": picture(51), "lesion_id": "L1"},
        {"dhash": picture(52), "lesion_id": "L2"},
        {"dhash": picture(53)},
    )
    ours = manifest(
        {"dhash": picture(51, flipped=5)}, {}, {"dhash": picture(50)}, {"dhash": picture(52)}, {"dhash": picture(53)}
    )
    found = find(ours, theirs)
    assert list(zip(found.matches.first.tolist(), found.matches.second.tolist(), strict=True)) == [
        (0, 1),
        (2, 0),
        (3, 2),
        (4, 3),
    ]
    assert together(found.lesion_group) == {(0, 2)}
    assert together(found.picture_group) == set()
    assert together(find(ours).lesion_group) == set()


def test_a_patient_of_another_set_joins_our_pictures_too() -> None:
    theirs = manifest(
        {"dhash": picture(50), "lesion_id": "L1", "patient_id": "P"},
        {"dhash": picture(51), "lesion_id": "L2", "patient_id": "P"},
    )
    assert together(find(manifest({"dhash": picture(50)}, {"dhash": picture(51)}), theirs).lesion_group) == {(0, 1)}


@pytest.mark.parametrize(
    "name",
    [
        "ISIC_1(1).jpg",
        "ISIC_1 (2).JPG",
        "x/ISIC_1 - Copy.jpg",
        "a_copy.png",
        "a copy 2.jpg",
        "a - Copy (3).jpg",
        "a-copy.jpg",
    ],
)
def test_names_that_file_managers_give_to_copies_are_known(name: str) -> None:
    assert find(manifest({"path": "ISIC_1.jpg"}, {"path": name})).copy_names == (1,)


@pytest.mark.parametrize(
    "name",
    ["ISIC_1.jpg", "(1).d/a.jpg", "a(1)b.jpg", "a(b).jpg", "photocopy.jpg", "copyright.jpg", "a(1.jpg", "a1.jpg"],
)
def test_other_names_are_not_taken_for_copies(name: str) -> None:
    assert find(manifest({"path": name})).copy_names == ()


def test_a_set_of_no_pictures_has_no_duplicates() -> None:
    found = find(manifest(), manifest({}))
    assert (found.exact, len(found.near), len(found.matches), found.copy_names) == ((), 0, 0, ())
    assert found.picture_group.shape == found.lesion_group.shape == (0,)


def test_a_turned_copy_is_a_near_duplicate_where_altered_hashes_are_known() -> None:
    pictures = manifest({}, {}, {})
    altered = np.random.default_rng(7).integers(0, 2**64, (3, 7, 4), dtype=np.uint64)
    altered[2, 4] = hashes_to_array([picture(0, flipped=ALTERED_RADIUS)])[0]
    found = find(pictures, altered=altered)
    assert (found.near.first.tolist(), found.near.second.tolist()) == ([0], [2])
    assert together(found.picture_group) == {(0, 2)}
    assert len(find(pictures).near) == 0
