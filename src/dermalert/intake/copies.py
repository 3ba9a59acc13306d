"""Copies: which pictures of many are one picture, asked of nothing but their hashes.

Comes in: paths. Goes out: pairs of them. It is the part of the audit that bears millions of pictures: each is decoded
at a fraction of its size, which for a JPEG is a fraction of the time, and nothing is kept but its hashes. Says
nothing of quality, labels or lesions: `index` and `audit` do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dermalert.errors import RefusedFile
from dermalert.intake.decode import DEFAULT_LIMITS, Limits, load
from dermalert.intake.fingerprint import ALTERED, altered_hashes, difference_hash, hashes_to_array
from dermalert.intake.neighbours import NEAR_RADIUS, Pairs, altered_pairs, near_pairs, united
from dermalert.intake.overlap import in_order

LOOKED_AT = (96, 96)
"""Pixels at which a picture is hashed: at 64, one copy in a hundred more is missed, and no less time is taken."""


@dataclass(frozen=True)
class Copies:
    """What was found.

    Attributes:
        paths: those that could be read, N of them.
        pairs: rows of `paths` that are one picture, upright, turned, mirrored or trimmed.
        refused: the files that could not be read.
    """

    paths: tuple[Path, ...]
    pairs: Pairs
    refused: tuple[RefusedFile, ...]


def find_copies(paths: Sequence[Path], *, workers: int | None = None, limits: Limits = DEFAULT_LIMITS) -> Copies:
    """Finds the copies among the pictures at `paths`. 256 bytes a picture are held while they are read.

    Args:
        workers: threads; by default one a core.
    """
    hashes = np.empty((len(paths), 1 + len(ALTERED), 4), np.uint64)
    kept: list[Path] = []
    refused: list[RefusedFile] = []
    for path, looked in zip(paths, in_order(partial(_hashes, limits=limits), paths, workers), strict=True):
        if isinstance(looked, RefusedFile):
            refused.append(looked)
        else:
            hashes[len(kept)] = looked
            kept.append(path)
    upright = np.ascontiguousarray(hashes[: len(kept), 0])
    pairs = united(near_pairs(upright, radius=NEAR_RADIUS), altered_pairs(upright, hashes[: len(kept), 1:]))
    return Copies(tuple(kept), pairs, tuple(refused))


def _hashes(path: Path, limits: Limits) -> NDArray[np.uint64] | RefusedFile:
    """The upright hash, then the altered ones: uint64 (1 + A, 4)."""
    try:
        pixels = load(path, size=LOOKED_AT, limits=limits).pixels
    except RefusedFile as refusal:
        return refusal
    return np.concatenate([hashes_to_array([difference_hash(pixels)]), altered_hashes(pixels)])
