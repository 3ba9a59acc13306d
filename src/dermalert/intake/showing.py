"""Pictures of a manifest for a page: one at a time, scaled while they are decoded.

Comes in: a Manifest. Goes out: a function from image id to pixels. Nothing is loaded before it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dermalert.intake.decode import load
from dermalert.intake.manifest import Manifest

EDGE = 320


def pixels_by_id(manifest: Manifest, *, edge: int = EDGE) -> Callable[[str], NDArray[np.uint8]]:
    """The function: uint8 (H, W, 3), the longer side at most `edge` px. It raises `RefusedFile` as `load` does."""
    columns = (manifest.column(name) for name in ("image_id", "width", "height"))
    files = {i: (path, w, h) for path, (i, w, h) in zip(manifest.paths(), zip(*columns, strict=True), strict=True)}

    def pixels(image_id: str) -> NDArray[np.uint8]:
        path, width, height = files[image_id]
        scale = min(1.0, edge / max(width, height))
        return load(path, size=(max(1, round(width * scale)), max(1, round(height * scale)))).pixels

    return pixels
