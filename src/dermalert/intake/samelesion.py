"""Same lesion: pairs of pictures that seem to show one lesion, photographed at another distance or angle.

Comes in: thumbnails, uint8 RGB. Goes out: suspected pairs with a score, for a person to look at and for
conservative grouping. Does not find all of them (under half), and is no proof: two moles of one person can pass.

Method: the spot that differs most from its surround is located and its size measured by its second moments; the
crops around the spots, so freed of position and zoom, are compared after whitening, and each picture's nearest
few are registered: fine structure correlated over zoom, rotation and shift, shift by Fourier transform (after
Reddy & Chatterji, IEEE Trans Image Process 5:1266, 1996, with the log-polar step replaced by a small search).
docs/decisions/0003-near-duplicates.md has recall and precision on lesions that were not used for choosing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from dermalert.errors import DataError
from dermalert.intake.neighbours import Index
from dermalert.intake.overlap import in_order

SIDE = 128
"""Height and width of the thumbnails, in pixels; pictures are squashed to it."""

# Log-odds = likeness (Fisher z), ln size, |ln zoom|, constant: logistic regression on HAM10000's lesions with even
# numbers, by benchmarks/neighbours.py --same-lesion. Structure that agrees counts for more in a large lesion, and
# across a zoom, where two round spots do not agree by chance.
WEIGHTS = (9.43, 2.01, 2.22, -14.99)
SUSPECTED = 2.75
"""Log-odds from which a pair is suspected: precision 0.95 on the lesions with even numbers, 0.97 on the others."""

Float = NDArray[np.float32]

_HALF = SIDE // 2  # the spot is located at half size
_CROP, _REACH = 48, 3.2  # pixels of a registered crop, and how many spot sizes it reaches from the centre
_GRID, _REACHES = 16, (1.8, 2.5)  # the same for the crops that are compared first
_ZOOMS = (0.65, 0.76, 0.87, 1.0, 1.15, 1.32, 1.52)
_TURNS = (-15.0, 0.0, 15.0)  # degrees
_SHIFT = 8  # pixels of the crop
_DETAIL = 4.0  # structure wider than so many pixels of the crop is taken off
_DIMENSIONS = 128
_ROWS = 256  # pictures whose nearest are found at a time
_BLOCK = 32  # pictures that are cropped at a time: their crops stay in the processor's cache


@dataclass(frozen=True)
class SameLesion:
    """Pairs suspected to show one lesion, the surest first.

    Attributes:
        first, second: int64 (P,), row numbers, first < second.
        score: float32 (P,), log-odds as calibrated on HAM10000; higher is surer.
    """

    first: Index
    second: Index
    score: Float


@dataclass(frozen=True)
class Candidates:
    """Registered pairs.

    Attributes:
        first, second: int64 (P,), row numbers, first < second.
        features: float32 (P, 3): Fisher z of the correlation after registration, ln of the smaller spot's size in
            pixels of the thumbnail, |ln| of the ratio of their sizes.
    """

    first: Index
    second: Index
    features: Float


@dataclass(frozen=True)
class _Spots:
    """Where the spot is in each thumbnail and how large: float32 (N,), pixels of the thumbnail."""

    y: Float
    x: Float
    size: Float


def same_lesion_pairs(
    thumbnails: NDArray[np.uint8],
    *,
    neighbours: int = 5,
    least: float = SUSPECTED,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SameLesion:
    """Pairs of pictures suspected to show one lesion.

    Args:
        thumbnails: uint8 (N, 128, 128, 3), squashed to the square; may be a memory map.
        neighbours: how many of each picture's nearest are looked at closely.
        least: log-odds from which a pair is suspected.
        workers: threads; by default one a core. The pairs are the same for any number.
        progress: called with the pictures done and their number.

    Raises:
        DataError: thumbnails of another shape or type.
    """
    pairs = candidates(thumbnails, neighbours=neighbours, workers=workers, progress=progress)
    score = pairs.features @ np.array(WEIGHTS[:3], np.float32) + np.float32(WEIGHTS[3])
    order = np.argsort(-score, kind="stable")
    order = order[score[order] >= least]
    return SameLesion(pairs.first[order], pairs.second[order], score[order])


def candidates(
    thumbnails: NDArray[np.uint8],
    *,
    neighbours: int = 5,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Candidates:
    """Each picture with its nearest few, registered and not yet judged. Arguments as in `same_lesion_pairs`."""
    if thumbnails.ndim != 4 or thumbnails.shape[1:] != (SIDE, SIDE, 3) or thumbnails.dtype != np.uint8:
        raise DataError(f"Thumbnails must be uint8 (N, {SIDE}, {SIDE}, 3), got {thumbnails.dtype} {thumbnails.shape}.")
    if len(thumbnails) < 2:
        nothing = np.empty(0, np.int64)
        return Candidates(nothing, nothing, np.empty((0, 3), np.float32))
    parts = list(in_order(lambda block: _look(thumbnails[block]), _blocks(len(thumbnails), _BLOCK), workers))
    spots = _Spots(*(np.concatenate([getattr(one, name) for one, _, _ in parts]) for name in ("y", "x", "size")))
    descriptors = np.concatenate([one for _, one, _ in parts])
    luminance = np.concatenate([one for _, _, one in parts])
    first, second = _nearest(_whitened(descriptors), neighbours)
    likeness = _register(luminance, spots, first, second, workers, progress)
    smaller = np.minimum(spots.size[first], spots.size[second])
    zoom = np.abs(np.log(spots.size[first] / spots.size[second]))
    features = np.stack([np.arctanh(np.clip(likeness, 0, 0.995)), np.log(smaller), zoom], axis=1)
    return Candidates(first, second, features.astype(np.float32))


def _blocks(n: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def _look(thumbnails: NDArray[np.uint8]) -> tuple[_Spots, Float, NDArray[np.uint8]]:
    """Of a block of thumbnails: the spots, the descriptors float32 (N, D), the luminance uint8 (N, 128, 128)."""
    pixels = thumbnails.astype(np.float32)
    halved = pixels.reshape(-1, _HALF, 2, _HALF, 2, 3).mean(axis=(2, 4))
    smooth = gaussian_filter(halved, (0, 0.7, 0.7, 0))
    spots = _locate(smooth)
    crops = [_cropped(smooth, spots, _GRID, reach) for reach in _REACHES]
    luminance = np.rint(pixels @ np.array([0.299, 0.587, 0.114], np.float32)).astype(np.uint8)
    whole = _Spots(spots.y * 2 + 0.5, spots.x * 2 + 0.5, spots.size * 2)
    return whole, np.concatenate([_unit(crop) for crop in crops], axis=1), luminance


def _locate(pixels: Float) -> _Spots:
    """The spot that differs in colour from the ring around the centre, by weighted moments in a shrinking window."""
    y, x = np.mgrid[:_HALF, :_HALF].astype(np.float32)
    middle = (_HALF - 1) / 2
    from_middle = np.hypot(y - middle, x - middle)
    ring, inside = (from_middle > 22) & (from_middle < 31), from_middle < 31  # corners may be dark
    surround = np.median(pixels[:, ring], axis=1)
    differs = np.linalg.norm(pixels - surround[:, None, None], axis=3).astype(np.float32) * inside
    spots = _Spots(*(np.full(len(pixels), value, np.float32) for value in (middle, middle, 9.0)))
    for fraction in (0.35, 0.35, 0.35):
        distance2 = (y - spots.y[:, None, None]) ** 2 + (x - spots.x[:, None, None]) ** 2
        weight = differs * np.exp(-distance2 / (2 * (2.2 * spots.size[:, None, None]) ** 2))
        weight = np.maximum(weight - fraction * weight.max(axis=(1, 2), keepdims=True), 0)
        total = weight.sum(axis=(1, 2)) + 1e-6
        spot_y, spot_x = (weight * y).sum(axis=(1, 2)) / total, (weight * x).sum(axis=(1, 2)) / total
        spread = (y - spot_y[:, None, None]) ** 2 + (x - spot_x[:, None, None]) ** 2
        size = np.sqrt((weight * spread).sum(axis=(1, 2)) / total / 2)
        spots = _Spots(spot_y, spot_x, np.clip(size, 2.5, 16))
    return spots


def _cropped(pictures: Float, spots: _Spots, side: int, reach: float, turn: float = 0.0) -> Float:
    """Square crops around the spots, turned by `turn` degrees, bilinear: (N, side, side, ...)."""
    y, x = np.meshgrid(*[((np.arange(side) + 0.5) / side * 2 - 1).astype(np.float32)] * 2, indexing="ij")
    cosine, sine = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    last = np.float32(pictures.shape[1] - 1.001)
    half = (spots.size * reach)[:, None, None]
    at_y = np.clip(spots.y[:, None, None] + half * (cosine * y - sine * x), 0, last)
    at_x = np.clip(spots.x[:, None, None] + half * (sine * y + cosine * x), 0, last)
    top, left = at_y.astype(np.int32), at_x.astype(np.int32)
    tail = (1,) * (pictures.ndim - 3)
    down, right = (at_y - top).reshape(*top.shape, *tail), (at_x - left).reshape(*left.shape, *tail)
    # One number a pixel, and `take`: a third of the time of indexing by three arrays.
    height, width = pictures.shape[1:3]
    pixels = pictures.reshape(-1, *pictures.shape[3:])
    here = (np.arange(len(pictures)) * height)[:, None, None] + top
    here *= width
    here += left
    upper = pixels.take(here, axis=0) * (1 - right) + pixels.take(here + 1, axis=0) * right
    here += width
    lower = pixels.take(here, axis=0) * (1 - right) + pixels.take(here + 1, axis=0) * right
    crops: Float = (upper * (1 - down) + lower * down).astype(np.float32, copy=False)
    return crops


def _unit(crops: Float) -> Float:
    """Each crop less its mean colour, as a vector of length 1."""
    flat = (crops - crops.mean(axis=(1, 2), keepdims=True)).reshape(len(crops), -1)
    unit: Float = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    return unit


def _whitened(descriptors: Float) -> Float:
    """Principal components with their spread evened out, so that what all spots share does not decide."""
    centred = descriptors - descriptors.mean(axis=0)
    variance, axes = _principal(centred)
    scaled = centred @ axes / np.maximum(variance, 1e-6 * variance[0] + 1e-12) ** 0.35
    unit: Float = scaled / np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), 1e-6)
    return unit.astype(np.float32)


def _principal(centred: Float) -> tuple[Float, Float]:
    """The largest variances, float32 (K,), and their axes, float32 (D, K), of the rows of `centred` (N, D)."""
    n, dimensions = centred.shape
    if n >= dimensions:
        variance, axes = np.linalg.eigh(centred.T @ centred / n)
        return variance[::-1][:_DIMENSIONS], axes[:, ::-1][:, :_DIMENSIONS]
    # Of few pictures: the same axes from the smaller matrix of the pictures' inner products.
    variance, weights = np.linalg.eigh(centred @ centred.T / n)
    variance, weights = variance[::-1][:_DIMENSIONS], weights[:, ::-1][:, :_DIMENSIONS]
    told = variance > 1e-6 * variance[0]
    told[0] = True  # pictures without any structure have no variance at all
    return variance[told], centred.T @ weights[:, told] / np.sqrt(np.maximum(n * variance[told], 1e-12))


def _nearest(unit: Float, neighbours: int) -> tuple[Index, Index]:
    """Each row with its nearest by cosine, as pairs without repeats, ordered by first row."""
    n, count = len(unit), min(neighbours, len(unit) - 1)
    found = []
    for block in _blocks(n, _ROWS):
        cosine = unit[block] @ unit.T
        rows = np.arange(block.start, block.stop)
        cosine[np.arange(len(rows)), rows] = -np.inf
        near = np.argpartition(-cosine, count - 1, axis=1)[:, :count]
        found.append(np.stack([np.repeat(rows, count), near.ravel()], axis=1))
    pairs = np.unique(np.sort(np.concatenate(found), axis=1), axis=0).astype(np.int64)
    return pairs[:, 0], pairs[:, 1]


def _register(
    luminance: NDArray[np.uint8],
    spots: _Spots,
    first: Index,
    second: Index,
    workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> Float:
    """The highest correlation of fine structure over zoom, turn and shift, float32 (P,)."""
    n = len(luminance)

    def still(block: slice) -> NDArray[np.complex64]:
        return _spectrum(luminance, spots, block, 1.0, 0.0)

    fixed = np.concatenate(list(in_order(still, _blocks(n, _BLOCK), workers)))

    def best_of(block: slice) -> Float:
        pairs = slice(*np.searchsorted(first, [block.start, block.stop]))
        target, moved = np.conj(fixed[second[pairs]]), first[pairs] - block.start
        best = np.full(len(moved), -1, np.float32)
        for zoom in _ZOOMS if len(moved) else ():
            for turn in _TURNS:
                spectrum = _spectrum(luminance, spots, block, zoom, turn)[moved]
                np.maximum(best, _peak(spectrum * target), out=best)
        return best

    found = []
    for best in in_order(best_of, _blocks(n, _BLOCK), workers):
        found.append(best)
        if progress is not None:
            progress(min(len(found) * _BLOCK, n), n)
    return np.concatenate(found)


def _spectrum(
    luminance: NDArray[np.uint8], spots: _Spots, block: slice, zoom: float, turn: float
) -> NDArray[np.complex64]:
    """Fourier transform of the fine structure around the spots, of unit energy."""
    inside = _Spots(spots.y[block], spots.x[block], spots.size[block])
    crops = _cropped(luminance[block].astype(np.float32), inside, _CROP, _REACH * zoom, turn)
    blur = _blurring()
    blurred = (blur @ crops).astype(np.float32) @ blur.T
    detail = np.clip(crops - blurred.astype(np.float32), -40, 40) * _window()
    detail -= detail.mean(axis=(1, 2), keepdims=True)
    energy = (detail**2).sum(axis=(1, 2), keepdims=True) + 30  # a flat crop has no structure to agree on
    spectrum: NDArray[np.complex64] = scipy.fft.rfft2(detail / np.sqrt(energy))
    return spectrum


@lru_cache(maxsize=1)
def _blurring() -> NDArray[np.float64]:
    """The Gaussian blur of an axis as a matrix: in float64 it rounds as the filter does, and is a third faster."""
    blurring: NDArray[np.float64] = gaussian_filter(np.eye(_CROP), (_DETAIL, 0))
    return blurring


@lru_cache(maxsize=1)
def _window() -> Float:
    along = np.arange(_CROP, dtype=np.float32) - (_CROP - 1) / 2
    distance2 = along[:, None] ** 2 + along**2
    window: Float = np.exp(-((distance2 / (2 * 14.0**2)) ** 2)).astype(np.float32)
    return window


def _peak(spectrum: NDArray[np.complex64]) -> Float:
    """The highest correlation within the allowed shift."""
    correlation = np.roll(scipy.fft.irfft2(spectrum, s=(_CROP, _CROP)), (_SHIFT, _SHIFT), axis=(1, 2))
    peak: Float = correlation[:, : 2 * _SHIFT + 1, : 2 * _SHIFT + 1].max(axis=(1, 2))
    return peak
