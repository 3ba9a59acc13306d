"""Fingerprints: a short code that stays nearly the same when a picture is squashed, resized or recompressed.

Comes in: the upright pixels of one picture, uint8 RGB. Goes out: a 256-bit difference hash.
Does not look at colour, and is not invariant to turning, mirroring or cropping: `altered_hashes` gives the hashes that
copies altered so would have.
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
_ENOUGH = 128  # pixels of the shorter side: more cost time and tell no more

ALTERED = (
    "mirrored",
    "flipped",
    "turned by 180",
    "transposed",
    "turned by 90",  # counterclockwise; a copy turned the other way is the original of one turned so
    "transposed and turned by 180",
    "trimmed",
)
"""Ways in which a copy may be altered so much that its hash is another one."""
TRIMMED = 0.05
"""The share of each side that is cut off in "trimmed", half at either end."""


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
    return _packed(_grid(_luminance(pixels), (_SIDE + 1, _SIDE)))


def altered_hashes(pixels: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """The difference hashes that the picture would have once altered in each way of `ALTERED`: uint64 (7, 4).

    A turned or mirrored grid is the grid of the turned or mirrored picture, so that two squeezes serve for all
    turns. A copy that is altered so lies as near to one of these as a plain copy lies to `difference_hash`.
    Arguments and errors as `difference_hash`.
    """
    luminance = _luminance(pixels)
    luminance = luminance.reduce(max(min(luminance.size) // _ENOUGH, 1))
    upright, lying = _grid(luminance, (_SIDE + 1, _SIDE)), _grid(luminance, (_SIDE, _SIDE + 1)).T
    edge_x, edge_y = (side * TRIMMED / 2 for side in luminance.size)
    inner = (edge_x, edge_y, luminance.width - edge_x, luminance.height - edge_y)
    grids = {
        "mirrored": upright[:, ::-1],
        "flipped": upright[::-1],
        "turned by 180": upright[::-1, ::-1],
        "transposed": lying,
        "turned by 90": lying[::-1],
        "transposed and turned by 180": lying[::-1, ::-1],
        "trimmed": _grid(luminance, (_SIDE + 1, _SIDE), inner),
    }
    return hashes_to_array([_packed(grids[name]) for name in ALTERED])


def _luminance(pixels: NDArray[np.uint8]) -> Image.Image:
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or pixels.size == 0:
        raise DataError(f"A fingerprint needs uint8 pixels (H, W, 3), got {pixels.dtype} {pixels.shape}.")
    return Image.fromarray(pixels).convert("L")


def _grid(
    luminance: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> NDArray[np.uint8]:
    return np.asarray(luminance.resize(size, Image.Resampling.LANCZOS, box))


def _packed(grid: NDArray[np.uint8]) -> bytes:
    return np.packbits(grid[:, 1:] > grid[:, :-1]).tobytes()


def hashes_to_array(hashes: Sequence[bytes]) -> NDArray[np.uint64]:
    """The hashes as words, uint64 (N, 4), for the arithmetic in `neighbours`.

    Raises:
        DataError: a hash is not 32 bytes long.
    """
    if any(len(one) != _BYTES for one in hashes):
        raise DataError(f"Each hash must have {_BYTES} bytes; these have {sorted({len(one) for one in hashes})}.")
    return np.frombuffer(b"".join(hashes), dtype=np.uint64).reshape(len(hashes), _BYTES // 8).copy()
