"""Drawn pictures as bytes, for tests that bring them to the clinic."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from graphs import SIZE


def picture(number: int, *, size: tuple[int, int] = SIZE) -> bytes:
    """A PNG of one colour, another for each number below 2^24."""
    return png((number % 256, number // 256 % 256, number // 65536), size=size)


def png(colour: tuple[int, int, int], *, size: tuple[int, int] = SIZE) -> bytes:
    """A PNG of that colour."""
    stream = io.BytesIO()
    Image.fromarray(np.full((size[1], size[0], 3), colour, np.uint8)).save(stream, "PNG")
    return stream.getvalue()
