"""Corruptions: what worse light, lenses, cameras and hands do to a picture, each at five severities.

Comes in: a picture of about 256 px and which corruption it shall suffer. Goes out: the picture with it. It judges no
model: `judge.robustness` does.

The idea and the five severities are those of Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to
Common Corruptions and Perturbations" (ICLR 2019), which Maron et al., "A benchmark for neural network robustness in
skin cancer classification" (Eur J Cancer 155:191-199, 2021, SAM-C) took to dermoscopy. The strengths are our own:
severity 1 is what a careful photographer would not notice, 3 is common in archives, and at 5 a dermatologist would ask
for another picture. Theirs for noise, contrast and brightness begin where ours end, too strong for pictures whose
diagnosis lies in faint colours. Lengths are shares of the picture's short side, so that they hold at any resolution.

Chance (the direction of a blur, where a hair lies) depends on the seed, the picture's name and the corruption alone,
not on the severity: a picture's five versions are one fault that grows.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.signal import fftconvolve

from dermalert.drawn.artefacts import PAINTERS
from dermalert.drawn.canvas import Camera, Canvas
from dermalert.errors import DataError

Pixels = NDArray[np.uint8]
Kernel = NDArray[np.float32]

SEVERITIES = (1, 2, 3, 4, 5)
_STEPS = np.arange(256) / 255
_RIM = 0.05  # how soft the edge of a dermatoscope's field is, of half the short side


@dataclass(frozen=True)
class Corruption:
    """One way in which pictures go wrong.

    Attributes:
        cause: what kind of fault it is: "lens", "sensor", "light", "framing" or "on the skin".
        levels: what severities 1 to 5 are.
        unit: what a level counts.
        apply: from uint8 (H, W, 3), a level and chance to uint8 (H', W', 3).
    """

    cause: str
    levels: tuple[float, float, float, float, float]
    unit: str
    apply: Callable[[Pixels, float, np.random.Generator], Pixels]


def corrupted(pixels: Pixels, name: str, severity: int, *, picture: str, seed: int = 0) -> Pixels:
    """The picture with one corruption.

    Args:
        pixels: uint8 (H, W, 3), its short side 32 px or more; not changed.
        name: one of `CORRUPTIONS`.
        severity: 1 to 5.
        picture: its name: another one, another chance.

    Returns:
        uint8 (H', W', 3). "zoomed in" gives fewer pixels, all others as many.

    Raises:
        DataError: no such corruption or severity.
    """
    if name not in CORRUPTIONS or severity not in SEVERITIES:
        known = ", ".join(CORRUPTIONS)
        raise DataError(f"There is no corruption {name!r} of severity {severity}. Known, from 1 to 5: {known}.")
    corruption = CORRUPTIONS[name]
    digest = hashlib.sha256(f"{seed}\0{name}\0{picture}".encode("utf-8", "surrogateescape")).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:16]))
    return corruption.apply(pixels, corruption.levels[severity - 1], rng)


def at_size(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """The picture at a model's width and height, scaled as `intake.decode` scales pictures."""
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0))


def _short(pixels: Pixels) -> int:
    return int(min(pixels.shape[:2]))


def _rounded(values: NDArray[Any]) -> Pixels:
    rounded: Pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return rounded


