"""Near-duplicates among more pictures than one machine can search: manifests in, a table of pairs out, on Ray.

Comes in: manifests that `dermalert audit` wrote, one a shard, wherever the workers can read them. Goes out: Parquet
files of pairs, the very pairs that one search on one machine finds. Opens no picture and judges no pair.

Each manifest is cut by the first block of bits in which two near hashes may agree (`intake.neighbours.Banding`), for
every band, and into parts of the block's values. A part of a band then holds all that may be near each other by that
block, and is searched alone. So every hash travels once a band, 40 bytes each time, and no machine holds them all.
docs/audit-at-scale.md has the arithmetic.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dermalert.errors import ClusterError, DataError
from dermalert.intake.fingerprint import hashes_to_array
from dermalert.intake.manifest import Manifest
from dermalert.intake.neighbours import NEAR_RADIUS, Banding, Pairs, band_of, banding_of, near_pairs_in_band
from dermalert.score.cluster import Cluster, connected

ROWS_A_PART = 5_000_000  # hashes that a worker searches at a time: about 1 GB
_SAMPLED = 100_000  # hashes that the banding is chosen by
_MIXED = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: multiplied by it, neighbouring values part


@dataclass(frozen=True)
class Shards:
    """The manifests and the number that the first row of each has in the whole.

    Attributes:
        files: (S,) Parquet files of manifests.
        start: int64 (S + 1,), the last one the number of all rows.
    """

    files: tuple[Path, ...]
    start: NDArray[np.int64]

    @classmethod
    def of(cls, files: Sequence[Path]) -> Shards:
        """Reads how many rows each has, and nothing more.

        Raises:
            DataError: there is none, or one cannot be read.
        """
        if not files:
            raise DataError("No manifest is given: name the manifest.parquet of one audit or more.")
        counts = [len(Manifest.read(file)) for file in files]
        return cls(tuple(files), np.cumsum([0, *counts]).astype(np.int64))

    def __len__(self) -> int:
        return int(self.start[-1])

    def hashes(self, shard: int) -> NDArray[np.uint64]:
        """uint64 (N, 4) of one shard."""
        return hashes_to_array(Manifest.read(self.files[shard]).column("dhash"))


def run_nearby(
    manifests: Sequence[Path],
    out: Path,
    *,
    radius: int = NEAR_RADIUS,
    cluster: Cluster = Cluster(),  # noqa: B008 -- frozen
    rows_a_part: int = ROWS_A_PART,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Writes all near pairs of the manifests' pictures below `out` and gives their number.

    The files are named by band and part, so that a run that was cut off goes on with what is missing, and have the
    columns `first_shard`, `first_row`, `second_shard`, `second_row` (int64, places in `manifests` and rows of it) and
    `distance` (uint16, bits that differ).

    Args:
        radius: bits that may differ.
        cluster: where to run.
        rows_a_part: about how many hashes one worker searches at a time.
        progress: called with the parts done and their number.

    Raises:
        DataError: a manifest cannot be read.
        MissingExtra: Ray is not installed.
        ClusterError: the cluster cannot be reached, or a part failed.
    """
    shards = Shards.of(manifests)
    sample = np.concatenate(list(_sampled(shards)))
    banding = banding_of(sample, len(shards), radius=radius)
    parts = -(-len(shards) // rows_a_part)
    out.mkdir(parents=True, exist_ok=True)
    with connected(cluster) as ray:
        try:
            for done, _ in enumerate(_searched(ray, shards, banding, parts, out.absolute()), 1):
                if progress is not None:
                    progress(done, banding.bands * parts)
        except ray.exceptions.RayError as error:
            raise ClusterError(f"The search gave up: {error}. Run it again: it goes on with what is missing.") from None
    return sum(pq.read_metadata(file).num_rows for file in out.glob("band-*.parquet"))


def _sampled(shards: Shards) -> Iterator[NDArray[np.uint64]]:
    """From each shard its share of the sample, evenly spread."""
    for shard in range(len(shards.files)):
        hashes = shards.hashes(shard)
        yield hashes[:: max(1, len(shards) // _SAMPLED)]


def _searched(ray: Any, shards: Shards, banding: Banding, parts: int, out: Path) -> Iterator[Path]:
    """One file after another, as it is written; a band at a time, so that only one band's hashes are under way."""
    cut = ray.remote(num_returns=parts)(_cut)
    search = ray.remote(_search)
    for band in range(banding.bands):
        files = [out / f"band-{band:03}-part-{part:04}.parquet" for part in range(parts)]
        missing = [part for part in range(parts) if not files[part].exists()]
        yield from (files[part] for part in range(parts) if part not in missing)
        if not missing:
            continue
        pieces = [cut.remote(shards, shard, banding, band, parts) for shard in range(len(shards.files))]
        pieces = [[of_shard] if parts == 1 else of_shard for of_shard in pieces]
        writing = [
            search.remote(shards, banding, band, files[part], *(of_shard[part] for of_shard in pieces))
            for part in missing
        ]
        del pieces  # Ray frees each piece once it is searched
        while writing:
            written, writing = ray.wait(writing)
            yield from ray.get(written)


def _cut(shards: Shards, shard: int, banding: Banding, band: int, parts: int) -> Any:
    """A shard's hashes and row numbers, by part: those that share the band's block go to one part."""
    hashes = shards.hashes(shard)
    rows = shards.start[shard] + np.arange(len(hashes))
    block = band_of(hashes, banding, band).astype(np.uint64)
    part = ((block * _MIXED) >> np.uint64(32)) % np.uint64(parts)
    pieces = [(hashes[part == number], rows[part == number]) for number in range(parts)]
    return pieces[0] if parts == 1 else pieces


def _search(shards: Shards, banding: Banding, band: int, file: Path, *pieces: Any) -> Path:
    hashes, rows = (np.concatenate([piece[number] for piece in pieces]) for number in (0, 1))
    _write(near_pairs_in_band(hashes, rows, banding, band), shards, file)
    return file


def _write(pairs: Pairs, shards: Shards, file: Path) -> None:
    """Whole or not at all; of two that write the same file, the last counts."""
    columns: dict[str, Any] = {}
    for name, row in (("first", pairs.first), ("second", pairs.second)):
        shard = np.searchsorted(shards.start, row, side="right") - 1
        columns |= {f"{name}_shard": shard, f"{name}_row": row - shards.start[shard]}
    part = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    try:
        pq.write_table(pa.table({**columns, "distance": pairs.distance}), part)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
