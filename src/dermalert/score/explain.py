"""Evidence maps: where in a picture the evidence for a diagnosis lies, by the bundle's own graph alone.

Comes in: an engine and pictures at the bundle's size. Goes out: an `Explanation` a picture: a map in calibrated
log-odds, positive where the picture speaks for the diagnosis. It draws nothing, and a map is no finding: it shows what
the model used, not where a disease is.

Two methods, by what the graph gives:

- `class activation`: from the graph's `evidence`, the features before global average pooling times the head's kernel
  (Zhou, Khosla, Lapedriza, Oliva and Torralba, "Learning deep features for discriminative localization", CVPR 2016).
  For a network that ends in such a pooling and one dense layer this is an exact decomposition of the logits, and equals
  Grad-CAM. A softmax does not change when one map is added to all classes, so a class's own map means nothing alone: we
  show the class against the others, each weighed as its probability among them, which is the gradient of the log-odds.
- `occlusion`: for any other graph, by hiding one window after the other and asking how far the log-odds fall (Zeiler
  and Fergus, "Visualizing and understanding convolutional networks", ECCV 2014). What is hidden is blurred rather than
  blackened: a black square is something that a network may have an opinion on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dermalert.errors import DataError, printable
from dermalert.score.engine import Engine

EVIDENCE = "evidence"  # the graph's output that class activation needs
CLASS_ACTIVATION, OCCLUSION = "class activation", "occlusion"
GRID = 10  # windows along each side
WINDOW = 0.2  # of each side: twice the distance between windows, so that each spot is hidden several times
BATCH = 25  # hidden pictures that go through the graph at once
BLUR = 0.125  # of the longer side: the deviation that leaves the overall colours and hides all structure


@dataclass(frozen=True, eq=False)
class Explanation:
    """What spoke for one diagnosis in one picture.

    Attributes:
        diagnosis: the class in question.
        probability: of it, calibrated.
        values: float32 (H, W) at the bundle's size, in log-odds; comparable within a picture.
        method: `class activation` or `occlusion`.
    """

    diagnosis: str
    probability: float
    values: NDArray[np.float32]
    method: str

    @property
    def speaking_for(self) -> NDArray[np.float32]:
        """float32 (H, W): what speaks for the diagnosis; 0 where nothing or something against it."""
        return np.maximum(self.values, 0)

    @property
    def peak(self) -> tuple[float, float] | None:
        """Where most speaks for the diagnosis: shares of the width and of the height, from the upper left corner.

        None where nothing does.
        """
        row, column = np.unravel_index(int(self.values.argmax()), self.values.shape)
        if self.values[row, column] <= 0:
            return None
        height, width = self.values.shape
        return (float(column) + 0.5) / width, (float(row) + 0.5) / height


def explain(engine: Engine, pixels: NDArray[np.uint8], diagnosis: str) -> list[Explanation]:
    """What speaks for `diagnosis` in each picture.

    Args:
        pixels: uint8 (N, H, W, 3) at the bundle's size.

    Raises:
        DataError: the bundle's model does not know the diagnosis, or never names it.
        BundleError: as `Engine.run`.
    """
    classes = engine.bundle.classes
    if diagnosis not in classes:
        known = ", ".join(classes)
        raise DataError(f"This model does not know {printable(diagnosis)!r}. Name one of its classes: {known}.")
    if diagnosis in engine.bundle.untold:
        raise DataError(
            f"This model never names {diagnosis}: no label that it was given means that alone. Ask for another class."
        )
    number = classes.index(diagnosis)
    maps, probabilities = evidence(engine, pixels, [number] * len(pixels))
    values = smoothed(maps, engine.bundle.size)
    method = method_of(engine)
    return [
        Explanation(diagnosis, float(row[number]), one, method) for one, row in zip(values, probabilities, strict=True)
    ]


def method_of(engine: Engine) -> str:
    """How maps are made with this engine's graph."""
    return CLASS_ACTIVATION if engine.has(EVIDENCE) else OCCLUSION


