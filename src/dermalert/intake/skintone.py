"""Skin tone: the individual typology angle of the skin around a lesion, estimated from the picture.

Comes in: the upright pixels of one picture, uint8 RGB. Goes out: an angle in degrees, or NaN where too little skin
is seen. It names no skin type: `judge.subgroups` puts angles in bands.

The angle is ITA = atan2(L* - 50, b*) in CIELAB (Chardin, Hourseau and Bouchalal, "Skin colour typology and suntanning
pathways", Int J Cosmet Sci 13:191-208, 1991): the larger, the lighter. It was made for a colorimeter. From pictures it
is an estimate that groups them, as in Kinyanjui et al., "Fairness of classifiers across skin tones in dermatology"
(MICCAI 2020) and Groh et al. (CVPR Workshops 2021), and a rough one: a dermatoscope's light, its polarisation and the
camera's white balance and exposure move it by more than the width of a band. Of 300 pictures of HAM10000, two in five
are so blue that b* is not above 0, which no skin is: their angle lies above 90 degrees and tells of the light alone.
Where the skin is taken to be matters less: with the set's own lesion masks the angle is the same to 0.7 degrees
(median; 4.2 in nine of ten).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import grey_closing

SIDE = 100  # pixels: the longer side that is looked at, 100 to 199
INNER = 0.75  # the ring begins at this share of the way to the sides: most lesions end before it
LEAST_SKIN = 0.1  # share of the ring that must be skin
_BLACK = 40  # luminance below which nothing is seen of the skin: a dermatoscope's dark rim
_GLARE = 250
_LIGHT = 0.85  # what is darker than this share of the ring's upper quartile is lesion or the shade of the rim
_LINE = 0.05  # a dark line narrower than this share of the longer side is hair or a ruler's tick
_DEPTH = 12  # how much darker than its sides, in luminance
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as in JPEG
# sRGB to CIE XYZ under D65 (IEC 61966-2-1), each row divided by the white's coordinate.
_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_XYZ /= _XYZ.sum(axis=1, keepdims=True)


def typology_angle(pixels: NDArray[np.uint8]) -> float:
    """The individual typology angle of the skin around the lesion, in degrees; NaN where there is too little of it.

    Args:
        pixels: uint8 (H, W, 3), RGB, squashed to any size; hair is told best at 100 to 300 pixels a side.
    """
    step = max(1, max(pixels.shape[:2]) // SIDE)
    small = pixels[::step, ::step]
    skin = skin_around(small)
    if not skin.any():
        return math.nan
    lightness, _, yellowness = np.median(cielab(small[skin]), axis=0).tolist()
    return math.degrees(math.atan2(lightness - 50, yellowness))


def skin_around(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which pixels are taken for skin, bool (H, W): of the outer ring, what is no hair, dark rim, glare or lesion.

    The ring lies outside the ellipse at `INNER` of the way to the sides, and so keeps the corners. Lesion that reaches
    into it is left out as what is darker than the ring by far: the lighter half of the ring is skin wherever skin
    covers half of it. All False where less than `LEAST_SKIN` of the ring remains.
    """
    height, width = pixels.shape[:2]
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    ring = x * x + y * y > INNER**2
    luminance = pixels @ _LUMA
    line = 2 * max(1, round(_LINE * max(height, width) / 2)) + 1
    hair = grey_closing(luminance, size=(line, line), mode="nearest") - luminance > _DEPTH
    skin: NDArray[np.bool_] = ring & ~hair & (luminance > _BLACK) & (luminance < _GLARE)
    if not skin.any():
        return skin
    light = float(np.quantile(luminance[skin], 0.75))
    skin &= luminance > _LIGHT * light
    return skin if skin.sum() >= LEAST_SKIN * ring.sum() else np.zeros_like(skin)


def cielab(colours: NDArray[np.uint8]) -> NDArray[np.float64]:
    """CIELAB (L*, a*, b*) of sRGB colours under D65, uint8 (..., 3) to float64 (..., 3)."""
    share = colours / 255.0
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _XYZ.T
    root = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(root, -1, 0)
    lab: NDArray[np.float64] = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
    return lab
