from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dermalert.errors import DataError
from dermalert.intake import neighbours
from dermalert.intake.neighbours import (
    Pairs,
    altered_pairs,
    band_of,
    banding_of,
    distances,
    groups_of,
    near_pairs,
    near_pairs_between,
    near_pairs_in_band,
)

Hashes = NDArray[np.uint64]


def drawn(seed: int, n: int, *, changed: int, repeats: int = 0, skew: float = 0.5) -> Hashes:
    """`n` hashes, each a parent's with up to `changed` bits flipped; `repeats` rows repeat others."""
    chance = np.random.default_rng(seed)
    parents = chance.random((max(1, n // 4), 256)) < np.where(chance.random(256) < 0.5, skew, 1 - skew)
    bits = parents[chance.integers(0, len(parents), n)].copy()
    for row in bits:
        row[chance.integers(0, 256, chance.integers(0, changed + 1))] ^= True
    hashes = np.packbits(bits, axis=1).view(np.uint64)
    if n and repeats:
        hashes[chance.integers(0, n, repeats)] = hashes[chance.integers(0, n, repeats)]
    return hashes


def triples(pairs: Pairs) -> set[tuple[int, int, int]]:
    listed = list(zip(pairs.first.tolist(), pairs.second.tolist(), pairs.distance.tolist(), strict=True))
    assert len(listed) == len(set(listed)), "a pair is named twice"
    return set(listed)


def expected(hashes: Hashes, radius: int) -> set[tuple[int, int, int]]:
    """By brute force, as the contract says: the first row with a hash stands for all that have it."""
    first_row: dict[bytes, int] = {}
    result = set()
    for row, one in enumerate(hashes):
        first = first_row.setdefault(one.tobytes(), row)
        if first != row:
            result.add((first, row, 0))
    rows = list(first_row.values())
    kept = hashes[rows]
    apart = distances(kept[:, None], kept[None])
    near = np.argwhere(np.triu(apart <= radius, 1))
    return result | {(rows[i], rows[j], int(apart[i, j])) for i, j in near}


@pytest.fixture(params=[True, False], ids=["blocks", "as planned"])
def always_blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small sets are compared outright; with sorting for free they go through the blocks too."""
    if request.param:
        monkeypatch.setattr(neighbours, "_SORT_COST", 0.05)
        monkeypatch.setattr(neighbours, "_PLANNING", 0)


@pytest.mark.usefixtures("always_blocks")
@pytest.mark.parametrize("radius", [0, 1, 3, 8, 16, 31, 64])
@pytest.mark.parametrize("skew", [0.5, 0.02])
def test_exactly_the_pairs_of_brute_force_are_found(radius: int, skew: float) -> None:
    hashes = drawn(radius, 300, changed=max(radius, 4), repeats=60, skew=skew)
    assert triples(near_pairs(hashes, radius=radius)) == expected(hashes, radius)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.integers(0, 80), st.integers(0, 256), st.integers(0, 10))
def test_any_set_and_any_radius_agree_with_brute_force(seed: int, n: int, radius: int, repeats: int) -> None:
    hashes = drawn(seed, n, changed=20, repeats=repeats, skew=0.1)
    assert triples(near_pairs(hashes, radius=radius)) == expected(hashes, radius)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32))
def test_the_order_of_the_rows_does_not_change_the_groups(seed: int) -> None:
    hashes = drawn(seed, 120, changed=12, repeats=20)
    order = np.random.default_rng(seed).permutation(len(hashes))
    before, after = near_pairs(hashes, radius=12), near_pairs(hashes[order], radius=12)
    assert sorted(before.distance.tolist()) == sorted(after.distance.tolist())
    groups = groups_of(len(hashes), before.first, before.second)
    shuffled = groups_of(len(hashes), after.first, after.second)
    assert ((groups[order][:, None] == groups[order]) == (shuffled[:, None] == shuffled)).all()


@pytest.mark.parametrize("n", [2_000, 30_000])
def test_every_planted_pair_is_found_among_many(n: int) -> None:
    chance = np.random.default_rng(n)
    hashes = chance.integers(0, 2**64, (n, 4), dtype=np.uint64)
    planted = n // 10
    bits = np.unpackbits(hashes[:planted].view(np.uint8), axis=1)
    for row in bits:
        row[chance.choice(256, 16, replace=False)] ^= 1
    hashes[planted : 2 * planted] = np.packbits(bits, axis=1).view(np.uint64)
    assert triples(near_pairs(hashes, radius=16)) == {(i, planted + i, 16) for i in range(planted)}


def test_ten_thousand_equal_hashes_make_a_star_and_not_fifty_million_pairs() -> None:
    hashes = np.full((10_001, 4), 7, np.uint64)
    hashes[5_000] = 6
    pairs = near_pairs(hashes, radius=16)
    assert len(pairs) == 10_000
    assert (pairs.first == 0).all()
    assert np.flatnonzero(pairs.distance).size == 1
    assert (groups_of(len(hashes), pairs.first, pairs.second) == 0).all()


@pytest.mark.usefixtures("always_blocks")
@pytest.mark.parametrize("radius", [0, 5, 16, 40])
def test_between_two_sets_every_row_with_a_neighbour_is_named(radius: int) -> None:
    both = drawn(radius, 400, changed=max(2, radius // 2), repeats=80)
    a, b = both[:150], both[150:]
    pairs = near_pairs_between(a, b, radius=radius)
    apart = distances(a[:, None], b[None])
    near = apart <= radius
    found = triples(pairs)
    assert all(near[i, j] and apart[i, j] == bits for i, j, bits in found)
    assert set(pairs.first.tolist()) == set(np.flatnonzero(near.any(axis=1)).tolist())
    assert set(pairs.second.tolist()) == set(np.flatnonzero(near.any(axis=0)).tolist())
    # Of hashes that do not repeat, every single pair.
    alone_a = [(a == row).all(axis=1).sum() == 1 for row in a]
    alone_b = [(b == row).all(axis=1).sum() == 1 for row in b]
    must = {(i, j) for i, j in zip(*np.nonzero(near), strict=True) if alone_a[i] and alone_b[j]}
    assert must <= {(i, j) for i, j, _ in found}


@pytest.mark.parametrize("n", [0, 1])
def test_no_hash_or_one_has_no_pairs(n: int) -> None:
    hashes = np.zeros((n, 4), np.uint64)
    assert len(near_pairs(hashes, radius=16)) == 0
    assert len(near_pairs_between(hashes, hashes[:0], radius=16)) == 0
    assert groups_of(n, np.empty(0, np.int64), np.empty(0, np.int64)).tolist() == [0] * n


def test_progress_reaches_its_end() -> None:
    seen: list[tuple[int, int]] = []
    hashes = np.random.default_rng(0).integers(0, 2**64, (20_000, 4), dtype=np.uint64)
    near_pairs(hashes, radius=16, progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == list(range(1, seen[-1][1] + 1))


def test_groups_are_numbered_by_their_first_row() -> None:
    assert groups_of(6, np.array([1, 3]), np.array([5, 4])).tolist() == [0, 1, 2, 3, 3, 1]


def test_wrong_hashes_and_radii_are_refused() -> None:
    with pytest.raises(DataError, match="uint64"):
        near_pairs(np.zeros((3, 32), np.uint64), radius=1)
    with pytest.raises(DataError, match="radius"):
        near_pairs(np.zeros((3, 4), np.uint64), radius=257)


@pytest.mark.parametrize("radius", [1, 8, 16])
def test_bands_searched_apart_find_together_what_one_search_finds_and_each_pair_once(radius: int) -> None:
    hashes = drawn(5, 400, changed=2 * radius, repeats=30, skew=0.1)
    banding = banding_of(hashes[:100], 1_000_000, radius=radius)
    found: list[tuple[int, int, int]] = []
    for band in range(banding.bands):
        key = band_of(hashes, banding, band) % 3  # each third could lie on another machine
        for part in range(3):
            rows = np.random.default_rng(band).permutation(np.flatnonzero(key == part))
            found += triples(near_pairs_in_band(hashes[rows], rows, banding, band))
    assert len(found) == len(set(found))
    assert set(found) == expected(hashes, radius)


def test_a_copy_that_was_altered_is_paired_once_with_its_original_and_no_picture_with_itself() -> None:
    chance = np.random.default_rng(1)
    hashes, altered = (chance.integers(0, 2**64, shape, dtype=np.uint64) for shape in ((10, 4), (10, 3, 4)))
    altered[2, 0] = hashes[7]  # row 7 is row 2 altered in two ways that look alike
    altered[2, 1] = hashes[7] ^ np.array([1, 0, 0, 0], np.uint64)
    altered[7, 2] = hashes[2]  # and the other way round
    altered[5, 1] = hashes[5]  # row 5 is its own mirror image
    assert triples(altered_pairs(hashes, altered)) == {(2, 7, 0)}


def test_a_radius_within_which_all_is_near_is_no_search() -> None:
    with pytest.raises(DataError, match="every pair is near"):
        banding_of(drawn(0, 10, changed=1), 10, radius=256)
