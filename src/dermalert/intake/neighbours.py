"""Near neighbours: all pairs of hashes that differ in few bits, without comparing every pair.

Comes in: 256-bit hashes from `fingerprint`. Goes out: `Pairs`, exact (no pair is missed), and their groups.
Does not judge what a pair means: that is for `audit`.

Method: the hash is cut into radius + k blocks of bits, so that two hashes within the radius agree wholly in
at least k blocks (the pigeonhole principle; Manku, Jain & Das Sarma, "Detecting near-duplicates for web
crawling", WWW 2007; Norouzi, Punjani & Fleet, "Fast search in Hamming space with multi-index hashing", CVPR
2012). Rows are sorted by one block; runs of equal blocks that are small are compared pair by pair, large runs
are parted again by a later block. The bits are dealt to blocks by chance, since neighbouring gradients of real
pictures agree too often, and k is chosen from how often random pairs of these very hashes share blocks.
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

Index = NDArray[np.int64]
Progress = Callable[[int, int], None]

_WORDS = BITS // 64
_DEPTHS = range(1, 5)  # blocks that may have to agree
_SORT_COST = 12.0  # sorting a row once, in comparisons of a pair: measured
_SAMPLE = 1 << 18  # random pairs that the choice of k rests on
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
    chance = np.random.default_rng(20070508)
    keys, depth = _plan(hashes, radius, chance)
    search = _Search(hashes, keys, side, radius)
    rows = np.arange(len(hashes))
    if depth == 0:
        search.compare(rows, np.full(len(rows), len(rows)), path=())
    else:
        search.part(rows, np.zeros(len(rows), np.int64), (), depth, progress)
    return search.result()


def _plan(hashes: NDArray[np.uint64], radius: int, chance: np.random.Generator) -> tuple[NDArray[np.uint32], int]:
    """The blocks, uint32 (M, N), and how many of them must agree; 0 where comparing all pairs is cheapest."""
    n = len(hashes)
    bits = chance.permutation(BITS)
    one, other = chance.integers(0, max(n, 1), (2, _SAMPLE))
    sample = one[one != other], other[one != other]
    best_cost, best = n * n / 2, 0
    for depth in _DEPTHS:
        count = radius + depth
        sorting = _SORT_COST * n * sum(comb(count, level) for level in range(1, depth + 1))
        if count > BITS or sorting >= best_cost:
            break
        shared = np.bincount(_agreeing(hashes, *sample, bits, count), minlength=count + 1)
        # A pair that agrees in s blocks is met once for each choice of `depth` of them.
        met = np.dot(shared / shared.sum(), [float(comb(blocks, depth)) for blocks in range(count + 1)])
        if (cost := sorting + met * n * n / 2) < best_cost:
            best_cost, best = cost, depth
    return _blocks(hashes, bits, radius + best if best else 0), best


def _agreeing(hashes: NDArray[np.uint64], one: Index, other: Index, bits: Index, count: int) -> Index:
    agree: Index = (_blocks(hashes[one], bits, count) == _blocks(hashes[other], bits, count)).sum(axis=0)
    return agree


def _blocks(hashes: NDArray[np.uint64], bits: Index, count: int) -> NDArray[np.uint32]:
    """The hashes' bits in the order `bits`, cut into `count` blocks: uint32 (count, N).

    Of a block wider than 32 bits the first 32 serve: rows that agree in the block agree in them.
    """
    blocks = np.empty((count, len(hashes)), np.uint32)
    for start in range(0, len(hashes), _CHUNK):
        chunk = np.ascontiguousarray(hashes[start : start + _CHUNK])
        unpacked = np.unpackbits(chunk.view(np.uint8), axis=1)
        for number, members in enumerate(np.array_split(bits, count) if count else []):
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
            order = np.argsort((group.astype(np.uint64) << np.uint64(32)) | self.keys[block, rows])
            self._split(rows[order], group[order], (*path, block), depth - 1)
            if progress is not None:
                progress(block + 1, last + 1)

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