def _blurred(pixels: Pixels, kernel: Kernel) -> Pixels:
    reach = len(kernel) // 2
    wide = np.pad(pixels.astype(np.float32), ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    return _rounded(fftconvolve(wide, (kernel / kernel.sum())[..., None], mode="valid", axes=(0, 1)))


def _offsets(reach: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    along = np.arange(-int(reach) - 1, int(reach) + 2, dtype=np.float32)
    return along[None, :], along[:, None]


def _defocused(pixels: Pixels, level: float, _: np.random.Generator) -> Pixels:
    radius = level * _short(pixels)
    x, y = _offsets(radius)
    return _blurred(pixels, np.clip(radius + 0.5 - np.hypot(x, y), 0, 1))


def _moved(pixels: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    half, angle = level * _short(pixels) / 2, rng.uniform(0, np.pi)
    x, y = _offsets(half)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    beyond = np.maximum(np.abs(along) - half, 0)
    return _blurred(pixels, np.clip(1 - np.hypot(beyond, across), 0, 1))


def _noisy(pixels: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    return _rounded(pixels + level * rng.standard_normal(pixels.shape, dtype=np.float32))


def _compressed(pixels: Pixels, level: float, _: np.random.Generator) -> Pixels:
    stored = io.BytesIO()
    Image.fromarray(pixels).save(stored, "JPEG", quality=int(level))
    return np.asarray(Image.open(stored, formats=["JPEG"]))


def _coarse(pixels: Pixels, level: float, _: np.random.Generator) -> Pixels:
    picture = Image.fromarray(pixels)
    small = picture.resize(_scaled(picture.size, level), Image.Resampling.BOX)
    return np.asarray(small.resize(picture.size, Image.Resampling.BILINEAR))


def _scaled(size: tuple[int, int], share: float) -> tuple[int, int]:
    return max(1, round(size[0] * share)), max(1, round(size[1] * share))


def _exposed(pixels: Pixels, level: float, _: np.random.Generator) -> Pixels:
    """So many stops more light (IEC 61966-2-1 between light and stored value); what is over white is lost."""
    light = np.where(_STEPS <= 0.04045, _STEPS / 12.92, ((_STEPS + 0.055) / 1.055) ** 2.4) * 2.0**level
    stored = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return _rounded(255 * stored)[pixels]


def _flat(pixels: Pixels, level: float, _: np.random.Generator) -> Pixels:
    middle = pixels.mean(axis=(0, 1), dtype=np.float32)
    return _rounded(middle + level * (pixels - middle))


def _cast(pixels: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    """Gains that leave their product at 1, in a direction by chance: warm, cold, green, magenta or between."""
    angle = rng.uniform(0, 2 * np.pi) + np.array([0, 2, 4]) * np.pi / 3
    return _rounded(pixels * np.exp(level * np.cos(angle)).astype(np.float32))


def _saturated(pixels: Pixels, level: float, _: np.random.Generator) -> Pixels:
    luma = (pixels @ np.array([0.299, 0.587, 0.114], dtype=np.float32))[..., None]
    return _rounded(luma + level * (pixels - luma))


def _zoomed_in(pixels: Pixels, level: float, _: np.random.Generator) -> Pixels:
    return _middle(pixels, level, level)


def _middle(pixels: Pixels, across: float, down: float) -> Pixels:
    height, width = pixels.shape[:2]
    kept_width, kept_height = _scaled((width, height), across)[0], _scaled((width, height), down)[1]
    left, top = (width - kept_width) // 2, (height - kept_height) // 2
    return pixels[top : top + kept_height, left : left + kept_width]


def _zoomed_out(pixels: Pixels, level: float, _: np.random.Generator) -> Pixels:
    """The whole picture, smaller; the skin around it is its mirror image, which from 0.6 on reaches no lesion in the
    middle."""
    height, width = pixels.shape[:2]
    small = np.asarray(Image.fromarray(pixels).resize(_scaled((width, height), level), Image.Resampling.BICUBIC))
    top, left = (height - small.shape[0]) // 2, (width - small.shape[1]) // 2
    edges = ((top, height - small.shape[0] - top), (left, width - small.shape[1] - left), (0, 0))
    return np.pad(small, edges, mode="symmetric")


def _squashed(pixels: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    """The lesion so many times as wide or as high as it is; the frame stays, so the skin at two edges is lost."""
    size = pixels.shape[1], pixels.shape[0]
    across, down = (1 / level, 1.0) if rng.random() < 0.5 else (1.0, 1 / level)
    return np.asarray(Image.fromarray(_middle(pixels, across, down)).resize(size, Image.Resampling.BICUBIC))


def _turned(pixels: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    """Turned either way about the middle; the skin that comes in at the corners is the picture's mirror image."""
    height, width = pixels.shape[:2]
    reach = (int(np.hypot(height, width)) - min(height, width)) // 2 + 2
    reach = min(reach, min(height, width))  # a mirror image is no larger than the picture
    wide = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)), mode="symmetric")
    angle = level if rng.random() < 0.5 else -level
    turned = np.asarray(Image.fromarray(wide).rotate(angle, Image.Resampling.BICUBIC))
    return turned[reach : reach + height, reach : reach + width]


def _field(pixels: Pixels, level: float, _: np.random.Generator) -> Pixels:
    """Black outside a circle, as a dermatoscope's tube leaves it."""
    height, width = pixels.shape[:2]
    half = min(height, width) / 2
    x, y = np.arange(width, dtype=np.float32) - (width - 1) / 2, np.arange(height, dtype=np.float32) - (height - 1) / 2
    distance = np.hypot(x[None, :], y[:, None]) / half
    return _rounded(pixels * np.clip((level - distance) / _RIM + 0.5, 0, 1)[..., None])


def _framed(pixels: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    """Black bars at two opposite edges, as viewers add them; the picture between is squashed."""
    upright = np.swapaxes(pixels, 0, 1) if rng.random() < 0.5 else pixels
    bar, height = round(level * upright.shape[0]), upright.shape[0]
    inside = Image.fromarray(np.ascontiguousarray(upright)).resize((upright.shape[1], height - 2 * bar))
    framed = np.pad(np.asarray(inside), ((bar, bar), (0, 0), (0, 0)))
    return framed if upright is pixels else np.ascontiguousarray(np.swapaxes(framed, 0, 1))


def _painted(artefact: str) -> Callable[[Pixels, float, np.random.Generator], Pixels]:
    """Painted over with an artefact of the cartoons, so many times."""

    def apply(pixels: Pixels, level: float, rng: np.random.Generator) -> Pixels:
        height, width = pixels.shape[:2]
        canvas = Canvas(Camera(width, height))
        canvas.rgb = pixels.astype(np.float32) / np.float32(255)
        for _ in range(int(level)):
            PAINTERS[artefact](canvas, rng)
        return _rounded(255 * canvas.rgb)

    return apply


_COATS = (1.0, 2.0, 3.0, 4.0, 5.0)
CORRUPTIONS: dict[str, Corruption] = {
    "defocus": Corruption("lens", (0.006, 0.012, 0.018, 0.026, 0.036), "radius, of the short side", _defocused),
    "motion": Corruption("lens", (0.02, 0.04, 0.06, 0.09, 0.13), "length, of the short side", _moved),
    "noise": Corruption("sensor", (6, 12, 20, 30, 45), "standard deviation, of 255", _noisy),
    "JPEG": Corruption("sensor", (50, 30, 20, 12, 7), "quality of libjpeg", _compressed),
    "low resolution": Corruption("sensor", (0.5, 0.35, 0.25, 0.18, 0.12), "of the width that is left", _coarse),
    "overexposed": Corruption("light", (0.25, 0.5, 0.75, 1.0, 1.5), "stops", _exposed),
    "underexposed": Corruption("light", (-0.5, -1.0, -1.5, -2.0, -3.0), "stops", _exposed),
    "low contrast": Corruption("light", (0.8, 0.65, 0.5, 0.35, 0.2), "of the contrast that is left", _flat),
    "colour cast": Corruption("light", (0.05, 0.1, 0.15, 0.22, 0.3), "natural logarithm of the largest gain", _cast),
    "faded": Corruption("light", (0.8, 0.6, 0.4, 0.2, 0.0), "of the saturation that is left", _saturated),
    "vivid": Corruption("light", (1.2, 1.4, 1.7, 2.0, 2.5), "times the saturation", _saturated),
    "zoomed in": Corruption("framing", (0.9, 0.8, 0.7, 0.6, 0.5), "of the width that is left", _zoomed_in),
    "zoomed out": Corruption("framing", (0.9, 0.82, 0.75, 0.67, 0.6), "of its size", _zoomed_out),
    "squashed": Corruption("framing", (1.1, 1.2, 1.33, 1.5, 1.8), "times as wide or as high", _squashed),
    "turned": Corruption("framing", (9, 18, 27, 36, 45), "degrees", _turned),
    "round field": Corruption("framing", (1.4, 1.2, 1.05, 0.9, 0.75), "radius, of half the short side", _field),
    "black bars": Corruption("framing", (0.04, 0.08, 0.12, 0.17, 0.22), "each, of the height or width", _framed),
    "hair": Corruption("on the skin", _COATS, "times 2 to 13 hairs", _painted("hair")),
    "ruler": Corruption("on the skin", _COATS, "scales, each on a side by chance", _painted("ruler")),
    "ink": Corruption("on the skin", _COATS, "strokes of a pen", _painted("ink")),
    "bubbles": Corruption("on the skin", _COATS, "times 2 to 7 bubbles", _painted("bubbles")),
    "glare": Corruption("on the skin", _COATS, "times 2 to 6 reflections", _painted("gloss")),
}
