"""Picture statistics: what a picture is like apart from what it shows.

Comes in: the upright pixels of one picture, uint8 RGB. Goes out: one number for each name in `STATISTICS`.
Does not judge quality: `audit` compares sets by these numbers, and the gate has its own limits.

All but the size are measured with the longer side at 128 px, so that they mean the same for a camera's
original and for its thumbnail.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dermalert.errors import DataError

STATISTICS: tuple[str, ...] = (
    "width",  # pixels, as given
    "height",
    "aspect",  # width / height
    "sharpness",  # variance of the Laplacian of the luminance
    "exposure",  # mean luminance, 0 to 255
    "contrast",  # standard deviation of the luminance
    "underexposed",  # fraction of pixels with a luminance below 16
    "overexposed",  # fraction of pixels with a luminance above 247
    "red",  # mean of the channel, 0 to 255
    "green",
    "blue",
    "saturation",  # mean of (max - min) / max of the channels
    "vignette",  # fraction of dark pixels outside the inscribed ellipse
    "border",  # fraction of the picture taken by near-black rows and columns at its edges
    "hair",  # fraction of pixels on thin dark lines
    "ruler",  # strength of evenly spaced dark ticks, 0 to 1
)

_SIDE = 128
_DARK, _BRIGHT, _BLACK = 16, 247, 24
_HAIR_WIDTH = 7  # a line as wide as this, or wider, is no hair: pixels at the fixed scale
_HAIR_DEPTH = 20  # how much darker than its sides a hair is, in luminance
_STRIP = 8  # height of the strips that are searched for ticks
_TICKS = slice(6, 33)  # ticks a side; fewer are structure of the lesion, more are noise

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as in JPEG


def measure(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The statistics of one picture, float32 (S,), in the order of `STATISTICS`.

    Args:
        pixels: uint8 (H, W, 3), at least one pixel.

    Raises:
        DataError: not an RGB picture of uint8, or without pixels.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or pixels.size == 0:
        raise DataError(f"Statistics need uint8 pixels (H, W, 3), got {pixels.dtype} {pixels.shape}.")
    height, width = pixels.shape[:2]
    small = _at_fixed_scale(pixels)
    luminance = small @ _LUMA
    grey = np.rint(luminance).astype(np.uint8)
    planes = np.ascontiguousarray(small.transpose(2, 0, 1))  # reducing over three neighbours is slow
    red, green, blue = planes.mean(axis=(1, 2))
    bright = planes.max(axis=0).astype(np.float32)
    saturation = (bright - planes.min(axis=0)) / np.maximum(bright, 1)
    across, along = _dark_lines(grey)
    values = {
        "width": width,
        "height": height,
        "aspect": width / height,
        "sharpness": _laplacian(luminance).var(),
        "exposure": luminance.mean(),
        "contrast": luminance.std(),
        "underexposed": (grey < _DARK).mean(),
        "overexposed": (grey > _BRIGHT).mean(),
        "red": red,
        "green": green,
        "blue": blue,
        "saturation": saturation.mean(),
        "vignette": _vignette(grey),
        "border": _border(grey),
        "hair": (across.astype(np.int16) - along > _HAIR_DEPTH).mean(),
        "ruler": max(_ticks(across - grey), _ticks((across - grey).T)),
    }
    return np.array([values[name] for name in STATISTICS], np.float32)


def _at_fixed_scale(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    scale = _SIDE / max(pixels.shape[:2])
    height, width = (max(8, round(side * scale)) for side in pixels.shape[:2])
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX))


def _laplacian(luminance: NDArray[np.float32]) -> NDArray[np.float32]:
    centre = luminance[1:-1, 1:-1]
    around = luminance[:-2, 1:-1] + luminance[2:, 1:-1] + luminance[1:-1, :-2] + luminance[1:-1, 2:]
    return around - 4 * centre


def _vignette(grey: NDArray[np.uint8]) -> float:
    """Outside the ellipse that touches the four sides, how much is darker than half of the picture's centre."""
    height, width = grey.shape
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    outside = x * x + y * y > 1
    centre = np.median(grey[height // 4 : -(height // 4), width // 4 : -(width // 4)])
    return float((grey[outside] < centre / 2).mean())


def _border(grey: NDArray[np.uint8]) -> float:
    rows, columns = (grey.max(axis=axis) < _BLACK for axis in (1, 0))
    if rows.all():
        return 1.0
    kept = (_inner(rows) / len(rows)) * (_inner(columns) / len(columns))
    return 1.0 - kept


def _inner(black: NDArray[np.bool_]) -> int:
    """How many lines remain between the black ones at either end."""
    lit = np.flatnonzero(~black)
    return int(lit[-1] - lit[0] + 1)


def _dark_lines(grey: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The highest and the lowest closing by a short line in four directions, uint8 (H, W) each.

    A hair is filled by the line across it and stays dark under the line along it, whereas a dot is filled
    by all and an area by none (after DullRazor: Lee et al., Comput Biol Med 27:533, 1997).
    """
    closings = [_closing(grey, step) for step in ((0, 1), (1, 0), (1, 1), (1, -1))]
    return np.maximum.reduce(closings), np.minimum.reduce(closings)


def _closing(grey: NDArray[np.uint8], step: tuple[int, int]) -> NDArray[np.uint8]:
    reach = _HAIR_WIDTH // 2
    padded = np.pad(grey, 2 * reach, mode="edge")
    return _slide(np.minimum, _slide(np.maximum, padded, step, reach), step, reach)


def _slide(extreme: np.ufunc, padded: NDArray[np.uint8], step: tuple[int, int], reach: int) -> NDArray[np.uint8]:
    """The extreme over a line of 2 reach + 1 pixels in the direction `step`; `reach` pixels smaller at each side."""
    height, width = (side - 2 * reach for side in padded.shape)
    views = []
    for offset in range(-reach, reach + 1):
        top, left = reach + offset * step[0], reach + offset * step[1]
        views.append(padded[top : top + height, left : left + width])
    result: NDArray[np.uint8] = views[0].copy()
    for view in views[1:]:
        extreme(result, view, out=result)
    return result


def _ticks(darkness: NDArray[np.uint8]) -> float:
    """How much the strip with the most evenly spaced dark ticks stands out from the others.

    Of each strip: the share of the profile's variance in one frequency and its neighbours, times how deep the
    ticks are (full marks from a mean swing of 16 levels). A ruler marks one strip or two, hair marks many: so
    the median strip is taken off.
    """
    height = len(darkness) // _STRIP * _STRIP
    profiles = darkness[:height].reshape(-1, _STRIP, darkness.shape[1]).mean(axis=1, dtype=np.float32)
    swing = profiles - profiles.mean(axis=1, keepdims=True)
    power = np.abs(np.fft.rfft(swing * np.hanning(swing.shape[1]), axis=1)) ** 2
    peak = power[:, :-2] + power[:, 1:-1] + power[:, 2:]
    share = peak[:, _TICKS].max(axis=1, initial=0) / np.maximum(power[:, 1:].sum(axis=1), 1e-6)
    strength = share * np.minimum(swing.std(axis=1) / 16, 1)
    return float(strength.max() - np.median(strength))
