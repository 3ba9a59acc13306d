"""Augmentation: reproducible to the bit, honest about what is mixed, and without side effects on a picture's light."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dermalert.drawn import NO_ARTEFACTS, draw_lesion
from dermalert.errors import RunError
from dermalert.learn import layers, occlusion
from dermalert.learn.augment import TOGETHER, Augmented, Augmenter, examples
from dermalert.learn.backend import backend
from dermalert.learn.recipes import AUGMENTATIONS, recipe_named

SIZE = (48, 40)
STRENGTHS = {
    **recipe_named("augmented").augment,
    "randaugment": 0.5,
    "hair": 0.5,
    "ruler": 0.5,
    "mixup": 0.4,
    "cutmix": 1.0,
    "aspect": 0.3,
    "illuminant": 0.2,
    "ink": 0.9,
    "frame": 0.9,
    "degrade": 0.5,
}


def pictures(count: int = 11, seed: int = 0) -> np.ndarray:
    width, height = SIZE
    rng = np.random.default_rng(seed)
    drawn = [
        draw_lesion(name, rng, width=width, height=height, artefacts=NO_ARTEFACTS)
        for name in ("melanoma", "nevus", "dermatofibroma")
    ]
    return np.stack([drawn[number % 3] for number in range(count)])


_MADE: dict[Any, Augmenter] = {}


def augmenter(seed: int = 5, **augment: float) -> Augmenter:
    """Each is compiled once for all tests: none has a memory."""
    key = (seed, *augment.items())
    if key not in _MADE:
        _MADE[key] = Augmenter(augment, size=SIZE, seed=seed)
    return _MADE[key]


def fingerprint(made: Augmented) -> str:
    return hashlib.sha256(made.pixels.tobytes() + made.partner.tobytes() + made.share.tobytes()).hexdigest()


def test_every_augmentation_is_known_here() -> None:
    assert STRENGTHS.keys() == AUGMENTATIONS.keys()


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_changes_pictures_and_keeps_their_shape_and_type(name: str) -> None:
    before = pictures()
    given = before.copy()
    made = augmenter(**{name: STRENGTHS[name]})(given, epoch=1, batch=2)
    assert np.array_equal(given, before)
    assert made.pixels.shape == before.shape
    assert made.pixels.dtype == np.uint8
    assert made.partner.dtype == np.int64
    assert made.share.dtype == np.float32
    assert not np.array_equal(made.pixels, before)
    if name not in ("mixup", "cutmix"):
        assert (made.share == 1).all()
        assert made.partner.tolist() == list(range(len(before)))


def test_the_same_place_in_the_run_gives_the_same_pictures_whatever_came_before() -> None:
    before = pictures()
    first = augmenter(**STRENGTHS)(before, epoch=3, batch=4)
    augmenter(**STRENGTHS)(before, epoch=3, batch=5)
    again = augmenter(**STRENGTHS)(before, epoch=3, batch=4)
    assert fingerprint(first) == fingerprint(again)
    assert fingerprint(first) == fingerprint(Augmenter(STRENGTHS, size=SIZE, seed=5)(before, epoch=3, batch=4))


def test_another_epoch_batch_or_seed_gives_other_pictures() -> None:
    before = pictures()
    places = [(5, 1, 0), (5, 0, 1), (5, 1, 1), (5, 0, 0), (6, 0, 0)]
    made = [augmenter(seed, rotate=0.5)(before, epoch=epoch, batch=batch) for seed, epoch, batch in places]
    assert len({fingerprint(each) for each in made}) == len(places)


def test_threads_do_not_disturb_each_other() -> None:
    before, shared = pictures(), augmenter(**STRENGTHS)

    def at(batch: int) -> str:
        return fingerprint(shared(before, epoch=1, batch=batch))

    alone = [at(batch) for batch in range(12)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(at, range(12))) == alone


RESTARTED = """
    import test_augment as t
    made = t.Augmenter(t.STRENGTHS, size=t.SIZE, seed=5)(t.pictures(), epoch=1, batch=2)
    print(t.fingerprint(made))
