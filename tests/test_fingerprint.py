from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from dermalert.errors import DataError
from dermalert.intake.fingerprint import ALTERED, BITS, altered_hashes, difference_hash, hashes_to_array
from dermalert.intake.neighbours import ALTERED_RADIUS, NEAR_RADIUS, distances

Picture = NDArray[np.uint8]


def drawn(seed: int, height: int = 150, width: int = 200) -> Picture:
    """A smooth random picture with the grain of a camera."""
    chance = np.random.default_rng(seed)
    field = gaussian_filter(chance.standard_normal((height, width, 3)), (12, 12, 0))
    field = 128 + 50 * field / field.std() + chance.normal(0, 2, field.shape)
    picture: Picture = np.clip(field, 0, 255).astype(np.uint8)
    return picture


def resized(pixels: Picture, width: int, height: int) -> Picture:
    return np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC), dtype=np.uint8)


def recompressed(pixels: Picture, quality: int) -> Picture:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file).convert("RGB"), dtype=np.uint8)


def distance(one: Picture, other: Picture) -> int:
    a, b = hashes_to_array([difference_hash(one), difference_hash(other)])
    return int(distances(a, b))


@pytest.mark.parametrize("seed", range(5))
def test_a_squashed_and_recompressed_copy_stays_within_the_near_radius(seed: int) -> None:
    picture = drawn(seed)
    assert distance(picture, recompressed(resized(picture, 180, 180), 75)) <= NEAR_RADIUS


@pytest.mark.parametrize("seed", range(5))
def test_brightness_and_contrast_barely_move_a_hash(seed: int) -> None:
    picture = drawn(seed)
    assert distance(picture, (picture * 0.7 + 20).astype(np.uint8)) <= NEAR_RADIUS


def test_different_pictures_are_far_apart() -> None:
    hashes = hashes_to_array([difference_hash(drawn(seed)) for seed in range(20)])
    apart = distances(hashes[:, None], hashes[None])
    assert apart[~np.eye(20, dtype=bool)].min() > 2 * NEAR_RADIUS


def test_a_ramp_from_dark_to_light_sets_every_bit_and_its_mirror_none() -> None:
    ramp = np.repeat(np.tile(np.arange(0, 255, 2, dtype=np.uint8), (64, 1))[:, :, None], 3, axis=2)
    assert difference_hash(ramp) == b"\xff" * (BITS // 8)
    assert difference_hash(np.ascontiguousarray(ramp[:, ::-1])) == bytes(BITS // 8)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 255))
def test_any_size_has_a_hash_and_flat_pictures_have_the_empty_one(height: int, width: int, level: int) -> None:
    assert difference_hash(np.full((height, width, 3), level, np.uint8)) == bytes(32)


@pytest.mark.parametrize(
    "pixels", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)]
)
def test_what_is_no_rgb_picture_is_refused(pixels: Picture) -> None:
    with pytest.raises(DataError, match="uint8"):
        difference_hash(pixels)


def test_hashes_become_words_and_an_empty_list_an_empty_array() -> None:
    assert hashes_to_array([]).shape == (0, 4)
    assert hashes_to_array([bytes(range(32))]).tobytes() == bytes(range(32))
    with pytest.raises(DataError, match="32 bytes"):
        hashes_to_array([b"short"])


TURNS = {
    "mirrored": lambda pixels: pixels[:, ::-1],
    "flipped": lambda pixels: pixels[::-1],
    "turned by 180": lambda pixels: pixels[::-1, ::-1],
    "transposed": lambda pixels: pixels.swapaxes(0, 1),
    "turned by 90": np.rot90,
    "transposed and turned by 180": lambda pixels: pixels.swapaxes(0, 1)[::-1, ::-1],
    "trimmed": lambda pixels: pixels[4:-4, 5:-5],
}


@pytest.mark.parametrize("way", ALTERED)
def test_an_altered_hash_is_the_hash_of_the_altered_picture(way: str) -> None:
    original = drawn(3, 160, 200)
    altered = TURNS[way](original)
    foreseen = altered_hashes(original)[ALTERED.index(way)]
    (found,) = hashes_to_array([difference_hash(np.ascontiguousarray(altered))])
    assert distances(foreseen, found) <= ALTERED_RADIUS // 2
    assert distances(hashes_to_array([difference_hash(original)])[0], found) > NEAR_RADIUS


def test_altered_hashes_of_what_is_no_picture_are_refused() -> None:
    with pytest.raises(DataError, match="uint8 pixels"):
        altered_hashes(np.zeros((4, 4), np.uint8))
