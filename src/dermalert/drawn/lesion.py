"""Cartoons of dermoscopic pictures: skin, a lesion that looks like its diagnosis, and what the camera adds.

Comes in: a diagnosis and a random generator. Goes out: uint8 pixels (H, W, 3).
Nothing here is medical: the cartoons let everything run without data, and no figure measured on them means anything.

What each diagnosis shows follows the dermoscopic criteria of Argenziano et al., J Am Acad Dermatol 48:679 (2003).
One lesion in `MIMICS_SHARE` looks like another diagnosis, so that no classifier gets them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dermalert.drawn.artefacts import USUAL, Artefacts, add_artefacts
from dermalert.drawn.canvas import Camera, Canvas, Colour
from dermalert.drawn.structures import STRUCTURES, Shape
from dermalert.errors import DataError
from dermalert.taxonomy import NAMES

LONG_SIDE = 256  # painted at no more than this and enlarged: the fields are smooth, and time goes with the area
MIMICS_SHARE = 0.1

# Skin from type I to VI of Fitzpatrick, under polarised light.
SKIN: tuple[Colour, ...] = (
    (0.95, 0.80, 0.76),
    (0.91, 0.74, 0.67),
    (0.85, 0.66, 0.56),
    (0.74, 0.55, 0.43),
    (0.59, 0.42, 0.32),
    (0.44, 0.31, 0.24),
)
SKIN_SHARES = (0.2, 0.35, 0.2, 0.12, 0.08, 0.05)


@dataclass(frozen=True)
class Look:
    """How the lesions of a diagnosis look.

    Attributes:
        tints: what the lesion lets through of the skin's light, from its rim inwards.
        size: least and largest radius, in units of the plane.
        ragged: how irregular the outline is, as a share of the radius.
        skewed: how far the colours lie off the middle.
        soft: width of the border, as a share of the radius.
        shows: the chance of each structure.
        mimics: the diagnosis that it is sometimes taken for.
    """

    tints: tuple[Colour, ...]
    size: tuple[float, float]
    ragged: float
    skewed: float
    soft: float
    shows: Mapping[str, float]
    mimics: str


LOOKS: dict[str, Look] = {
    "actinic keratosis": Look(
        tints=((1.0, 0.76, 0.72), (0.95, 0.66, 0.62)),
        size=(0.45, 0.85),
        ragged=0.12,
        skewed=0.2,
        soft=0.3,
        shows={"pseudonetwork": 0.9, "scales": 0.35},
        mimics="squamous cell carcinoma",
    ),
    "basal cell carcinoma": Look(
        tints=((1.0, 0.84, 0.84), (0.98, 0.76, 0.76)),
        size=(0.4, 0.8),
        ragged=0.12,
        skewed=0.2,
        soft=0.15,
        shows={"arborising": 0.9, "nests": 0.8},
        mimics="squamous cell carcinoma",
    ),
    "dermatofibroma": Look(
        tints=((0.84, 0.70, 0.62), (0.76, 0.60, 0.52)),
        size=(0.35, 0.65),
        ragged=0.06,
        skewed=0.1,
        soft=0.3,
        shows={"network": 0.6, "white centre": 0.95},
        mimics="nevus",
    ),
    "melanoma": Look(
        tints=((0.68, 0.50, 0.42), (0.42, 0.30, 0.28), (0.26, 0.20, 0.21)),
        size=(0.45, 0.95),
        ragged=0.2,
        skewed=0.6,
        soft=0.1,
        shows={"network": 0.5, "globules": 0.6, "streaks": 0.5, "veil": 0.8, "regression": 0.3},
        mimics="nevus",
    ),
    "nevus": Look(
        tints=((0.74, 0.58, 0.49), (0.58, 0.42, 0.34)),
        size=(0.35, 0.75),
        ragged=0.06,
        skewed=0.1,
        soft=0.18,
        shows={"network": 0.8, "globules": 0.3},
        mimics="melanoma",
    ),
    "pigmented benign keratosis": Look(
        tints=((0.82, 0.72, 0.60), (0.74, 0.62, 0.48)),
        size=(0.45, 0.85),
        ragged=0.13,
        skewed=0.3,
        soft=0.05,
        shows={"ridges": 0.85, "globules": 0.15},
        mimics="seborrheic keratosis",
    ),
    "seborrheic keratosis": Look(
        tints=((0.62, 0.54, 0.46), (0.50, 0.41, 0.34)),
        size=(0.45, 0.85),
        ragged=0.1,
        skewed=0.2,
        soft=0.03,
        shows={"comedones": 0.7, "milia": 0.9},
        mimics="pigmented benign keratosis",
    ),
    "squamous cell carcinoma": Look(
        tints=((0.98, 0.74, 0.70), (0.88, 0.60, 0.56)),
        size=(0.4, 0.8),
        ragged=0.16,
        skewed=0.3,
        soft=0.15,
        shows={"dotted vessels": 0.7, "scales": 0.85, "keratin": 0.75},
        mimics="actinic keratosis",
    ),
    "vascular lesion": Look(
        tints=((0.92, 0.58, 0.60), (0.78, 0.40, 0.46)),
        size=(0.3, 0.7),
        ragged=0.1,
        skewed=0.1,
        soft=0.1,
        shows={"lacunae": 0.95},
        mimics="melanoma",
    ),
}


def draw_lesion(
    diagnosis: str,
    rng: np.random.Generator,
    *,
    width: int,
    height: int,
    view: int = 0,
    artefacts: Artefacts = USUAL,
) -> NDArray[np.uint8]:
    """One photograph of one lesion.

    Takes a single number from `rng`. It fixes the skin and the lesion; with `view` it fixes the photograph: turn,
    zoom, shift, light, colour balance and artefacts. So generators in the same state and another `view` give another
    photograph of the same lesion, and generators in the same state and all else equal give the same pixels on one
    machine with the same versions of the libraries.

    Args:
        diagnosis: one of the nine in `taxonomy.NAMES`.
        rng: advanced by one number, whatever the other arguments.
        width: pixels, at least 16.
        height: pixels, at least 16.
        view: which photograph of the lesion, from 0.
        artefacts: how often hair, rulers and the like lie on the skin.

    Returns:
        uint8 (height, width, 3).

    Raises:
        DataError: no such diagnosis, or a size too small to show anything.
    """
    if diagnosis not in LOOKS:
        raise DataError(f"Cannot draw {diagnosis!r}. It must be one of: {', '.join(NAMES)}.")
    if min(width, height) < 16 or view < 0:
        raise DataError(f"A drawing needs at least 16 x 16 pixels and a view from 0, got {width} x {height}, {view}.")
    seed = int(rng.integers(2**63))
    shot = np.random.default_rng([seed, 1, view])
    shrink = min(1.0, LONG_SIDE / max(width, height))
    camera = Camera(
        width=max(8, round(width * shrink)),
        height=max(8, round(height * shrink)),
        turn=shot.normal(0, 0.2),  # the same lesion is photographed from about the same side again
        zoom=float(np.exp(shot.uniform(-0.25, 0.25))),
        shift=(shot.uniform(-0.25, 0.25), shot.uniform(-0.25, 0.25)),
    )
    canvas = Canvas(camera)
    lesion = np.random.default_rng([seed, 0])
    _paint_skin(canvas, lesion)
    _paint_lesion(canvas, diagnosis, lesion)
    _light(canvas, shot)
    add_artefacts(canvas, shot, artefacts)
    _grain(canvas, shot)
    pixels = (np.clip(canvas.rgb, 0, 1) * 255 + 0.5).astype(np.uint8)
    if (camera.width, camera.height) == (width, height):
        return pixels
    return np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))


def _grain(canvas: Canvas, rng: np.random.Generator) -> None:
    """The sensor's noise: little where it is dark, and less in small pictures, as if they had been made smaller."""
    strength = 0.045 * min(1.0, min(canvas.camera.width, canvas.camera.height) / 180)
    noise = rng.integers(0, 256, size=canvas.rgb.shape[:2], dtype=np.uint8).astype(np.float32) / np.float32(255)
    canvas.rgb *= (1 + (noise - np.float32(0.5)) * np.float32(strength))[..., None]


