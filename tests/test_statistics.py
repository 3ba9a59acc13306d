from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from scipy.ndimage import gaussian_filter

from dermalert.errors import DataError
from dermalert.intake.statistics import STATISTICS, measure

SKIN = (205, 160, 140)


def skin(seed: int = 0, side: int = 180) -> Image.Image:
    """Mottled skin with a dark lesion in the middle."""
    chance = np.random.default_rng(seed)
    grain = gaussian_filter(chance.standard_normal((side, side)), 1.5)
    y, x = np.ogrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    lesion = 1 / (1 + np.exp(20 * (np.hypot(x, y) - 0.4)))
    pixels = np.array(SKIN) * (1 - 0.5 * lesion[:, :, None]) + 6 * (grain / grain.std())[:, :, None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def of(picture: Image.Image | NDArray[np.uint8]) -> dict[str, float]:
    return dict(zip(STATISTICS, measure(np.asarray(picture)).tolist(), strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_blur_lowers_sharpness(seed: int) -> None:
    picture = skin(seed)
    assert of(picture.filter(ImageFilter.GaussianBlur(3)))["sharpness"] < of(picture)["sharpness"] / 4


@pytest.mark.parametrize("seed", range(3))
def test_drawn_hairs_raise_hair_and_not_ruler(seed: int) -> None:
    picture, chance = skin(seed), np.random.default_rng(seed)
    before = of(picture)
    pen = ImageDraw.Draw(picture)
    for _ in range(12):
        pen.line(chance.integers(0, 180, 4).tolist(), fill=(40, 25, 20), width=2)
    assert before["hair"] < 0.005
    assert of(picture)["hair"] > 0.03
    assert of(picture)["ruler"] < 0.3


def test_the_lesion_and_round_dots_are_not_hair() -> None:
    picture = skin()
    pen = ImageDraw.Draw(picture)
    for x in range(10, 180, 40):
        pen.ellipse((x, 10, x + 20, 30), fill=(60, 40, 30))
    assert of(picture)["hair"] < 0.02


def test_dark_corners_raise_vignette_and_black_bars_raise_border() -> None:
    pixels = np.array(skin())
    y, x = np.ogrid[-1:1:180j, -1:1:180j]
    corners = np.where((np.hypot(x, y) > 1)[:, :, None], 5, pixels).astype(np.uint8)
    bars = pixels.copy()
    bars[:18] = bars[-18:] = 0
    assert of(pixels)["vignette"] == 0
    assert of(corners)["vignette"] > 0.9
    assert of(pixels)["border"] == 0
    assert of(bars)["border"] == pytest.approx(0.2, abs=0.03)
    assert of(np.zeros((60, 60, 3), np.uint8))["border"] == 1


@pytest.mark.parametrize("upright", [True, False])
@pytest.mark.parametrize("spacing", [8, 12])
def test_ticks_along_an_edge_raise_ruler(upright: bool, spacing: int) -> None:
    picture = skin()
    pen = ImageDraw.Draw(picture)
    for at in range(4, 180, spacing):
        pen.line((at, 168, at, 179) if upright else (0, at, 11, at), fill=(20, 20, 20), width=2)
    assert of(skin())["ruler"] < 0.15
    assert of(picture)["ruler"] > 0.4


def test_exposure_colour_and_saturation_follow_the_light() -> None:
    bright, dark = of(np.full((50, 80, 3), 255, np.uint8)), of(np.zeros((50, 80, 3), np.uint8))
    assert [bright["exposure"], bright["overexposed"], bright["saturation"]] == pytest.approx([255, 1, 0])
    assert (dark["exposure"], dark["underexposed"], dark["contrast"]) == (0, 1, 0)
    red = of(np.full((50, 80, 3), (200, 0, 0), np.uint8))
    assert (red["red"], red["green"], red["blue"], red["saturation"]) == (200, 0, 0, 1)
    assert [red["width"], red["height"], red["aspect"]] == pytest.approx([80, 50, 1.6])


def test_a_thumbnail_is_like_its_original() -> None:
    large = skin(side=720).filter(ImageFilter.GaussianBlur(2))
    one, other = of(large), of(large.resize((180, 180), Image.Resampling.LANCZOS))
    for name in ("exposure", "contrast", "red", "saturation", "hair", "vignette"):
        assert one[name] == pytest.approx(other[name], rel=0.05, abs=0.01), name


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**32))
def test_any_picture_has_finite_statistics(height: int, width: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    values = measure(pixels)
    assert values.shape == (len(STATISTICS),)
    assert values.dtype == np.float32
    assert np.isfinite(values).all()


def test_what_is_no_rgb_picture_is_refused() -> None:
    with pytest.raises(DataError, match="uint8"):
        measure(np.zeros((4, 4, 3)))  # type: ignore[arg-type]
