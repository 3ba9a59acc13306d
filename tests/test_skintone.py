"""What the skin tone estimate promises: the angle of the skin's colour, whatever lies on the skin."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from dermalert.drawn.artefacts import NO_ARTEFACTS
from dermalert.drawn.lesion import SKIN, draw_lesion
from dermalert.intake.skintone import cielab, skin_around, typology_angle

BEIGE = (224, 172, 105)


def skin(colour: tuple[int, int, int] = BEIGE, size: tuple[int, int] = (150, 200)) -> NDArray[np.uint8]:
    return np.full((*size, 3), colour, np.uint8)


def angle_of(colour: tuple[int, int, int]) -> float:
    lightness, _, yellowness = cielab(np.array(colour, np.uint8)).tolist()
    return math.degrees(math.atan2(lightness - 50, yellowness))


def disc(pixels: NDArray[np.uint8], radius: float) -> NDArray[np.bool_]:
    height, width = pixels.shape[:2]
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    inside: NDArray[np.bool_] = x * x + y * y < radius**2
    return inside


# From the CIE's formulae for the sRGB primaries, as Lindbloom's calculator gives them.
@pytest.mark.parametrize(
    ("colour", "lab"),
    [((255, 0, 0), (53.24, 80.09, 67.20)), ((255, 255, 255), (100, 0, 0)), ((0, 0, 0), (0, 0, 0))],
)
def test_colours_have_the_published_cielab_values(
    colour: tuple[int, int, int], lab: tuple[float, float, float]
) -> None:
    assert cielab(np.array(colour, np.uint8)) == pytest.approx(np.array(lab), abs=0.03)


def test_of_bare_skin_it_is_the_angle_of_its_colour() -> None:
    assert typology_angle(skin()) == pytest.approx(angle_of(BEIGE))


@pytest.mark.parametrize("size", [(90, 120), (150, 200), (450, 600)])
def test_lesion_dark_rim_hair_and_glare_do_not_move_it(size: tuple[int, int]) -> None:
    pixels = skin(size=size)
    pixels[disc(pixels, 0.7)] = (70, 40, 30)
    pixels[~disc(pixels, 1.1)] = (5, 5, 8)
    pixels[:: size[0] // 6] = (60, 45, 40)
    pixels[:, : size[1] // 20] = 255
    assert typology_angle(pixels) == pytest.approx(angle_of(BEIGE), abs=0.5)


def test_a_lesion_that_reaches_the_edge_on_one_side_is_not_taken_for_skin() -> None:
    pixels = skin()
    pixels[:, :70] = (110, 70, 50)
    assert not skin_around(pixels)[:, :60].any()
    assert typology_angle(pixels) == pytest.approx(angle_of(BEIGE), abs=0.5)


@pytest.mark.parametrize("value", [0, 20, 255])
def test_where_no_skin_is_seen_there_is_no_angle(value: int) -> None:
    assert math.isnan(typology_angle(np.full((60, 80, 3), value, np.uint8)))


def test_a_picture_too_blue_to_be_skin_has_an_angle_that_no_skin_has() -> None:
    assert typology_angle(skin((180, 170, 200))) > 90


def test_drawn_skins_come_out_as_light_and_as_dark_as_they_were_drawn() -> None:
    random = [np.random.default_rng(seed) for seed in range(30)]
    drawn = [draw_lesion("nevus", rng, width=160, height=120, artefacts=NO_ARTEFACTS) for rng in random]
    angles = [typology_angle(pixels) for pixels in drawn]
    light, dark = angle_of(_bytes(SKIN[0])), angle_of(_bytes(SKIN[-1]))
    assert dark - 10 < min(angles) < dark + 20
    assert light - 20 < max(angles) < light + 10


def _bytes(colour: tuple[float, ...]) -> tuple[int, int, int]:
    red, green, blue = (round(255 * part) for part in colour)
    return red, green, blue