def _paint_skin(canvas: Canvas, rng: np.random.Generator) -> None:
    kind = int(rng.choice(len(SKIN), p=SKIN_SHARES))
    lighter, darker = np.array(SKIN[kind]), np.array(SKIN[min(kind + 1, len(SKIN) - 1)])
    tone = lighter + rng.uniform(0, 0.8) * (darker - lighter) + rng.normal(0, 0.012, size=3)
    patches = canvas.waves(rng, scale=1.0) * np.float32(0.03) + canvas.waves(rng, scale=0.35) * np.float32(0.022)
    furrows = np.abs(canvas.waves(rng, scale=0.11, count=10)) * np.float32(0.018)
    canvas.rgb = tone.astype(np.float32) * (1 + patches - furrows)[..., None]
    canvas.tint((1.01, 0.96, 0.95), np.clip(canvas.waves(rng, scale=0.7), 0, 1))


def _paint_lesion(canvas: Canvas, diagnosis: str, rng: np.random.Generator) -> None:
    look = LOOKS[LOOKS[diagnosis].mimics if rng.random() < MIMICS_SHARE else diagnosis]
    shape = Shape.drawn(canvas, rng, size=look.size, ragged=look.ragged, skewed=look.skewed, soft=look.soft)
    tints = np.array(look.tints) * rng.normal(1, 0.05, size=(len(look.tints), 3)) * rng.normal(1, 0.06)
    mottling = canvas.waves(rng, scale=0.4) * np.float32(0.06 + 0.3 * look.skewed)
    for place, factors in enumerate(np.clip(tints, 0.1, 1.1)):
        deeper = np.clip(
            (shape.depth + mottling - np.float32(place / len(tints))) * np.float32(4) + np.float32(0.5), 0, 1
        )
        within = shape.mask * deeper if place else shape.mask
        before = tints[place - 1] if place else np.ones(3)
        red, green, blue = factors / before
        canvas.tint((red, green, blue), within)
    for name, paint in STRUCTURES.items():
        chance, seed = rng.random(), int(rng.integers(2**63))
        if chance < look.shows.get(name, 0.0):
            paint(canvas, shape, np.random.default_rng(seed))


def _light(canvas: Canvas, rng: np.random.Generator) -> None:
    x, y = canvas.camera.axes()
    angle, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.12)
    fall = np.cos(angle) * x[None, :] / canvas.camera.width + np.sin(angle) * y[:, None] / canvas.camera.height
    balance = rng.normal(1, 0.025, size=3) * rng.uniform(0.88, 1.06)
    canvas.rgb *= (1 + slope * fall).astype(np.float32)[..., None] * balance.astype(np.float32)
