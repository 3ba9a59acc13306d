"""Lost resolution and JPEG compression, as weaker cameras and archives leave them on pictures.

Comes in: a picture and a random generator. Goes out: the picture at the same size, with less in it.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SMALLEST = 0.35  # of the width and height that are left
_QUALITY = (20, 85)  # of libjpeg


def degraded(picture: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """The picture, uint8 (H, W, 3), made smaller, stored as a JPEG and brought back to its size."""
    height, width = picture.shape[:2]
    share = rng.uniform(_SMALLEST, 1)
    small = Image.fromarray(picture).resize(
        (max(8, round(width * share)), max(8, round(height * share))), Image.Resampling.BOX
    )
    stored = io.BytesIO()
    small.save(stored, "JPEG", quality=int(rng.integers(*_QUALITY)))
    again = Image.open(stored, formats=["JPEG"]).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(again)
