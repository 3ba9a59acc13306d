"""Fingerprints: a short code that stays nearly the same when a picture is squashed, resized or recompressed.

Comes in: the upright pixels of one picture, uint8 RGB. Goes out: a 256-bit difference hash.
Does not look at colour, and is not invariant to turning, mirroring or cropping: see `samelesion` for those.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dermalert.errors import DataError

BITS = 256
_BYTES = BITS // 8
_SIDE = 16


def difference_hash(pixels: NDArray[np.uint8]) -> bytes:
    """Where the luminance rises from left to right, on a grid of 16 x 16 (dHash, N. Krawetz 2013).

    The picture is squeezed to 17 x 16 without regard for its aspect ratio, so that a squashed copy keeps its
    hash. Lanczos with antialiasing: of the three filters tried it parted copies from other pictures best.
    A picture without any structure has the hash of zeros.

    Args:
        pixels: uint8 (H, W, 3), at least one pixel.

    Returns:
        32 bytes, row by row, most significant bit leftmost.

    Raises:
        DataError: not an RGB picture of uint8, or without pixels.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or pixels.size == 0:
        raise DataError(f"A fingerprint needs uint8 pixels (H, W, 3), got {pixels.dtype} {pixels.shape}.")
    luminance = Image.fromarray(pixels).convert("L").resize((_SIDE + 1, _SIDE), Image.Resampling.LANCZOS)
    grid = np.asarray(luminance)
    return np.packbits(grid[:, 1:] > grid[:, :-1]).tobytes()


def hashes_to_array(hashes: Sequence[bytes]) -> NDArray[np.uint64]:
    """The hashes as words, uint64 (N, 4), for the arithmetic in `neighbours`.

    Raises:
        DataError: a hash is not 32 bytes long.
    """
    if any(len(one) != _BYTES for one in hashes):
        raise DataError(f"Each hash must have {_BYTES} bytes; these have {sorted({len(one) for one in hashes})}.")
    return np.frombuffer(b"".join(hashes), dtype=np.uint64).reshape(len(hashes), _BYTES // 8).copy()