def evidence(
    engine: Engine, pixels: NDArray[np.uint8], classes: Sequence[int]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """The maps as coarse as they are made, and the probabilities.

    Args:
        pixels: uint8 (N, H, W, 3) at the bundle's size.
        classes: (N,) the number of the class that each picture is asked about.

    Returns:
        float32 (N, h, w) in calibrated log-odds, and float64 (N, C).
    """
    if method_of(engine) == OCCLUSION:
        return _occlusion(engine, pixels, classes)
    found = engine.run(pixels, "logits", EVIDENCE)
    calibration = engine.bundle.calibration
    probabilities = calibration.apply(found["logits"])
    maps = class_activation(found[EVIDENCE] / calibration.temperature, probabilities, classes)
    return maps.astype(np.float32), probabilities


def class_activation(
    activations: NDArray[np.float32], probabilities: NDArray[np.float64], classes: Sequence[int]
) -> NDArray[np.float64]:
    """Class activation maps against the other classes, float64 (N, h, w): the gradient of the log-odds.

    Args:
        activations: float32 (N, h, w, C), each class's own map.
        probabilities: float64 (N, C).
        classes: (N,) the number of the class that each picture is asked about.
    """
    rows, asked = np.arange(len(activations)), np.asarray(classes, dtype=np.int64)
    others = probabilities.copy()
    others[rows, asked] = 0
    others /= np.maximum(others.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    found: NDArray[np.float64] = activations[rows, :, :, asked] - np.einsum("nhwc,nc->nhw", activations, others)
    return found


def _occlusion(
    engine: Engine, pixels: NDArray[np.uint8], classes: Sequence[int]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    probabilities = engine.probabilities(pixels)
    windows = _windows(*pixels.shape[1:3])
    maps = np.empty((len(pixels), GRID, GRID), dtype=np.float32)
    for number, (picture, row, asked) in enumerate(zip(pixels, probabilities, classes, strict=True)):
        covered = np.where(windows[..., None], hidden(picture), picture)
        parts = [engine.probabilities(covered[start : start + BATCH]) for start in range(0, len(covered), BATCH)]
        fallen = _log_odds(row[None], asked) - _log_odds(np.concatenate(parts), asked)
        maps[number] = fallen.reshape(GRID, GRID)
    return maps, probabilities


def _windows(height: int, width: int) -> NDArray[np.bool_]:
    """bool (GRID * GRID, H, W): what each window hides, row by row from the upper left."""
    centres = (np.arange(GRID) + 0.5) / GRID

    def along(side: int) -> NDArray[np.bool_]:
        places = (np.arange(side) + 0.5) / side
        near: NDArray[np.bool_] = np.abs(places - centres[:, None]) <= WINDOW / 2
        return near

    return (along(height)[:, None, :, None] & along(width)[None, :, None, :]).reshape(-1, height, width)


def _log_odds(probabilities: NDArray[np.float64], asked: int) -> NDArray[np.float64]:
    others = np.delete(probabilities, asked, axis=1).sum(axis=1)
    tiny = np.finfo(np.float64).tiny
    found: NDArray[np.float64] = np.log(np.maximum(probabilities[:, asked], tiny)) - np.log(np.maximum(others, tiny))
    return found


def hidden(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture, uint8 (H, W, 3), with nothing left but its overall colours: what stands where a part is hidden.

    Blurred, not blackened, as in Fong and Vedaldi, "Interpretable explanations of black boxes by meaningful
    perturbation", ICCV 2017.
    """
    deviation = BLUR * max(picture.shape[:2])
    blurred = ndimage.gaussian_filter(picture.astype(np.float32), (deviation, deviation, 0), mode="nearest", truncate=2)
    found: NDArray[np.uint8] = np.rint(blurred).astype(np.uint8)
    return found


def smoothed(maps: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Coarse maps (N, h, w) at `size`, (width, height): float32 (N, H, W).

    Cubic B-splines without their prefilter: no edge of the grid stays visible, and no value overshoots, as it would in
    an interpolation.
    """
    width, height = size
    factors = height / maps.shape[1], width / maps.shape[2]
    grown = [
        ndimage.zoom(one, factors, order=3, prefilter=False, mode="nearest", grid_mode=True, output=np.float32)
        for one in maps
    ]
    return np.stack(grown)
