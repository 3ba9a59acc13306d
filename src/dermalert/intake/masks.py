"""Lesion masks: which pixels of a picture are lesion, as somebody outlined it.

Comes in: a folder of masks named like their pictures, as HAM10000 and the ISIC segmentation sets have them. Goes out:
bool arrays at the asked size. Segments nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dermalert.errors import DataError, printable
from dermalert.intake.decode import EXTENSIONS, load

ENDING = "_segmentation"  # of the names in the ISIC segmentation sets


def masks_in(folder: Path) -> Mapping[str, Path]:
    """The masks in `folder` by the stem of their picture's name: `x.png` and `x_segmentation.png` are that of `x.jpg`.

    Raises:
        DataError: there is no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise DataError(f"{printable(str(folder))}: there is no such folder of masks.")
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in EXTENSIONS)
    if not files:
        raise DataError(f"{printable(str(folder))}: no masks there. They are pictures named like those they belong to.")
    return {file.stem.removesuffix(ENDING): file for file in files}


def load_mask(file: Path, size: tuple[int, int]) -> NDArray[np.bool_]:
    """bool (H, W) at `size`, (width, height): true where the mask is brighter than half.

    Raises:
        RefusedFile: as `decode.load`.
    """
    found: NDArray[np.bool_] = load(file, size=size).pixels.mean(axis=2) > 127.5
    return found
