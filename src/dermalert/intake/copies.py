"""Copies: which pictures of many are one picture, asked of nothing but a short code and a thumbnail of each.

Comes in: paths. Goes out: pairs of them. It is the part of the audit that bears millions of pictures: each is decoded
at a fraction of its size, which for a JPEG is a fraction of the time, and no more than 832 bytes of it are kept. Says
nothing of quality, labels or lesions: `index` and `audit` do.

Hashes that are as near as no two other pictures are decide alone. Those that are near, but not so near, are looked at
again: a copy whose brightness was changed agrees in its thumbnail's fine structure, another lesion does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from dermalert.errors import RefusedFile
from dermalert.intake.decode import DEFAULT_LIMITS, Limits, load
from dermalert.intake.fingerprint import ALTERED, TRIMMED, altered_hashes, difference_hash, hashes_to_array
from dermalert.intake.neighbours import (
    ALTERED_RADIUS,
    NEAR_RADIUS,
    Pairs,
    near_pairs,
    near_pairs_between,
    united,
)
from dermalert.intake.overlap import in_order

LOOKED_AT = (96, 96)
"""Pixels at which a picture is hashed."""
WIDE_RADIUS = 28
"""Bits within which hashes are looked at again."""
AGAIN_UP_TO = 100_000
"""Pictures of which near ones are looked at again: so wide a search grows with the square of their number."""
AGREES = 0.95
"""Correlation of thumbnails from which such a pair is a copy. Of 2,853 other pairs of real pictures within 17 to 28
bits one in 300 reaches it, of the known copies among them three in four."""

_SIDE = 24  # pixels of a thumbnail
_FINE = 2.2  # pixels: what is wider is taken off, for it says where the lamp was, and that a mole lies in the middle
_PAIRS = 1 << 14  # looked at again at a time

Thumbnails = NDArray[np.uint8]  # (N, 24, 24), luminance


@dataclass(frozen=True)
class Copies:
    """What was found.

    Attributes:
        paths: those that could be read, N of them.
        pairs: rows of `paths` that are one picture, upright, turned, mirrored or trimmed.
        refused: the files that could not be read.
        looked_again: whether hashes that are near, but not so near, were looked at again, or were too many.
    """

    paths: tuple[Path, ...]
    pairs: Pairs
    refused: tuple[RefusedFile, ...]
    looked_again: bool


def find_copies(paths: Sequence[Path], *, workers: int | None = None, limits: Limits = DEFAULT_LIMITS) -> Copies:
    """Finds the copies among the pictures at `paths`.

    Args:
        workers: threads; by default one a core.
    """
    hashes = np.empty((len(paths), 1 + len(ALTERED), 4), np.uint64)
    thumbnails = np.empty((len(paths), _SIDE, _SIDE), np.uint8)
    kept: list[Path] = []
    refused: list[RefusedFile] = []
    for path, looked in zip(paths, in_order(partial(_look, limits=limits), paths, workers), strict=True):
        if isinstance(looked, RefusedFile):
            refused.append(looked)
        else:
            hashes[len(kept)], thumbnails[len(kept)] = looked
            kept.append(path)
    again = len(kept) <= AGAIN_UP_TO
    pairs = _copies(hashes[: len(kept)], thumbnails[: len(kept)], again)
    return Copies(tuple(kept), pairs, tuple(refused), again)


def _look(path: Path, limits: Limits) -> tuple[NDArray[np.uint64], Thumbnails] | RefusedFile:
    """The upright hash and the altered ones, uint64 (1 + A, 4), and the thumbnail, uint8 (24, 24)."""
    try:
        pixels = load(path, size=LOOKED_AT, limits=limits).pixels
    except RefusedFile as refusal:
        return refusal
    hashes = np.concatenate([hashes_to_array([difference_hash(pixels)]), altered_hashes(pixels)])
    return hashes, np.asarray(Image.fromarray(pixels).convert("L").reduce(LOOKED_AT[0] // _SIDE))


def _copies(hashes: NDArray[np.uint64], thumbnails: Thumbnails, again: bool) -> Pairs:
    upright = np.ascontiguousarray(hashes[:, 0])
    near = near_pairs(upright, radius=WIDE_RADIUS if again else NEAR_RADIUS)
    found = [_surely(near, thumbnails, lambda pictures: pictures, NEAR_RADIUS)]
    for way, name in enumerate(ALTERED, 1):
        altered, radius = np.ascontiguousarray(hashes[:, way]), WIDE_RADIUS if again else ALTERED_RADIUS
        near = near_pairs_between(altered, upright, radius=radius)
        found.append(_surely(near, thumbnails, _ALTER[name], ALTERED_RADIUS))
    return united(*found)


def _surely(near: Pairs, thumbnails: Thumbnails, alter: Callable[[Thumbnails], Thumbnails], radius: int) -> Pairs:
    """The pairs within `radius` bits, and those beyond whose thumbnails agree once the first is altered."""
    sure = near.distance <= radius
    again = np.flatnonzero(~sure)
    for start in range(0, len(again), _PAIRS):
        block = again[start : start + _PAIRS]
        one, other = alter(thumbnails[near.first[block]]), thumbnails[near.second[block]]
        sure[block] = (_fine(one) * _fine(other)).sum(axis=(1, 2)) >= AGREES
    return Pairs(near.first[sure], near.second[sure], near.distance[sure])


def _fine(thumbnails: Thumbnails) -> NDArray[np.float32]:
    """The fine structure inside the inscribed ellipse, of unit energy: a vignette's corners are outside."""
    y, x = np.mgrid[-1 : 1 : _SIDE * 1j, -1 : 1 : _SIDE * 1j]
    inside = (x * x + y * y < 0.9).astype(np.float32)
    pictures = thumbnails.astype(np.float32)
    detail = (pictures - gaussian_filter(pictures, (0, _FINE, _FINE))) * inside
    detail = (detail - detail.sum(axis=(1, 2), keepdims=True) / inside.sum()) * inside
    fine: NDArray[np.float32] = detail / np.sqrt((detail**2).sum(axis=(1, 2), keepdims=True) + 1e-3)
    return fine


def _trim(thumbnails: Thumbnails) -> Thumbnails:
    """Enlarged until `TRIMMED` of each side is outside."""
    places = (np.arange(_SIDE) + 0.5 - _SIDE / 2) * (1 - TRIMMED) + _SIDE / 2 - 0.5
    left = places.astype(np.int64)
    share = (places - left).astype(np.float32)
    across = thumbnails[:, :, left] * (1 - share) + thumbnails[:, :, left + 1] * share
    down = across[:, left] * (1 - share)[:, None] + across[:, left + 1] * share[:, None]
    trimmed: Thumbnails = np.rint(down).astype(np.uint8)
    return trimmed


_ALTER: dict[str, Callable[[Thumbnails], Thumbnails]] = {
    "mirrored": lambda pictures: pictures[:, :, ::-1],
    "flipped": lambda pictures: pictures[:, ::-1],
    "turned by 180": lambda pictures: pictures[:, ::-1, ::-1],
    "transposed": lambda pictures: pictures.swapaxes(1, 2),
    "turned by 90": lambda pictures: pictures.swapaxes(1, 2)[:, ::-1],
    "transposed and turned by 180": lambda pictures: pictures.swapaxes(1, 2)[:, ::-1, ::-1],
    "trimmed": _trim,
}
