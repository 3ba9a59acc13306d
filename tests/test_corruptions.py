"""Corruptions: reproducible, growing with severity, and each doing what its name says."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from dermalert.drawn import NO_ARTEFACTS, draw_lesion
from dermalert.drawn.corruptions import CORRUPTIONS, SEVERITIES, Pixels, at_size, corrupted
from dermalert.errors import DataError

SHAPE = (150, 200, 3)


@pytest.fixture(scope="module")
def lesion() -> Pixels:
    return draw_lesion("melanoma", np.random.default_rng(3), width=200, height=150, artefacts=NO_ARTEFACTS)


def versions(lesion: Pixels, name: str, **options: str | int) -> list[Pixels]:
    return [corrupted(lesion, name, severity, **{"picture": "a.jpg", **options}) for severity in SEVERITIES]


def away(lesion: Pixels, spoilt: Pixels) -> float:
    return float(np.abs(at_size(spoilt, (200, 150)).astype(float) - lesion).mean())


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_grows_with_its_severity(lesion, name):
    distances = [away(lesion, spoilt) for spoilt in versions(lesion, name)]
    assert distances[0] > 0
    assert distances == sorted(distances)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_what_comes_out_is_a_picture_of_its_own_and_the_original_stays(lesion, name):
    before = lesion.copy()
    for spoilt in versions(lesion, name):
        assert spoilt.dtype == np.uint8
        assert spoilt.shape[2] == 3
        assert name == "zoomed in" or spoilt.shape == SHAPE
    np.testing.assert_array_equal(lesion, before)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_same_seed_and_picture_give_the_same_corruption(lesion, name):
    np.testing.assert_array_equal(versions(lesion, name)[2], versions(lesion, name)[2])


@pytest.mark.parametrize("name", ["motion", "noise", "colour cast", "hair", "ruler", "ink", "bubbles", "glare"])
def test_another_picture_or_seed_has_another_chance(lesion, name):
    one = corrupted(lesion, name, 4, picture="a.jpg")
    assert (one != corrupted(lesion, name, 4, picture="b.jpg")).any()
    assert (one != corrupted(lesion, name, 4, picture="a.jpg", seed=1)).any()


@pytest.mark.parametrize("shape", [(32, 200, 3), (90, 32, 3), (64, 64, 3)])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_narrow_and_small_pictures_are_corrupted_too(name, shape):
    narrow = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert all(spoilt.size for spoilt in versions(narrow, name))


def test_blur_takes_detail_and_keeps_the_light(lesion):
    def detail(pixels: Pixels) -> float:
        return float(np.abs(np.diff(pixels.astype(float), axis=1)).mean())

    for name in ("defocus", "motion", "low resolution"):
        spoilt = corrupted(lesion, name, 5, picture="a.jpg")
        assert detail(spoilt) < 0.7 * detail(lesion)
        assert abs(float(spoilt.mean()) - float(lesion.mean())) < 2


def test_noise_has_the_deviation_that_its_level_says():
    grey = np.full(SHAPE, 128, dtype=np.uint8)
    for severity, level in zip(SEVERITIES[:3], CORRUPTIONS["noise"].levels, strict=False):
        assert corrupted(grey, "noise", severity, picture="a").std() == pytest.approx(level, rel=0.03)


def test_two_stops_less_light_are_a_quarter_of_the_light():
    linear = 0.5
    grey = np.full(SHAPE, round(255 * (1.055 * linear ** (1 / 2.4) - 0.055)), dtype=np.uint8)
    dark = corrupted(grey, "underexposed", 4, picture="a")[0, 0, 0] / 255
    assert ((dark + 0.055) / 1.055) ** 2.4 == pytest.approx(linear / 4, rel=0.03)


def test_at_its_end_fading_leaves_no_colour(lesion):
    assert np.ptp(corrupted(lesion, "faded", 5, picture="a").astype(int), axis=2).max() <= 1


def test_a_colour_cast_keeps_the_middle_brightness():
    grey = np.full(SHAPE, 100, dtype=np.uint8)
    gains = corrupted(grey, "colour cast", 5, picture="a")[0, 0] / 100
    assert np.prod(gains) == pytest.approx(1, abs=0.03)
    assert np.ptp(gains) > 0.2


def test_a_round_field_is_black_in_the_corners_and_untouched_in_the_middle(lesion):
    spoilt = corrupted(lesion, "round field", 3, picture="a")
    assert not spoilt[[0, 0, -1, -1], [0, -1, 0, -1]].any()
    np.testing.assert_array_equal(spoilt[60:90, 80:120], lesion[60:90, 80:120])


def test_black_bars_are_as_wide_as_they_say(lesion):
    dark = (corrupted(lesion, "black bars", 5, picture="a") == 0).all(axis=2)
    bars = max(dark.all(axis=0).mean(), dark.all(axis=1).mean())
    assert bars == pytest.approx(2 * 0.22, abs=0.02)


def test_turning_and_zooming_out_bring_in_no_black():
    white = np.full(SHAPE, 255, dtype=np.uint8)
    for name in ("turned", "zoomed out", "squashed"):
        assert all(spoilt.min() == 255 for spoilt in versions(white, name))


def test_turning_turns_by_the_angle(lesion):
    quarter = Image.fromarray(lesion).rotate(45, Image.Resampling.BICUBIC)
    other = Image.fromarray(lesion).rotate(-45, Image.Resampling.BICUBIC)
    middle = np.s_[60:90, 85:115]
    spoilt = corrupted(lesion, "turned", 5, picture="a")[middle].astype(float)
    assert min(np.abs(np.asarray(each)[middle] - spoilt).mean() for each in (quarter, other)) < 4


def test_an_unknown_corruption_or_severity_is_told(lesion):
    with pytest.raises(DataError, match=r"'rain' of severity 1. Known, from 1 to 5: defocus"):
        corrupted(lesion, "rain", 1, picture="a")
    with pytest.raises(DataError, match="severity 6"):
        corrupted(lesion, "noise", 6, picture="a")
