"""The outline of a lesion and the dermoscopic structures inside it.

Comes in: a canvas, an outline and a random generator. Goes out: the canvas, painted on.
Does not choose what to show: `lesion` does, for each diagnosis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dermalert.drawn.canvas import Canvas, Floats, Points


@dataclass(frozen=True)
class Shape:
    """A lesion's outline.

    Attributes:
        radius: its mean radius, in units of the plane.
        depth: how deep inside a pixel lies, float32 (H, W): 1 in the middle, 0 on the outline, negative outside.
        mask: how much a pixel belongs to the lesion, float32 (H, W), 0 to 1.
    """

    radius: float
    depth: Floats
    mask: Floats

    @classmethod
    def drawn(
        cls,
        canvas: Canvas,
        rng: np.random.Generator,
        *,
        size: tuple[float, float],
        ragged: float,
        skewed: float,
        soft: float,
    ) -> Shape:
        """An ellipse around the origin whose radius is modulated by seven harmonics."""
        radius = rng.uniform(*size)
        stretch, lean = rng.uniform(1, 1.25 + skewed / 2), rng.uniform(0, np.pi)
        along = (np.cos(lean) * canvas.u + np.sin(lean) * canvas.v) / np.float32(np.sqrt(stretch))
        across = (np.cos(lean) * canvas.v - np.sin(lean) * canvas.u) * np.float32(np.sqrt(stretch))
        angle = np.arctan2(across, along)
        outline = np.ones_like(angle)
        for order in range(2, 9):
            height = rng.normal(0, ragged / order**0.6)
            outline += np.float32(height) * np.cos(order * angle + np.float32(rng.uniform(0, 2 * np.pi)))
        outline = np.clip(outline, 0.35, 1.8)
        depth = 1 - np.hypot(along, across) / (np.float32(radius) * outline)
        depth += canvas.waves(rng, scale=0.15) * np.float32(ragged * 0.12)
        mask = np.clip(depth / np.float32(soft) + np.float32(0.5), 0, 1)
        slant = rng.uniform(0, 2 * np.pi)
        shifted = depth + np.float32(skewed * 0.5 / radius) * (np.cos(slant) * canvas.u + np.sin(slant) * canvas.v)
        return cls(radius, shifted.astype(np.float32), (mask * mask * (3 - 2 * mask)).astype(np.float32))

    def points(self, rng: np.random.Generator, count: int, *, reach: float = 0.8) -> Points:
        """Places within `reach` of the radius, evenly spread: float64 (count, 2)."""
        distance = reach * self.radius * np.sqrt(rng.random(count))
        angle = rng.uniform(0, 2 * np.pi, size=count)
        return np.stack([distance * np.cos(angle), distance * np.sin(angle)], axis=1)


def _hexagons(canvas: Canvas, rng: np.random.Generator, pitch: float, warp: float) -> Floats:
    """A warped honeycomb: 1 on its lines, 0 in its holes."""
    turn = rng.uniform(0, np.pi)
    bend = canvas.waves(rng, scale=0.5) * np.float32(warp)
    total = np.zeros_like(canvas.u)  # the bends keep the sum of phases, or the holes would become the lines
    for third in range(3):
        angle = turn + third * np.pi / 3
        along = np.cos(angle) * canvas.u + np.sin(angle) * canvas.v
        total += np.cos(np.float32(2 * np.pi / pitch) * along.astype(np.float32) + bend * (1, 1, 0)[third])
    lines: Floats = np.clip((np.float32(0.6) - total) / np.float32(1.2), 0, 1)
    return lines


def _network(canvas: Canvas, shape: Shape, rng: np.random.Generator) -> None:
    lines = _hexagons(canvas, rng, rng.uniform(0.1, 0.15), rng.uniform(0.5, 1.5))
    canvas.tint((0.66, 0.58, 0.54), lines * shape.mask * np.clip(1.2 - shape.depth, 0, 1))


def _pseudonetwork(canvas: Canvas, shape: Shape, rng: np.random.Generator) -> None:
    holes = 1 - _hexagons(canvas, rng, rng.uniform(0.2, 0.28), 1.0)
    canvas.blend((0.93, 0.80, 0.68), holes**2 * shape.mask * np.float32(0.4))
    canvas.tint((0.98, 0.72, 0.70), (1 - holes) * shape.mask * np.float32(0.5))


def _ridges(canvas: Canvas, shape: Shape, rng: np.random.Generator) -> None:
    angle, pitch = rng.uniform(0, np.pi), rng.uniform(0.08, 0.12)
    along = (np.cos(angle) * canvas.u + np.sin(angle) * canvas.v).astype(np.float32)
    lines = np.cos(np.float32(2 * np.pi / pitch) * along + canvas.waves(rng, scale=0.7) * np.float32(3))
    canvas.tint((0.76, 0.70, 0.60), np.clip(lines, 0, 1) * shape.mask * np.float32(0.8))


def _streaks(canvas: Canvas, shape: Shape, rng: np.random.Generator) -> None:
    first, spread = rng.uniform(0, 2 * np.pi), rng.uniform(1.0, 2.5)
    angles = first + np.linspace(0, spread, int(rng.integers(7, 16))) + rng.normal(0, 0.04)
    rays = np.stack([np.cos(angles), np.sin(angles)], axis=1) * shape.radius
    ends = rng.uniform(1.05, 1.3, size=len(angles))
    lines = [np.stack([0.7 * ray, end * ray]) for ray, end in zip(rays, ends, strict=True)]
    canvas.blend((0.18, 0.13, 0.13), canvas.strokes(lines, [0.03] * len(lines)) * np.float32(0.75))


def _globules(canvas: Canvas, shape: Shape, rng: np.random.Generator) -> None:
    count = int(rng.integers(12, 40))
    canvas.spots(shape.points(rng, count), rng.uniform(0.015, 0.045, size=count), (0.2, 0.14, 0.12), 0.6)


def _veil(canvas: Canvas, shape: Shape, rng: np.random.Generator) -> None:
    patch = np.clip(canvas.waves(rng, scale=0.9) * np.float32(0.7) + np.float32(0.25), 0, 1)
    share = patch * np.clip(shape.depth * 3, 0, 1) * shape.mask
    canvas.blend((0.45, 0.48, 0.58), share * np.float32(rng.uniform(0.5, 0.8)))


def _regression(canvas: Canvas, shape: Shape, rng: np.random.Generator) -> None:
    canvas.blend((0.86, 0.80, 0.79), np.clip(canvas.waves(rng, scale=0.6) - 0.6, 0, 1) * shape.mask * np.float32(0.8))


def _white_centre(canvas: Canvas, shape: Shape, rng: np.random.Generator) -> None:
    middle = np.clip((shape.depth + canvas.waves(rng, scale=0.2) * np.float32(0.06) - 0.5) * 4, 0, 1)
    canvas.blend((0.95, 0.88, 0.84), middle.astype(np.float32) * np.float32(rng.uniform(0.6, 0.9)))


def _arborising(canvas: Canvas, shape: Shape, rng: np.random.Generator) -> None:
    lines: list[Points] = []
    widths: list[float] = []
    for _ in range(int(rng.integers(3, 6))):
        start = shape.points(rng, 1, reach=1.0)[0]
        heading = np.arctan2(-start[1], -start[0]) + rng.normal(0, 0.5)
        _branch(rng, start, heading, shape.radius * rng.uniform(0.5, 0.9), 0.028, lines, widths)
    canvas.blend((0.72, 0.13, 0.17), canvas.strokes(lines, widths) * np.float32(0.85))


def _branch(
    rng: np.random.Generator,
    start: Points,
    heading: float,
    length: float,
    width: float,
    lines: list[Points],
    widths: list[float],
) -> None:
    headings = heading + np.cumsum(rng.normal(0, 0.25, size=8))
    steps = np.stack([np.cos(headings), np.sin(headings)], axis=1) * length / 8
    line = np.concatenate([start[None], start + np.cumsum(steps, axis=0)])
    lines.append(line)
    widths.append(width)
    if width > 0.014:
        for place in rng.integers(3, 9, size=2):
            turned = heading + rng.choice([-1.0, 1.0]) * rng.uniform(0.4, 1.0)
            _branch(rng, line[place], turned, length * 0.6, width * 0.65, lines, widths)


def _nests(canvas: Canvas, shape: Shape, rng: np.random.Generator) -> None:
    count = int(rng.integers(4, 12))
    canvas.spots(shape.points(rng, count), rng.uniform(0.05, 0.14, size=count), (0.36, 0.38, 0.48), 0.75, edge=0.6)


def _dotted_vessels(canvas: Canvas, shape: Shape, rng: np.random.Generator) -> None:
    count = int(rng.integers(20, 50))
    canvas.spots(shape.points(rng, count, reach=1.0), rng.uniform(0.015, 0.03, size=count), (0.68, 0.12, 0.16), 0.75)


def _comedones(canvas: Canvas, shape: Shape, rng: np.random.Generator) -> None:
    count = int(rng.integers(6, 18))
    canvas.spots(shape.points(rng, count), rng.uniform(0.03, 0.07, size=count), (0.24, 0.17, 0.12), 0.8)


def _milia(canvas: Canvas, shape: Shape, rng: np.random.Generator) -> None:
    count = int(rng.integers(8, 24))
    canvas.spots(shape.points(rng, count), rng.uniform(0.025, 0.055, size=count), (0.96, 0.92, 0.80), 0.85, edge=0.8)


def _scales(canvas: Canvas, shape: Shape, rng: np.random.Generator) -> None:
    flakes = np.clip((canvas.waves(rng, scale=0.16, count=12) - np.float32(0.5)) * 2, 0, 1)
    canvas.blend((0.95, 0.91, 0.86), flakes * shape.mask * np.float32(0.8))


def _keratin(canvas: Canvas, shape: Shape, rng: np.random.Generator) -> None:
    plug = np.clip((shape.depth + canvas.waves(rng, scale=0.25) * np.float32(0.1) - 0.55) * 5, 0, 1)
    canvas.blend((0.90, 0.74, 0.42), plug.astype(np.float32) * np.float32(0.85))


def _lacunae(canvas: Canvas, shape: Shape, rng: np.random.Generator) -> None:
    count = int(rng.integers(7, 20))
    radii = rng.uniform(0.14, 0.3, size=count) * shape.radius
    purple = (0.36, 0.10, 0.24) if rng.random() < 0.5 else (0.58, 0.08, 0.14)
    canvas.spots(shape.points(rng, count), radii, purple, 0.85, edge=0.35)


# In the order in which they lie on each other.
STRUCTURES: dict[str, Callable[[Canvas, Shape, np.random.Generator], None]] = {
    "network": _network,
    "pseudonetwork": _pseudonetwork,
    "ridges": _ridges,
    "streaks": _streaks,
    "globules": _globules,
    "nests": _nests,
    "lacunae": _lacunae,
    "veil": _veil,
    "regression": _regression,
    "white centre": _white_centre,
    "dotted vessels": _dotted_vessels,
    "arborising": _arborising,
    "comedones": _comedones,
    "milia": _milia,
    "scales": _scales,
    "keratin": _keratin,
}
