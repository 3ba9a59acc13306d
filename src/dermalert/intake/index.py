"""Indexing: every picture of a listing opened once, measured and hashed.

Comes in: a `Listing`. Goes out: an `Index`: its Manifest (no groups yet), the picture statistics and the refused.
Pictures are held one at a time a worker; nothing but hashes and figures is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dermalert.errors import DataError, RefusedFile
from dermalert.intake.decode import DEFAULT_LIMITS, Limits, decode_at, read_bytes
from dermalert.intake.fingerprint import altered_hashes, difference_hash
from dermalert.intake.manifest import SCHEMA, Manifest
from dermalert.intake.overlap import in_order
from dermalert.intake.sources import Item, Listing
from dermalert.intake.statistics import STATISTICS, measure

# Pictures are judged at one size, so that a 20-megapixel photograph costs a scaled decode and its sharpness
# compares with that of a thumbnail.
EXAMINED = (256, 256)
_OF_THE_FILE = [STATISTICS.index(name) for name in ("width", "height", "aspect")]


@dataclass(frozen=True)
class Index:
    """A listing after every file was opened.

    Attributes:
        manifest: one row a picture that could be decoded.
        statistics: float32 (N, S), columns `dermalert.intake.statistics.STATISTICS`.
        altered: uint64 (N, A, 4), the hashes of the pictures turned, mirrored and trimmed: `fingerprint.ALTERED`.
        refused: files that could not be used, each with its reason and mend.
        notes: what the source's owner should know.
    """

    manifest: Manifest
    statistics: NDArray[np.float32]
    altered: NDArray[np.uint64]
    refused: tuple[RefusedFile, ...]
    notes: tuple[str, ...]


def index(
    listing: Listing,
    *,
    workers: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
    thumbnails: NDArray[np.uint8] | None = None,
    progress: Callable[[Iterable[Any], int], Iterable[Any]] | None = None,
) -> Index:
    """Opens every picture of `listing`, once.

    Args:
        workers: threads; by default one a core. Decoding releases the interpreter's lock.
        thumbnails: uint8 (M, H, W, 3), M at least the listing's length; is filled with the pictures squashed to
            W x H, row by row as in the manifest.
        progress: wraps the results as they come, with their number, to show a bar.

    Raises:
        DataError: not one picture could be used.
    """
    columns = _Columns()
    refused = list(listing.refused)
    sizes = [EXAMINED] if thumbnails is None else [EXAMINED, (thumbnails.shape[2], thumbnails.shape[1])]
    results: Iterable[Any] = in_order(lambda item: _examine(listing, item, sizes, limits), listing.items, workers)
    for result in progress(results, len(listing.items)) if progress else results:
        if isinstance(result, RefusedFile):
            refused.append(result)
            continue
        looked: _Examined = result
        if thumbnails is not None:
            thumbnails[len(columns)] = looked.thumbnail
        columns.add(looked)
    if not len(columns):
        raise DataError(f"{listing.root}: none of its {len(refused)} files is a usable picture. First: {refused[0]}")
    table, statistics, altered = columns.finish()
    return Index(Manifest(listing.root.resolve(), table), statistics, altered, tuple(refused), listing.notes)


@dataclass(frozen=True)
class _Examined:
    """What one picture leaves: its row, its statistics, its hashes once altered, and its pixels at the last size."""

    row: dict[str, Any]
    statistics: NDArray[np.float32]
    altered: NDArray[np.uint64]
    thumbnail: NDArray[np.uint8]


class _Columns:
    """Rows gathered into Arrow batches as they come: a million dictionaries would take a gigabyte."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []
        self._statistics: list[NDArray[np.float32]] = []
        self._altered: list[NDArray[np.uint64]] = []
        self._batches: list[pa.RecordBatch] = []

    def __len__(self) -> int:
        return len(self._statistics)

    def add(self, one: _Examined) -> None:
        self._rows.append(one.row)
        self._statistics.append(one.statistics)
        self._altered.append(one.altered)
        if len(self._rows) == 4096:
            self._flush()

    def _flush(self) -> None:
        self._batches.append(pa.RecordBatch.from_pylist(self._rows, schema=SCHEMA))
        self._rows = []

    def finish(self) -> tuple[pa.Table, NDArray[np.float32], NDArray[np.uint64]]:
        self._flush()
        return pa.Table.from_batches(self._batches, SCHEMA), np.stack(self._statistics), np.stack(self._altered)


def _examine(listing: Listing, item: Item, sizes: Sequence[tuple[int, int]], limits: Limits) -> _Examined | RefusedFile:
    """Opens a picture at several sizes and judges it at the first."""
    path = listing.root / item.path
    try:
        data = read_bytes(path, limits)
        pictures = decode_at(data, sizes, path=path, limits=limits)
    except RefusedFile as refusal:
        return refusal
    picture = pictures[0]
    row = {
        "image_id": item.path,
        "path": item.path,
        "source": listing.name,
        "given_split": item.given_split,
        "given_label": item.given_label,
        "diagnosis": item.label.name if item.label else None,
        "lesion_id": item.lesion_id,
        "patient_id": item.patient_id,
        "age_years": item.age_years,
        "sex": item.sex,
        "site": item.site,
        "width": picture.info.width,
        "height": picture.info.height,
        "bytes": len(data),
        "format": picture.info.format,
        "sha256": hashlib.sha256(data).hexdigest(),
        "dhash": difference_hash(picture.pixels),
    }
    statistics = measure(picture.pixels)
    statistics[_OF_THE_FILE] = picture.info.width, picture.info.height, picture.info.width / picture.info.height
    return _Examined(row, statistics, altered_hashes(picture.pixels), pictures[-1].pixels)
