"""The gate: whether a picture may be judged, and what a photographer can do where it may not.

Comes in: pixels at the model's size, the file's width and height, the graph's features and a `Gate`. Goes out: a
`Verdict`. It knows nothing of diagnoses and fits nothing: `stages.gating` does.

Three questions, and the first that says no gives the reason:

- Quality. Can this picture show a lesion at all? Limits on size, light, colour, detail and sharpness, the same for
  every model; they lie outside of all but a few of the 13,000 pictures of HAM10000, ISIC 2017 and the nine-class set.
- Distance. Is its texture unlike that of every dermoscopic picture? A Mahalanobis distance along the principal axes
  of the features (Lee et al., "A simple unified framework for detecting out-of-distribution samples and adversarial
  attacks", NeurIPS 2018).
- Other things. Is it more like the photographs, scans and screens that the gate was shown? A logistic regression on
  the same features (outlier exposure: Hendrycks, Mazeika and Dietterich, ICLR 2019).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dermalert.bundle.gate import Gate
from dermalert.errors import BundleError

Floats = NDArray[np.float32]

FEATURES = ("texture",)  # outputs of the graph that a gate needs
_SIDE = 128  # pixels of the square that quality is measured on
_FIELD = 0.95  # radius within which it is measured, of half the side: a dermatoscope's black rim says nothing
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_BLACK = 16  # luminance under which nothing can be seen
_WHITE = 250  # of a channel, from which it may have burnt out


@dataclass(frozen=True)
class Quality:
    """What is measured of one picture, in its inscribed ellipse.

    Attributes:
        side: the file's shorter side in pixels.
        black: share of pixels with a luminance below 16.
        white: share of pixels of which two channels or all are 250 or more: of pale skin, blue burns out last.
        light: mean luminance, 0 to 255.
        colour: mean of (largest - smallest channel) / largest channel.
        contrast: standard deviation of the luminance.
        sharpness: 95th percentile of the absolute Laplacian of the luminance.
    """

    side: float
    black: float
    white: float
    light: float
    colour: float
    contrast: float
    sharpness: float


@dataclass(frozen=True)
class _Limit:
    """Refused at `refused` or beyond; from `good` on quality is full."""

    refused: float
    good: float
    reason: str


# In the order in which they are told: the cause before its consequences.
_LIMITS: tuple[tuple[str, _Limit], ...] = (
    ("side", _Limit(63, 150, "The picture is only {:.0f} pixels wide or high. Give the camera's original")),
    ("black", _Limit(0.75, 0.5, "The picture is black in {:.0%} of its field. Switch the light on and take it again")),
    ("white", _Limit(0.8, 0.5, "Overexposed: {:.0%} of the picture has burnt out. Take it again with less light")),
    ("light", _Limit(40, 75, "Too dark: a mean brightness of {:.0f} of 255. Take it again with more light")),
    ("contrast", _Limit(2.5, 6, "An even surface without a lesion. Aim at the lesion and take it again")),
    ("colour", _Limit(0.015, 0.05, "The picture has no colours. Take it again in colour")),
    ("sharpness", _Limit(3.4, 7, "Out of focus. Clean the lens, focus and take it again")),
)
_NOT_DERMOSCOPIC = (
    "Does not look like a dermoscopic picture. Only photographs of one skin lesion, taken through a dermatoscope, can "
    "be judged"
)
_UNUSUAL = (
    "Unusual for a dermoscopic picture: if it was taken without a dermatoscope, it is outside the intended use and the "
    "score means nothing"
)


@dataclass(frozen=True)
class Verdict:
    """What the gate says of one picture.

    Attributes:
        accepted: whether it may be judged.
        ood: how unlike dermoscopic pictures it is: 0 or more, refused from 1.0.
        quality: 0, refused, to 1, nothing to complain of.
        reason: why it is refused, and the mend; "" where it is accepted.
        flag: a warning that belongs beside the score of an accepted picture; "" where there is none.
    """

    accepted: bool
    ood: float
    quality: float
    reason: str = ""
    flag: str = ""


def measure_quality(pixels: NDArray[np.uint8], width: int, height: int) -> Quality:
    """The measures of one picture.

    Args:
        pixels: uint8 (H, W, 3), the whole picture at any size of 64 pixels or more.
        width, height: of the file, in pixels.
    """
    planes = _planes(pixels)
    luminance = _LUMA[0] * planes[0] + _LUMA[1] * planes[1] + _LUMA[2] * planes[2]
    laplacian = 4 * luminance[1:-1, 1:-1]
    for neighbour in (luminance[:-2, 1:-1], luminance[2:, 1:-1], luminance[1:-1, :-2], luminance[1:-1, 2:]):
        laplacian -= neighbour
    light, red, green, blue = luminance.take(_INSIDE), *planes.reshape(3, -1).take(_INSIDE, axis=1)
    high, low = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    middle = red + green + blue - high - low
    return Quality(
        side=float(min(width, height)),
        black=float((light < _BLACK).mean()),
        white=float((middle >= _WHITE).mean()),
        light=float(light.mean()),
        colour=float(((high - low) / np.maximum(high, 1)).mean()),
        contrast=float(light.std()),
        sharpness=_quantile(np.abs(laplacian.take(_INSIDE_INNER)), 0.95),
    )


def _quantile(values: Floats, share: float) -> float:
    """As `np.quantile`, whose first call loads the arrays with masks: a twentieth of a cold start."""
    below, part = divmod(share * (len(values) - 1), 1)
    low, high = np.partition(values, (int(below), int(below) + 1))[int(below) : int(below) + 2].tolist()
    return float(low + (high - low) * part)


def _planes(pixels: NDArray[np.uint8]) -> Floats:
    """Each channel's mean in each of `_SIDE` by `_SIDE` cells, float32 (3, _SIDE, _SIDE).

    Sums of rows, first down and then across. As products of matrices they would wake the threads of BLAS for every
    picture, which then stand in the way of those that score.
    """
    height, width, channels = pixels.shape
    down = _means_of_rows(pixels.reshape(height, -1).astype(np.float32))
    turned = np.ascontiguousarray(down.reshape(_SIDE, width, channels).transpose(1, 2, 0))
    both = _means_of_rows(turned.reshape(width, -1)).reshape(_SIDE, channels, _SIDE)
    return np.ascontiguousarray(both.transpose(1, 2, 0))


def _means_of_rows(values: Floats) -> Floats:
    """float32 (_SIDE, M) from (L, M): each cell's mean of the rows that it covers."""
    return np.asarray(sum(values.take(row, axis=0) * share for row, share in _cells(len(values))))


