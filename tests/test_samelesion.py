from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from dermalert.errors import DataError
from dermalert.intake.samelesion import SIDE, SameLesion, candidates, same_lesion_pairs

Picture = NDArray[np.uint8]


def lesion(seed: int) -> Picture:
    """A large picture, 400 px, of an irregular dark lesion with a structure of its own on plain skin."""
    chance = np.random.default_rng(seed)
    y, x = np.mgrid[-1:1:400j, -1:1:400j]
    outline = 0.3 + 0.06 * np.sin(3 * np.arctan2(y, x) + chance.uniform(0, 6)) + chance.normal(0, 0.02)
    inside = 1 / (1 + np.exp(40 * (np.hypot(y, x) - outline)))
    structure = gaussian_filter(chance.standard_normal((400, 400)), 7)
    shade = inside * (0.5 + 0.3 * structure / structure.std())
    pixels = np.array([200, 150, 130]) * (1 - 0.6 * np.clip(shade, 0, 1.4)[:, :, None])
    picture: Picture = np.clip(pixels + chance.normal(0, 2, pixels.shape), 0, 255).astype(np.uint8)
    return picture


def photographed(
    picture: Picture, *, zoom: float = 1.0, shift: int = 0, turn: float = 0.0, light: float = 1.0
) -> Picture:
    """A thumbnail of the lesion as another photograph would show it."""
    half = 150 / zoom
    box = (200 + shift - half, 200 - shift - half, 200 + shift + half, 200 - shift + half)
    turned = Image.fromarray(picture).rotate(turn, Image.Resampling.BICUBIC, fillcolor=(200, 150, 130))
    small = np.asarray(turned.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box=box))
    thumbnail: Picture = np.clip(small * light, 0, 255).astype(np.uint8)
    return thumbnail


@pytest.fixture(scope="module")
def album() -> tuple[Picture, NDArray[np.int64]]:
    """Thirty lesions photographed once, ten of them again with another framing; and the lesion of each row."""
    once = [photographed(lesion(seed)) for seed in range(30)]
    again = [
        photographed(lesion(seed), zoom=0.8 + 0.05 * seed, shift=seed, turn=seed - 5, light=0.9) for seed in range(10)
    ]
    return np.stack(once + again), np.r_[np.arange(30), np.arange(10)]


def test_a_lesion_photographed_again_is_suspected_and_others_are_not(album: tuple[Picture, NDArray[np.int64]]) -> None:
    thumbnails, number = album
    pairs = same_lesion_pairs(thumbnails)
    right = number[pairs.first] == number[pairs.second]
    assert right.all()
    assert right.sum() >= 8
    assert (pairs.first < pairs.second).all()
    assert (np.diff(pairs.score) <= 0).all()


def test_the_order_of_the_pictures_does_not_matter(album: tuple[Picture, NDArray[np.int64]]) -> None:
    thumbnails, _ = album
    order = np.random.default_rng(0).permutation(len(thumbnails))

    def named(pairs: SameLesion, rows: NDArray[np.int64]) -> set[frozenset[int]]:
        found = zip(rows[pairs.first].tolist(), rows[pairs.second].tolist(), strict=True)
        return {frozenset(pair) for pair in found}

    plain = named(same_lesion_pairs(thumbnails), np.arange(len(thumbnails)))
    # Only one picture of a pair is zoomed and turned, so that scores may differ a little: allow one at the edge.
    assert len(plain ^ named(same_lesion_pairs(thumbnails[order]), order)) <= 1


def test_a_pair_is_looked_at_once_and_progress_reaches_its_end(album: tuple[Picture, NDArray[np.int64]]) -> None:
    seen: list[tuple[int, int]] = []
    pairs = candidates(album[0], neighbours=3, progress=lambda done, total: seen.append((done, total)))
    assert len({*zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)}) == len(pairs.first)
    assert seen[-1] == (40, 40)


def test_pictures_without_structure_are_not_suspected() -> None:
    flat = np.repeat(np.arange(0, 250, 25, dtype=np.uint8), SIDE * SIDE * 3).reshape(-1, SIDE, SIDE, 3)
    assert len(same_lesion_pairs(flat).first) == 0


@pytest.mark.parametrize("n", [0, 1])
def test_no_picture_or_one_has_no_pairs(n: int) -> None:
    assert len(same_lesion_pairs(np.zeros((n, SIDE, SIDE, 3), np.uint8)).first) == 0


def test_thumbnails_of_another_size_are_refused() -> None:
    with pytest.raises(DataError, match="Thumbnails"):
        same_lesion_pairs(np.zeros((2, 64, 64, 3), np.uint8))
