"""The canvas that cartoons of lesions are painted on, seen through a camera.

Comes in: a camera (size, turn, zoom and shift) and shapes in the plane of the skin. Goes out: float32 RGB pixels.
Knows no diagnosis: `lesion` says what to paint, `artefacts` what lies on top.

The plane's unit is half the short side of an unzoomed picture. A shape keeps its place on the skin whatever the
camera does, so that two photographs of one lesion show the same structures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Floats = NDArray[np.float32]  # fields of the picture, (H, W)
Points = NDArray[np.float64]
Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Camera:
    """A similarity from pixels to the plane of the skin.

    Attributes:
        width, height: pixels.
        turn: radians.
        zoom: over 1 shows the lesion larger.
        shift: where the middle of the picture lies on the skin.
    """

    width: int
    height: int
    turn: float = 0.0
    zoom: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)

    @property
    def scale(self) -> float:
        """Pixels to one unit of the plane."""
        return min(self.width, self.height) / 2 * self.zoom

    @property
    def matrix(self) -> Points:
        """From pixels, counted from the picture's middle, to the plane: float64 (2, 2)."""
        cosine, sine = np.cos(self.turn), np.sin(self.turn)
        return np.array([[cosine, -sine], [sine, cosine]]) / self.scale

    def axes(self) -> tuple[Points, Points]:
        """Pixel centres from the picture's middle: float64 (W,), (H,)."""
        x: Points = np.arange(self.width, dtype=np.float64) - (self.width - 1) / 2
        y: Points = np.arange(self.height, dtype=np.float64) - (self.height - 1) / 2
        return x, y

    def plane(self) -> tuple[Floats, Floats]:
        """Where each pixel lies on the skin: two of float32 (H, W)."""
        x, y = self.axes()
        m = self.matrix
        u = m[0, 0] * x[None, :] + m[0, 1] * y[:, None] + self.shift[0]
        v = m[1, 0] * x[None, :] + m[1, 1] * y[:, None] + self.shift[1]
        return u.astype(np.float32), v.astype(np.float32)

    def to_pixels(self, points: Points) -> Points:
        """Points of the plane (N, 2) as pixel coordinates x, y (N, 2)."""
        middle = np.array([(self.width - 1) / 2, (self.height - 1) / 2])
        pixels: Points = (points - np.array(self.shift)) @ np.linalg.inv(self.matrix).T + middle
        return pixels


class Canvas:
    """Pixels under a camera: `rgb` float32 (H, W, 3), nominally 0 to 1, painted in place."""

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        self.u, self.v = camera.plane()
        self.rgb: Floats = np.ones((camera.height, camera.width, 3), dtype=np.float32)

    def waves(self, rng: np.random.Generator, *, scale: float, count: int = 8) -> Floats:
        """A smooth random field with unit variance: `count` plane waves of about `scale` units, float32 (H, W).

        The camera is a similarity, so each wave is a product of two exponentials along the axes and the sum one
        product of matrices: as fast for a large picture as one multiplication.
        """
        angle, phase = rng.uniform(0, 2 * np.pi, size=(2, count))
        length = 2 * np.pi / (scale * rng.uniform(0.7, 1.4, size=count))
        vectors = np.stack([length * np.cos(angle), length * np.sin(angle)], axis=1)
        across, down = (vectors @ self.camera.matrix).T
        phase = phase + vectors @ np.array(self.camera.shift)
        x, y = self.camera.axes()
        rows = np.exp(1j * (y[:, None] * down + phase))
        columns = np.exp(1j * (across[:, None] * x))
        left = np.concatenate([rows.real, -rows.imag], axis=1).astype(np.float32)
        right = np.concatenate([columns.real, columns.imag]).astype(np.float32)
        field: Floats = left @ right * np.float32(np.sqrt(2 / count))
        return field

    def blend(self, colour: Colour, share: Floats) -> None:
        """Covers the picture with `colour`, as much at each pixel as `share` (H, W) says."""
        self.rgb += share[..., None] * (np.array(colour, dtype=np.float32) - self.rgb)

    def tint(self, factors: Colour, share: Floats) -> None:
        """Filters the light by `factors`, as much at each pixel as `share` (H, W) says."""
        self.rgb *= 1 + share[..., None] * (np.array(factors, dtype=np.float32) - 1)

    def spots(self, centres: Points, radii: Points, colour: Colour, strength: float, *, edge: float = 0.5) -> None:
        """Soft discs at `centres` (N, 2) with `radii` (N,) in units of the plane; `edge` is the soft share."""
        height, width, _ = self.rgb.shape
        paint = np.array(colour, dtype=np.float32)
        for (x, y), radius in zip(self.camera.to_pixels(centres), radii * self.camera.scale, strict=True):
            reach = radius + 1
            left, right = max(int(x - reach), 0), min(int(x + reach) + 2, width)
            top, bottom = max(int(y - reach), 0), min(int(y + reach) + 2, height)
            if left >= right or top >= bottom:
                continue
            across = np.arange(left, right, dtype=np.float32) - np.float32(x)
            down = np.arange(top, bottom, dtype=np.float32) - np.float32(y)
            distance = np.sqrt(across[None, :] ** 2 + down[:, None] ** 2)
            share = np.clip((radius + 0.5 - distance) / max(edge * radius, 1.0), 0, 1) * np.float32(strength)
            window = self.rgb[top:bottom, left:right]
            window += share[..., None] * (paint - window)

    def strokes(self, lines: Sequence[Points], widths: Sequence[float]) -> Floats:
        """How much of each pixel the lines (each (N, 2), in the plane) cover: float32 (H, W), 0 to 1."""
        return self.pixel_strokes(
            [self.camera.to_pixels(line) for line in lines], [width * self.camera.scale for width in widths]
        )

    def pixel_strokes(self, lines: Sequence[Points], widths: Sequence[float]) -> Floats:
        """The same for lines and widths in pixels."""
        height, width, _ = self.rgb.shape
        page = Image.new("L", (2 * width, 2 * height))
        pen = ImageDraw.Draw(page)
        for line, thick in zip(lines, widths, strict=True):
            path = [(float(x), float(y)) for x, y in 2 * line + 0.5]
            pen.line(path, fill=255, width=max(1, round(2 * thick)), joint="curve")
        return np.asarray(page.reduce(2), dtype=np.float32) / np.float32(255)
