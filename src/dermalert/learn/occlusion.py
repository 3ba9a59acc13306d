"""Hairs, rulers, marker strokes and black frames, drawn over training pictures.

Comes in: a picture's size and a random generator. Goes out: how much of each pixel the artefact covers, and in which
colour. `drawn.artefacts` paints the like on the cartoons; these need no picture library and lie on real pictures.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Occlusion(NamedTuple):
    """What lies on a picture.

    Attributes:
        share: float32 (H, W), how much of each pixel is covered, 0 to 1.
        colour: float32 (3,), RGB, 0 to 255.
    """

    share: NDArray[np.float32]
    colour: NDArray[np.float32]


def hairs(width: int, height: int, rng: np.random.Generator) -> Occlusion:
    """A few bent hairs that lie about the same way."""
    short, count, steps = (
        min(width, height),
        int(rng.integers(2, 12)),
        np.linspace(-0.5, 0.5, 3 * max(width, height) // 2),
    )
    length = short * rng.uniform(0.4, 1.2, size=(count, 1))
    angle = (
        rng.uniform(0, 2 * np.pi) + rng.normal(0, 0.5, size=(count, 1)) + rng.normal(0, 1.2, size=(count, 1)) * steps
    )
    middle = rng.random((2, count, 1)) * [[[width]], [[height]]]
    places = np.cumsum(np.stack([np.cos(angle), np.sin(angle)]), axis=2) * (length / len(steps))
    places += middle - places.mean(axis=2, keepdims=True)
    thick = np.maximum(short * rng.uniform(0.004, 0.012, size=(count, 1)), 1.0)
    share = _strokes(places, thick, width, height) * np.float32(rng.uniform(0.6, 0.95))
    brown = rng.uniform(0.05, 0.35) * np.array([1.0, 0.85, 0.7]) * 255
    return Occlusion(share, brown.astype(np.float32))


def _strokes(places: NDArray[np.float64], thick: NDArray[np.float64], width: int, height: int) -> NDArray[np.float32]:
    """How much of each pixel is covered by lines through close `places` (2, N, P), `thick` (N, 1) pixels wide."""
    reach = int(np.ceil(thick.max() / 2))
    around = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 2)).reshape(2, 1, 1, -1)
    pixels = np.round(places)[..., None] + around
    distance = np.hypot(*(pixels - places[..., None]))
    covered = np.clip(thick[..., None] / 2 + 0.5 - distance, 0, 1)
    x, y = pixels.astype(np.int64)
    seen = (x >= 0) & (x < width) & (y >= 0) & (y < height) & (covered > 0)
    share = np.zeros(height * width, dtype=np.float32)
    np.maximum.at(share, (y * width + x)[seen], covered[seen].astype(np.float32))
    return share.reshape(height, width)


def ruler(width: int, height: int, rng: np.random.Generator) -> Occlusion:
    """A scale of dark marks along one of the four sides, every fifth mark longer."""
    short, upright, far = min(width, height), rng.random() < 0.5, rng.random() < 0.5
    length, depth = (height, width) if upright else (width, height)
    pitch, inset, start = short * rng.uniform(0.04, 0.07), short * rng.uniform(0, 0.06), rng.uniform(0, 5)
    along = np.arange(length) / pitch + start
    mark = np.round(along)
    line = np.clip(1.25 - np.abs(along - mark) * pitch, 0, 1)
    end = inset + short * np.where(mark % 5 == 0, 0.09, 0.05)
    across = np.arange(depth)[:, None]
    within = np.clip(across - inset + 1, 0, 1) * np.clip(end - across + 1, 0, 1)
    share = (line * within * rng.uniform(0.6, 0.9)).astype(np.float32)
    share = share[::-1] if far else share
    dark = np.array([0.08, 0.08, 0.1]) * 255
    return Occlusion(share.T if upright else share, dark.astype(np.float32))


def ink(width: int, height: int, rng: np.random.Generator) -> Occlusion:
    """A few strokes of a surgical marker: violet, blue, green or black, mostly near the edge."""
    short, count, steps = min(width, height), int(rng.integers(1, 5)), np.linspace(-0.5, 0.5, 2 * max(width, height))
    length = short * rng.uniform(0.15, 0.7, size=(count, 1))
    angle = rng.uniform(0, 2 * np.pi, size=(count, 1)) + rng.normal(0, 1.5, size=(count, 1)) * steps
    around = rng.uniform(0, 2 * np.pi, size=count)
    far = rng.uniform(0.3, 0.55, size=count)
    middle = 0.5 + far * np.stack([np.cos(around), np.sin(around)])
    places = np.cumsum(np.stack([np.cos(angle), np.sin(angle)]), axis=2) * (length / len(steps))
    places += middle[..., None] * [[[width]], [[height]]] - places.mean(axis=2, keepdims=True)
    thick = short * rng.uniform(0.015, 0.05, size=(count, 1))
    colour = np.array(INKS[int(rng.integers(len(INKS)))], np.float32) * np.float32(rng.uniform(0.7, 1.2))
    return Occlusion(_strokes(places, thick, width, height) * np.float32(rng.uniform(0.4, 0.9)), colour)


INKS = ((75, 40, 130), (40, 60, 150), (30, 110, 100), (35, 35, 45))


def frame(width: int, height: int, rng: np.random.Generator) -> Occlusion:
    """The black around the round window of a dermoscope, or black bars along the sides."""
    x = np.abs((np.arange(width) + 0.5) / width - rng.uniform(0.47, 0.53)) * 2
    y = np.abs((np.arange(height)[:, None] + 0.5) / height - rng.uniform(0.47, 0.53)) * 2
    if rng.random() < 0.7:
        radius = rng.uniform(0.85, 1.3)
        beyond = np.hypot(x * rng.uniform(0.9, 1.1), y) - radius
    else:
        beyond = np.maximum(x - rng.uniform(0.75, 1.05), y - rng.uniform(0.75, 1.05))
    soft = rng.uniform(0.01, 0.15)
    share = np.clip(beyond / soft + 0.5, 0, 1).astype(np.float32)
    dark = rng.uniform(0, 30) * np.ones(3)
    return Occlusion(share, dark.astype(np.float32))


DRAWN = {"hair": hairs, "ruler": ruler, "ink": ink, "frame": frame}


def covered(picture: NDArray[np.uint8], occlusion: Occlusion) -> NDArray[np.uint8]:
    """The picture, uint8 (H, W, 3), with the occlusion on it."""
    share = occlusion.share[..., None]
    mixed: NDArray[np.uint8] = (picture + share * (occlusion.colour - picture) + np.float32(0.5)).astype(np.uint8)
    return mixed