"""


def test_a_process_started_later_gives_the_same_pictures() -> None:
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent / "src"), os.environ.get("PYTHONPATH", "")])
    told = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(RESTARTED)],
        env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    assert told.split()[-1] == fingerprint(augmenter(**STRENGTHS)(pictures(), epoch=1, batch=2))


def test_another_augmentation_in_the_recipe_leaves_the_others_as_they_were() -> None:
    before = pictures()
    turned = augmenter(rotate=0.5)(before, epoch=1, batch=0)
    both = augmenter(rotate=0.5, ruler=1e-9)(before, epoch=1, batch=0)
    assert np.array_equal(turned.pixels, both.pixels)


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 11])
def test_a_picture_is_changed_the_same_way_in_a_batch_of_any_length(count: int) -> None:
    augment = {name: value for name, value in STRENGTHS.items() if name not in ("mixup", "cutmix")}
    shared = augmenter(**augment)
    whole = shared(pictures(11), epoch=1, batch=0).pixels
    assert np.array_equal(shared(pictures(11)[:count], epoch=1, batch=0).pixels, whole[:count])


def test_without_augmentation_nothing_happens() -> None:
    before = pictures()
    made = augmenter()(before, epoch=1, batch=0)
    assert made.pixels is before
    assert (made.share == 1).all()
    assert made.partner.tolist() == list(range(len(before)))


def test_nothing_is_traced_once_an_augmenter_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = augmenter(**STRENGTHS)
    monkeypatch.setattr(layers, "_warped", None)
    monkeypatch.setattr(layers, "_recoloured", None)
    for count in (1, 5, 8, 13):
        assert len(shared(pictures(count), epoch=1, batch=0).pixels) == count


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(RunError, match=r"solarise.*Known: flip"):
        Augmenter({"solarise": 1.0}, size=SIZE, seed=0)


def test_flips_are_exact_mirror_images() -> None:
    before = pictures(32)
    made = augmenter(flip=0.5)(before, epoch=1, batch=0).pixels
    seen = set()
    for one, other in zip(before, made, strict=True):
        views = [one, one[::-1], one[:, ::-1], one[::-1, ::-1]]
        (which,) = [number for number, view in enumerate(views) if np.array_equal(view, other)]
        seen.add(which)
    assert seen == {0, 1, 2, 3}


@pytest.mark.parametrize("name", ["rotate", "zoom", "shift"])
def test_no_dark_corner_tells_that_a_picture_was_moved(name: str) -> None:
    bright = np.random.default_rng(0).integers(200, 256, (16, 40, 48, 3)).astype(np.uint8)
    made = augmenter(**{name: AUGMENTATIONS[name][1]})(bright, epoch=1, batch=0).pixels
    assert not np.array_equal(made, bright)
    assert made.min() >= 200


@pytest.mark.parametrize("name", ["flip", "rotate", "zoom", "shift", "brightness", "contrast", "colour"])
def test_pictures_become_neither_lighter_nor_darker_on_average(name: str) -> None:
    middling = np.random.default_rng(0).integers(100, 156, (64, 40, 48, 3)).astype(np.uint8)
    shared = augmenter(**{name: STRENGTHS[name]})
    means = [shared(middling, epoch=1, batch=batch).pixels.mean(axis=(1, 2, 3)) for batch in range(12)]
    # brightness itself moves a picture by up to 25: then the mean of 768 pictures lies within 3 standard errors
    tolerance = 3 * np.std(means) / np.sqrt(np.size(means)) + 0.05
    assert abs(np.mean(means) - middling.mean()) < tolerance
    assert tolerance < (2 if name == "brightness" else 0.3)


def test_moving_agrees_with_the_frameworks_own_interpolation() -> None:
    keras = backend().keras
    rng = np.random.default_rng(0)
    maps = np.float32([1, 0, 0, 0, 1, 0]) + rng.normal(0, [0.3, 0.3, 9, 0.3, 0.3, 9], (6, 6)).astype(np.float32)
    before = pictures(6)
    made = layers.moving_and_colouring(*SIZE, colours=False)(before, maps, *_unchanged(6))
    told = keras.ops.image.affine_transform(
        before.astype(np.float32), np.pad(maps, [(0, 0), (0, 2)]), fill_mode="reflect", interpolation="bilinear"
    )
    assert np.abs(made - np.asarray(told)).max() <= 0.51  # rounded


def _unchanged(count: int) -> tuple[np.ndarray, ...]:
    one = np.ones(count, np.float32)
    return np.tile(np.eye(3, dtype=np.float32), (count, 1, 1)), one, 0 * one


def test_without_the_compiler_the_pictures_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    before, tf = pictures(), backend().tf
    function = tf.function

    def no_compiler(change: Any, **options: Any) -> Any:
        if options.pop("jit_compile", False):
            raise tf.errors.UnimplementedError(None, None, "no XLA here")
        return function(change, **options)

    augment = recipe_named("augmented").augment
    compiled = augmenter(**augment)(before, epoch=1, batch=0).pixels
    monkeypatch.setattr(tf, "function", no_compiler)
    slower = Augmenter(augment, size=SIZE, seed=5)(before, epoch=1, batch=0).pixels
    assert np.abs(compiled.astype(int) - slower).max() <= 1


def test_colour_changes_hue_and_saturation_and_keeps_the_luma_and_greys() -> None:
    luma = np.array([0.299, 0.587, 0.114])
    grey = np.full((8, 40, 48, 3), 130, np.uint8)
    assert np.abs(augmenter(colour=0.4)(grey, epoch=1, batch=0).pixels.astype(int) - 130).max() <= 1
    brownish = np.broadcast_to(np.array([150, 120, 110], np.uint8), grey.shape)
    made = augmenter(colour=0.4)(brownish, epoch=1, batch=0).pixels
    assert np.abs(made @ luma - brownish @ luma).max() < 1
    assert len(np.unique(made[:, 0, 0], axis=0)) == 8


def test_contrast_stays_within_its_strength() -> None:
    before = pictures(32)
    made = augmenter(contrast=0.2)(before, epoch=1, batch=0).pixels
    ratio = made.std(axis=(1, 2)) / before.std(axis=(1, 2))
    assert ratio.min() > 0.78
    assert ratio.max() < 1.22
    assert ratio.std() > 0.05


def blended(pixels: np.ndarray, made: Augmented) -> np.ndarray:
    share = made.share[:, None, None, None].astype(np.float64)
    return share * pixels + (1 - share) * pixels[made.partner]


def test_mixup_is_the_blend_that_its_labels_tell() -> None:
    before = pictures()
    made = augmenter(mixup=1.0)(before, epoch=1, batch=0)
    assert (made.partner != np.arange(len(before))).all()
    assert (made.share < 1).all()
    assert np.abs(made.pixels - blended(before, made)).max() < 0.51


def test_cutmix_is_a_patch_of_the_partner_as_large_as_its_labels_tell() -> None:
    before = pictures()
    before[:] = (np.arange(len(before)) * 10)[:, None, None, None]
    made = augmenter(cutmix=1.0)(before, epoch=1, batch=0)
    for number, picture in enumerate(made.pixels[..., 0]):
        own, other = picture == number * 10, picture == made.partner[number] * 10
        assert (own | other).all()
        assert own.mean() == pytest.approx(made.share[number], abs=1e-6)
        if made.partner[number] != number:
            rows, columns = np.flatnonzero(other.any(axis=1)), np.flatnonzero(other.any(axis=0))
            assert other.sum() == len(rows) * len(columns)  # a rectangle


def test_with_both_each_picture_has_one_of_them() -> None:
    before = pictures(64)
    before[:] = np.arange(64)[:, None, None, None] * 3
    made = augmenter(mixup=5.0, cutmix=1.0)(before, epoch=1, batch=0)
    flat = np.array([len(np.unique(picture)) == 1 for picture in made.pixels])
    assert 16 < flat.sum() < 48
    assert np.abs(made.pixels[flat] - blended(before, made)[flat]).max() < 0.51
    assert np.abs(made.pixels.mean(axis=(1, 2, 3)) - blended(before, made).mean(axis=(1, 2, 3))).max() < 0.51


def test_a_picture_alone_is_mixed_with_nothing() -> None:
    made = augmenter(mixup=1.0, cutmix=1.0)(pictures(1), epoch=1, batch=0)
    assert made.partner.tolist() == [0]
    assert made.share.tolist() == [1]
    assert np.array_equal(made.pixels, pictures(1))


@pytest.mark.parametrize("name", ["hair", "ruler"])
def test_hairs_and_rulers_come_as_often_as_told_and_leave_most_of_the_picture(name: str) -> None:
    before = np.full((200, 40, 48, 3), 220, np.uint8)
    made = augmenter(**{name: 0.3})(before, epoch=1, batch=0).pixels
    touched = (made != before).any(axis=(1, 2, 3))
    assert 0.2 < touched.mean() < 0.4
    assert (made <= before).all()
    assert 0.01 < (made[touched] < 150).mean() < 0.3


@pytest.mark.parametrize("size", [(180, 180), (20, 61), (1, 1)])
@pytest.mark.parametrize("name", ["hair", "ruler"])
def test_occlusions_fit_pictures_of_any_size(name: str, size: tuple[int, int]) -> None:
    for seed in range(20):
        share, colour = occlusion.DRAWN[name](*size, np.random.default_rng(seed))
        assert share.shape == size[::-1]
        assert share.min() >= 0
        assert share.max() <= 1
        assert colour.shape == (3,)


def test_randaugment_of_little_strength_changes_little_but_for_its_two_operations_without_one() -> None:
    before = pictures(64)
    made = augmenter(randaugment=0.01)(before, epoch=1, batch=0).pixels
    little = np.abs(made.astype(int) - before).mean(axis=(1, 2, 3)) < 4
    assert 0.5 < little.mean() < 1  # the others were equalized, or their contrast stretched


def test_randaugment_equalizes_each_picture_alone() -> None:
    before = pictures(64)
    together = augmenter(randaugment=0.01)(before, epoch=1, batch=0).pixels
    other = np.concatenate([before[:1], 255 - before[1:]])
    assert np.array_equal(augmenter(randaugment=0.01)(other, epoch=1, batch=0).pixels[0], together[0])


def test_examples_show_each_alone_and_all_together() -> None:
    batch = pictures(3)
    augment = {"flip": 1.0, "hair": 0.01, "mixup": 1.0}
    shown = examples(augment, batch, count=2, seed=0)
    assert list(shown) == ["flip", "hair", "mixup", TOGETHER]
    for first, *results in shown.values():
        assert np.array_equal(first, batch[0])
        assert len(results) == 2
        assert all(result.shape == first.shape and result.dtype == np.uint8 for result in results)
    assert not any(np.array_equal(result, batch[0]) for result in shown["hair"][1:])
    assert np.array_equal(shown["flip"][1], batch[0][::-1, ::-1])
    assert len(examples({"flip": 0.5}, batch[0], count=1, seed=0)[TOGETHER]) == 2


def test_another_lamp_scales_each_channel_and_leaves_black_black() -> None:
    white = np.full((64, *SIZE[::-1], 3), 120, dtype=np.uint8)
    made = augmenter(illuminant=0.25)(white, epoch=1, batch=0).pixels.astype(int)
    assert (made == made[:, :1, :1]).all()
    told = made[:, 0, 0]
    assert told.min() >= 90
    assert told.max() <= 150
    assert (np.ptp(told, axis=1) > 5).mean() > 0.8
    assert not augmenter(illuminant=0.25)(np.zeros_like(white), epoch=1, batch=0).pixels.any()


def test_a_stretch_makes_one_axis_longer_as_it_makes_the_other_shorter() -> None:
    height, width = SIZE[::-1]
    y, x = np.mgrid[:height, :width]
    square = (np.maximum(abs(x - (width - 1) / 2), abs(y - (height - 1) / 2)) < 8)[..., None] * np.uint8(255)
    made = augmenter(aspect=0.5)(np.repeat(square[None].repeat(3, -1), 32, 0), epoch=1, batch=0).pixels[..., 0] > 127
    wide, high = made.any(axis=1).sum(axis=1), made.any(axis=2).sum(axis=1)
    assert np.ptp(wide / high) > 0.5
    assert np.allclose(wide * high, 16 * 16, rtol=0.2)


def test_pictures_can_be_shown_smaller_than_they_are_given() -> None:
    given = np.zeros((3, 80, 96, 3), dtype=np.uint8)
    given[:, 20:60, 24:72] = 255
    made = Augmenter({"flip": 0.5}, size=SIZE, given=(96, 80), seed=0)(given, epoch=1, batch=0).pixels
    expected = np.zeros((*SIZE[::-1], 3), dtype=np.uint8)
    expected[10:30, 12:36] = 255
    assert np.array_equal(made, np.repeat(expected[None], 3, axis=0))
    with pytest.raises(RunError, match="can only become"):
        Augmenter({"brightness": 0.1}, size=SIZE, given=(96, 80), seed=0)
