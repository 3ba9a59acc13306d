"""Small pictures inside a page.

Comes in: decoded pixels. Goes out: a data URI of a JPEG made anew from those pixels, so that no EXIF, GPS or
hidden payload of the original file travels with the page. It opens no image file: `intake.decode` does.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dermalert.errors import DataError

_QUALITY, _CLOSE_QUALITY = 82, 92


@dataclass(frozen=True)
class Picture:
    """One picture in a page.

    Attributes:
        source: a data URI.
        alt: what it shows, for those who cannot see it.
        caption: shown below it; may be empty.
        note: a second, quieter line; may be empty.
        width, height: of the encoded picture, in pixels.
        name: of its file, shown last; may be empty.
    """

    source: str
    alt: str
    caption: str
    note: str
    width: int
    height: int
    name: str = ""


def thumbnail(pixels: NDArray[np.uint8], *, edge: int = 96) -> str:
    """`pixels` as a data URI, its longer side at most `edge` pixels; never enlarged.

    Args:
        pixels: uint8 (H, W, 3), RGB.
        edge: pixels.

    Raises:
        DataError: not uint8 (H, W, 3), or an empty picture.
    """
    return _encode(_shrunk(pixels, edge))


def rendition(pixels: NDArray[np.uint8], *, edge: int) -> bytes:
    """`pixels` as a JPEG for looking at closely, its longer side at most `edge` pixels; never enlarged.

    Args:
        pixels: uint8 (H, W, 3), RGB.
        edge: pixels.

    Raises:
        DataError: as `thumbnail`.
    """
    return _jpeg(_shrunk(pixels, edge), _CLOSE_QUALITY)


def picture(
    pixels: NDArray[np.uint8],
    *,
    alt: str,
    caption: str = "",
    note: str = "",
    name: str = "",
    edge: int = 96,
    square: bool = False,
) -> Picture:
    """`pixels` as a captioned thumbnail; `square` cuts out the middle, so that rows of pictures line up."""
    small = _shrunk(_middle(pixels) if square else pixels, edge)
    return Picture(_encode(small), alt, caption, note, small.width, small.height, name)


def _shrunk(pixels: NDArray[np.uint8], edge: int) -> Image.Image:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise DataError(f"A thumbnail takes uint8 (H, W, 3), not {pixels.dtype} {pixels.shape}.")
    image = Image.fromarray(pixels)
    image.thumbnail((edge, edge), Image.Resampling.LANCZOS)
    return image


def _middle(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(pixels[top : top + side, left : left + side])


def _encode(image: Image.Image) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(_jpeg(image, _QUALITY)).decode("ascii")


def _jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()