@lru_cache(maxsize=8)
def _cells(length: int) -> tuple[tuple[NDArray[np.int64], Floats], ...]:
    """The first row that each of `_SIDE` cells covers of `length` rows, the second, and so on to the last.

    Each as the rows, int64 (_SIDE,), and their shares in the cells' means, float32 (_SIDE, 1).
    """
    edges, row = np.linspace(0, length, _SIDE + 1)[:, None], np.arange(length)
    covered = np.minimum(edges[1:], row + 1) - np.maximum(edges[:-1], row)
    shares = (np.maximum(covered, 0) * _SIDE / length).astype(np.float32)
    most = int((shares > 0).sum(axis=1).max())
    first = np.minimum((shares > 0).argmax(axis=1), length - most)
    rows = [first + step for step in range(most)]
    return tuple((each, shares[np.arange(_SIDE), each][:, None]) for each in rows)


def _ellipse() -> NDArray[np.bool_]:
    along = (np.arange(_SIDE) + 0.5) / _SIDE * 2 - 1
    inside: NDArray[np.bool_] = np.hypot(along[None, :], along[:, None]) < _FIELD
    return inside


# Places in the flattened luminance, and in the flattened Laplacian, which lacks the outermost cells.
_INSIDE = np.flatnonzero(_ellipse())
_INSIDE_INNER = np.flatnonzero(_ellipse()[1:-1, 1:-1])


def judge_quality(quality: Quality) -> tuple[float, str]:
    """Quality from 0 to 1, the worst of all measures, and the first reason to refuse, "" where there is none."""
    shares, reason = [], ""
    for name, limit in _LIMITS:
        value = float(getattr(quality, name))
        share = (value - limit.refused) / (limit.good - limit.refused)
        shares.append(min(max(share, 0.0), 1.0))
        if share <= 0 and not reason:
            reason = limit.reason.format(value)
    return min(shares), reason


def distances(gate: Gate, texture: Floats) -> NDArray[np.float64]:
    """The mean squared distance from dermoscopic pictures along the gate's axes, float64 (N,); about 1 for them."""
    along = np.einsum("nt,at->na", texture.astype(np.float64) - gate.centre, gate.axes.astype(np.float64))
    return np.asarray((along**2).mean(axis=1))


def other_logits(gate: Gate, texture: Floats) -> NDArray[np.float64]:
    """The logit of being something else, refused from 0, float64 (N,)."""
    logits: NDArray[np.float64] = np.einsum("nf,f->n", texture.astype(np.float64), gate.weights.astype(np.float64))
    return logits + float(gate.bias[0])


def judge(gate: Gate, features: Mapping[str, Floats], qualities: Sequence[Quality]) -> list[Verdict]:
    """One verdict a picture.

    `ood` is the larger of the distance over its limit and twice the logistic function of the logit: both are 1 where
    they refuse.

    Args:
        features: the graph's outputs `FEATURES`, a row a picture.
        qualities: of the same pictures, from `measure_quality`.

    Raises:
        BundleError: the gate was fitted on features of another model.
    """
    _check(gate, features)
    texture = features["texture"]
    distance = distances(gate, texture)
    ood, flagged = distance / gate.distance_limits[1], distance >= gate.distance_limits[0]
    if len(gate.weights):
        logits = other_logits(gate, texture)
        ood = np.maximum(ood, 2 / (1 + np.exp(-np.clip(logits, -30, 30))))
        flagged |= logits >= gate.flag_logit[0]
    return [_verdict(*each) for each in zip(ood.tolist(), flagged.tolist(), qualities, strict=True)]


def _check(gate: Gate, features: Mapping[str, Floats]) -> None:
    texture = features["texture"].shape[1]
    if len(gate.centre) != texture or len(gate.weights) not in (0, texture):
        raise BundleError("The bundle's gate was fitted on features of another model. Fit it again.")


def _verdict(ood: float, flagged: bool, quality: Quality) -> Verdict:
    share, reason = judge_quality(quality)
    if not reason and ood >= 1:
        reason = _NOT_DERMOSCOPIC
    return Verdict(not reason, ood, share, reason, _UNUSUAL if flagged and not reason else "")
