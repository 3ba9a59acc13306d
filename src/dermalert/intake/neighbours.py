"""Near neighbours: all pairs of hashes that differ in few bits, without comparing every pair.

Comes in: 256-bit hashes from `fingerprint`. Goes out: `Pairs`, exact (no pair is missed), and their groups.
Does not judge what a pair means: that is for `audit`.

Method: the hash is cut into radius + k blocks of bits, so that two hashes within the radius agree wholly in
at least k blocks (the pigeonhole principle; Manku, Jain & Das Sarma, "Detecting near-duplicates for web
crawling", WWW 2007; Norouzi, Punjani & Fleet, "Fast search in Hamming space with multi-index hashing", CVPR
2012). Rows are sorted by one block; runs of equal blocks that are small are compared pair by pair, large runs
are parted again by a later block. The bits are dealt to blocks by chance, since neighbouring gradients of real
pictures agree too often, and k is chosen from how often random pairs of these very hashes share blocks.

A search can be cut into bands, one a first block, that know nothing of each other; `Banding` is what they agree on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import comb

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from dermalert.errors import DataError
from dermalert.intake.fingerprint import BITS

NEAR_RADIUS = 16
"""Two pictures are near-duplicates within so many bits: docs/decisions/0003-near-duplicates.md has the figures."""

ALTERED_RADIUS = 10
"""As `NEAR_RADIUS`, for a copy that was turned, mirrored or trimmed: no two other pictures of 13,102 are so near."""

Index = NDArray[np.int64]
Progress = Callable[[int, int], None]

_WORDS = BITS // 64
_DEPTHS = range(1, 5)  # blocks that may have to agree
_SORT_COST = 12.0  # sorting a row once, in comparisons of a pair: measured
_SAMPLE = 1 << 18  # random pairs that the choice of k rests on
_PLANNING = 1 << 24  # what that choice costs, in comparisons of a pair: measured
_CHUNK = 1 << 15  # rows whose bits are unpacked at a time


@dataclass(frozen=True)
class Pairs:
    """Pairs of rows that are near each other, by `first`, then `second`.

    Attributes:
        first, second: int64 (P,), row numbers; in one set, first < second.
        distance: uint16 (P,), bits that differ.
    """

    first: Index
    second: Index
    distance: NDArray[np.uint16]

    def __len__(self) -> int:
        return len(self.first)


@dataclass(frozen=True)
class Banding:
    """How a search is cut into bands that can run apart, on other machines too.

    Attributes:
        bits: int64 (256,), the order in which bits are dealt to blocks.
        count: blocks.
        depth: blocks that two hashes within the radius must agree in; 0 where comparing all pairs is cheapest.
        radius: bits that may differ; `count` is `radius` + `depth`.
        cost: what the whole search costs, in comparisons of a pair.
    """

    bits: Index
    count: int
    depth: int
    radius: int
    cost: float

    @property
    def bands(self) -> int:
        """Blocks that can be the first in which two hashes agree; the others only part further."""
        return self.count - self.depth + 1


def near_pairs(hashes: NDArray[np.uint64], *, radius: int, progress: Progress | None = None) -> Pairs:
    """All pairs of different hashes within `radius` bits, and a star for each hash that repeats.

    Ten thousand pictures with one hash would make fifty million equal pairs that say the same. So the first
    row with a hash stands for all of them: the others are paired with it at distance 0, and it alone is paired
    with rows that have another hash. The groups are those that all pairs would give.

    Args:
        hashes: uint64 (N, 4).
        radius: bits that may differ, 0 to 256.
        progress: called with the blocks done and their number.

    Raises:
        DataError: hashes of another shape or type, or a radius out of range.
    """
    _check(hashes, radius)
    distinct, representative, number = _distinct(hashes)
    first, second, distance = _search(distinct, None, radius, progress)
    repeated = np.flatnonzero(representative[number] != np.arange(len(hashes)))
    return _ordered(
        np.concatenate([representative[first], representative[number[repeated]]]),
        np.concatenate([representative[second], repeated]),
        np.concatenate([distance, np.zeros(len(repeated), np.uint16)]),
        swap=True,
    )


def banding_of(sample: NDArray[np.uint64], n: int, *, radius: int) -> Banding:
    """The cheapest way to search `n` hashes that are like `sample`, uint64 (S, 4), in bands.

    Raises:
        DataError: hashes of another shape or type, or a radius out of range.
    """
    _check(sample, radius)
    if radius >= BITS:
        raise DataError(f"Within {radius} bits every pair is near: there is nothing to search.")
    return _plan(sample, n, radius, all_pairs=False)


def band_of(hashes: NDArray[np.uint64], banding: Banding, band: int) -> NDArray[np.uint32]:
    """The block that rows must share to meet in this band: uint32 (N,)."""
    block: NDArray[np.uint32] = _blocks(hashes, banding.bits, banding.count, only=band)[0]
    return block


def near_pairs_in_band(hashes: NDArray[np.uint64], rows: Index, banding: Banding, band: int) -> Pairs:
    """Pairs that no earlier band finds. All bands together find what `near_pairs` does, once each.

    Args:
        hashes: uint64 (N, 4), of all rows whose `band_of` is one of some values: the others meet elsewhere.
        rows: int64 (N,), the rows' numbers in the whole set, different ones.
        banding: of the whole set.
        band: from 0 to `banding.bands` - 1.
    """
    order = np.argsort(rows)
    hashes, rows = hashes[order], rows[order]
    distinct, representative, number = _distinct(hashes)
    search = _Search(distinct, _blocks(distinct, banding.bits, banding.count), None, banding.radius)
    everything = np.arange(len(distinct))
    search.part_by(band, everything, np.zeros(len(distinct), np.int64), (), banding.depth)
    first, second, distance = search.result()
    # Rows with one hash meet in every band.
    repeated = np.flatnonzero(representative[number] != np.arange(len(hashes))) if band == 0 else everything[:0]
    return _ordered(
        rows[np.concatenate([representative[first], representative[number[repeated]]])],
        rows[np.concatenate([representative[second], repeated])],
        np.concatenate([distance, np.zeros(len(repeated), np.uint16)]),
        swap=True,
    )


def altered_pairs(hashes: NDArray[np.uint64], altered: NDArray[np.uint64], *, radius: int = ALTERED_RADIUS) -> Pairs:
    """Pairs of rows of which one is the other turned, mirrored or trimmed; the nearest, where it is several of these.

    Args:
        hashes: uint64 (N, 4).
        altered: uint64 (N, A, 4), the hashes that each row would have once altered.

    Raises:
        DataError: hashes of another shape or type, or a radius out of range.
    """
    ways = [near_pairs_between(np.ascontiguousarray(way), hashes, radius=radius) for way in altered.swapaxes(0, 1)]
    nothing = np.empty(0, np.int64)
    return united(Pairs(nothing, nothing, np.empty(0, np.uint16)), *ways)


def united(*pairs: Pairs) -> Pairs:
    """All pairs of one set, each once with its smallest distance; a row with itself is no pair."""
    first, second, distance = (
        np.concatenate([getattr(part, name) for part in pairs]) for name in ("first", "second", "distance")
    )
    low, high = np.minimum(first, second), np.maximum(first, second)
    order = np.lexsort((distance, high, low))
    low, high, distance = low[order], high[order], distance[order]
    new = low != high  # a picture may be like its own mirror image
    new[1:] &= (low[1:] != low[:-1]) | (high[1:] != high[:-1])
    return Pairs(low[new], high[new], distance[new])


def near_pairs_between(
    a: NDArray[np.uint64], b: NDArray[np.uint64], *, radius: int, progress: Progress | None = None
) -> Pairs:
    """Pairs of a row of `a` (first) and a row of `b` (second) within `radius` bits.

    Where hashes repeat, each row of `a` is paired with the first row of `b` that has a given near hash, and
    each row of `b` with the first such row of `a`: every row that has a neighbour is named, and the number of
    pairs does not multiply.

    Raises:
        DataError: hashes of another shape or type, or a radius out of range.
    """
    _check(a, radius)
    _check(b, radius)
    distinct_a, representative_a, number_a = _distinct(a)
    distinct_b, representative_b, number_b = _distinct(b)
    side = np.arange(len(distinct_a) + len(distinct_b)) >= len(distinct_a)
    low, high, distance = _search(np.concatenate([distinct_a, distinct_b]), side, radius, progress)
    swap = side[low]
    in_a, in_b = np.where(swap, high, low), np.where(swap, low, high) - len(distinct_a)
    rows_a, from_a = _members(in_a, number_a, len(distinct_a))
    rows_b, from_b = _members(in_b, number_b, len(distinct_b))
    late = representative_b[in_b[from_b]] != rows_b  # the representative of b stands in the other half already
    return _ordered(
        np.concatenate([rows_a, representative_a[in_a[from_b]][late]]),
        np.concatenate([representative_b[in_b[from_a]], rows_b[late]]),
        np.concatenate([distance[from_a], distance[from_b][late]]),
        swap=False,
    )


def groups_of(n: int, first: Index, second: Index) -> Index:
    """The group number of each of `n` rows, int64 (n,): rows joined by pairs share one, 0 upwards by first row."""
    joined = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(n, n))
    _, labels = connected_components(joined, directed=False)
    _, first_row, number = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first_row)).astype(np.int64)[number]


def distances(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> NDArray[np.uint16]:
    """Bits that differ between the rows of two uint64 (..., 4), broadcast: uint16 (...)."""
    apart: NDArray[np.uint16] = np.bitwise_count(a ^ b).sum(axis=-1, dtype=np.uint16)
    return apart


def _check(hashes: NDArray[np.uint64], radius: int) -> None:
    if hashes.ndim != 2 or hashes.shape[1] != _WORDS or hashes.dtype != np.uint64:
        raise DataError(f"Hashes must be uint64 (N, {_WORDS}), got {hashes.dtype} {hashes.shape}.")
    if not 0 <= radius <= BITS:
        raise DataError(f"The radius must lie between 0 and {BITS} bits, got {radius}.")


def _distinct(hashes: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], Index, Index]:
    """The different hashes, the first row that has each, and the number of each row's hash."""
    order = np.lexsort(hashes.T)  # stable: the first row of a run is the earliest
    ordered = hashes[order]
    new = np.ones(len(hashes), dtype=bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    number = np.empty(len(hashes), np.int64)
    number[order] = np.cumsum(new) - 1
    return ordered[new], order[new].astype(np.int64), number


def _members(wanted: Index, number: Index, count: int) -> tuple[Index, Index]:
    """All rows with each wanted hash number, and the place in `wanted` that each came from."""
    by_number = np.argsort(number, kind="stable").astype(np.int64)
    sizes = np.bincount(number, minlength=count)
    starts = np.cumsum(sizes) - sizes
    place = np.repeat(np.arange(len(wanted)), sizes[wanted])
    offset = np.arange(len(place)) - np.repeat(np.cumsum(sizes[wanted]) - sizes[wanted], sizes[wanted])
    return by_number[starts[wanted][place] + offset], place


def _ordered(first: Index, second: Index, distance: NDArray[np.uint16], *, swap: bool) -> Pairs:
    if swap:
        first, second = np.minimum(first, second), np.maximum(first, second)
    order = np.lexsort((second, first))
    return Pairs(first[order], second[order], distance[order])


def _search(
    hashes: NDArray[np.uint64], side: NDArray[np.bool_] | None, radius: int, progress: Progress | None
) -> tuple[Index, Index, NDArray[np.uint16]]:
    """Pairs of distinct rows within the radius, each once; only across `side` (bool, N) where it is given."""
    plan = _plan(hashes, len(hashes), radius, all_pairs=True)
    search = _Search(hashes, _blocks(hashes, plan.bits, plan.count), side, radius)
    rows = np.arange(len(hashes))
    if plan.depth == 0:
        search.compare(rows, np.full(len(rows), len(rows)), path=())
    else:
        search.part(rows, np.zeros(len(rows), np.int64), (), plan.depth, progress)
    return search.result()


def _plan(hashes: NDArray[np.uint64], n: int, radius: int, *, all_pairs: bool) -> Banding:
    """The cheapest banding of `n` rows like these, or none where comparing all pairs is cheaper and allowed."""
    chance = np.random.default_rng(20070508)
    bits = chance.permutation(BITS)
    best = Banding(bits, 0, 0, radius, n * n / 2 if all_pairs else np.inf)
    if best.cost <= _PLANNING:
        return best
    one, other = chance.integers(0, max(len(hashes), 1), (2, _SAMPLE))
    sample = one[one != other], other[one != other]
    for depth in _DEPTHS:
        count = radius + depth
        sorting = _SORT_COST * n * sum(comb(count, level) for level in range(1, depth + 1))
        if count > BITS or sorting >= best.cost:
            break
        shared = np.bincount(_agreeing(hashes, *sample, bits, count), minlength=count + 1)
        # A pair that agrees in s blocks is met once for each choice of `depth` of them.
        met = np.dot(shared / max(shared.sum(), 1), [float(comb(blocks, depth)) for blocks in range(count + 1)])
        if (cost := float(sorting + met * n * n / 2)) < best.cost:
            best = Banding(bits, count, depth, radius, cost)
    return best


def _agreeing(hashes: NDArray[np.uint64], one: Index, other: Index, bits: Index, count: int) -> Index:
    agree: Index = (_blocks(hashes[one], bits, count) == _blocks(hashes[other], bits, count)).sum(axis=0)
    return agree


def _blocks(hashes: NDArray[np.uint64], bits: Index, count: int, only: int | None = None) -> NDArray[np.uint32]:
    """The hashes' bits in the order `bits`, cut into `count` blocks: uint32 (count, N), or (1, N), one `only`.

    Of a block wider than 32 bits the first 32 serve: rows that agree in the block agree in them.
    """
    members_of = np.array_split(bits, count) if count else []
    members_of = members_of if only is None else [members_of[only]]
    blocks = np.empty((len(members_of), len(hashes)), np.uint32)
    for start in range(0, len(hashes), _CHUNK):
        chunk = np.ascontiguousarray(hashes[start : start + _CHUNK])
        unpacked = np.unpackbits(chunk.view(np.uint8), axis=1)
        for number, members in enumerate(members_of):
            padded = np.zeros((len(chunk), 32), np.uint8)
            padded[:, : len(members[:32])] = unpacked[:, members[:32]]
            blocks[number, start : start + len(chunk)] = np.packbits(padded, axis=1).view(np.uint32)[:, 0]
    return blocks


@dataclass
class _Search:
    """One search under way: the blocks, and the pairs found so far."""

    hashes: NDArray[np.uint64]
    keys: NDArray[np.uint32]
    side: NDArray[np.bool_] | None
    radius: int
    found: list[tuple[Index, Index, NDArray[np.uint16]]] = field(default_factory=list)

    def part(
        self, rows: Index, group: Index, path: tuple[int, ...], depth: int, progress: Progress | None = None
    ) -> None:
        """Parts each group of rows by each block after `path`, and compares what is left together."""
        start, count = (path[-1] + 1 if path else 0), len(self.keys)
        last = count - depth
        for block in range(start, last + 1):
            self.part_by(block, rows, group, path, depth)
            if progress is not None:
                progress(block + 1, last + 1)

    def part_by(self, block: int, rows: Index, group: Index, path: tuple[int, ...], depth: int) -> None:
        """Parts each group of rows by one block, and compares what is left together."""
        order = np.argsort((group.astype(np.uint64) << np.uint64(32)) | self.keys[block, rows])
        self._split(rows[order], group[order], (*path, block), depth - 1)

    def _split(self, rows: Index, group: Index, path: tuple[int, ...], depth: int) -> None:
        key = self.keys[path[-1], rows]
        new = np.ones(len(rows), dtype=bool)
        new[1:] = (key[1:] != key[:-1]) | (group[1:] != group[:-1])
        starts = np.flatnonzero(new)
        sizes = np.diff(starts, append=len(rows))
        keep = sizes > 1
        if self.side is not None:
            ones = np.add.reduceat(self.side[rows].astype(np.int64), starts) if len(rows) else starts
            keep &= (ones > 0) & (ones < sizes)
        # A run is parted again where that costs less than comparing its pairs.
        parting = comb(len(self.keys) - path[-1] - 1, depth) if depth else 0
        large = keep & (sizes > 2 * _SORT_COST * parting) if depth else np.zeros(len(sizes), dtype=bool)
        number = np.repeat(np.arange(len(starts)), sizes)
        small = (keep & ~large)[number]
        if small.any():
            kept_sizes = sizes[keep & ~large]
            self.compare(rows[small], np.repeat(np.cumsum(kept_sizes), kept_sizes), path)
        if large.any():
            self.part(rows[large[number]], number[large[number]], path, depth)

    def compare(self, rows: Index, end: Index, path: tuple[int, ...]) -> None:
        """Compares each row with the later ones of its run; `end` is where the run ends."""
        words = np.ascontiguousarray(self.hashes[rows].T)
        here = np.arange(len(rows))
        step = 0
        while True:
            step += 1
            here = here[here + step < end[here]]
            if not len(here):
                return
            # Most pairs are refused by the first words alone.
            near = here
            distance: NDArray[np.uint16] = np.zeros(len(near), np.uint16)
            for word in words:
                distance = distance + np.bitwise_count(word[near] ^ word[near + step])
                inside = distance <= self.radius
                near, distance = near[inside], distance[inside]
                if not len(near):
                    break
            if len(near):
                self._keep(rows[near], rows[near + step], distance, path)

    def _keep(self, one: Index, other: Index, distance: NDArray[np.uint16], path: tuple[int, ...]) -> None:
        """Keeps a pair only where `path` names the first blocks it agrees in, so that each is kept once."""
        first_time = np.ones(len(one), dtype=bool)
        if path:
            until = path[-1] + 1
            first_time = (self.keys[:until, one] == self.keys[:until, other]).sum(axis=0) == len(path)
        if self.side is not None:
            first_time &= self.side[one] != self.side[other]
        if first_time.any():
            self.found.append((one[first_time], other[first_time], distance[first_time]))

    def result(self) -> tuple[Index, Index, NDArray[np.uint16]]:
        if not self.found:
            return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.uint16)
        one, other, distance = (np.concatenate(part) for part in zip(*self.found, strict=True))
        return one, other, distance
