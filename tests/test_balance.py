"""Rare classes: filled up, weighted or shown as often, and never across the split."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermalert.errors import DataError, MissingExtra
from dermalert.learn import balance
from dermalert.learn.balance import (
    NO_CLASS,
    balanced_order,
    class_weights,
    fill_up,
    likeliest_shares,
    log_prior,
    tempered_order,
)

# Of 40 pictures, 30 for training: 14 of class 0, 6 of class 1, 3 of class 3, and 7 without one exact class.
ROWS = np.random.default_rng(0).permutation(40)[:30].astype(np.int64)
CLASSES = np.full(40, 2, dtype=np.int64)
CLASSES[ROWS] = [0] * 14 + [1] * 6 + [3] * 3 + [NO_CLASS] * 7


def pictures() -> np.ndarray:
    """Each even in a colour of its own but for noise, so that a drawn one shows what it was made from."""
    rng = np.random.default_rng(1)
    return (np.arange(40)[:, None, None, None] * 6 + rng.integers(0, 4, (40, 64, 48, 3))).astype(np.uint8)


def fill(folder: Path, **options: Any) -> balance.Filled:
    given_ = {"seed": 3, "key": "abc", "progress": False, **options}
    return fill_up(given_.pop("pixels", pictures()), ROWS, CLASSES, folder=folder, **given_)


@pytest.fixture
def drawing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The seeds of the pictures that were really drawn."""
    seen: list[str] = []
    draw = balance._drawn

    def noting(picture: np.ndarray, seed: str) -> np.ndarray:
        seen.append(seed)
        return draw(picture, seed)

    monkeypatch.setattr(balance, "_drawn", noting)
    return seen


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> balance.Filled:
    return fill(tmp_path_factory.mktemp("filled"))


def test_every_class_is_as_frequent_as_the_largest_afterwards(filled: balance.Filled) -> None:
    after = np.concatenate([CLASSES[ROWS], CLASSES[filled.origin]])
    assert np.bincount(after[after >= 0]).tolist() == [14, 14, 0, 14]
    assert (after == NO_CLASS).sum() == 7


def test_only_training_rows_with_one_exact_class_are_ever_an_origin(filled: balance.Filled) -> None:
    assert np.isin(filled.origin, ROWS).all()
    assert (CLASSES[filled.origin] > 0).all()
    for drawn, origin in zip(filled.pixels[40:], filled.origin, strict=True):
        assert np.median(drawn) == pytest.approx(origin * 6 + 1.5, abs=2)


def test_the_pictures_of_a_class_take_turns_as_origins(filled: balance.Filled) -> None:
    for each, turns in ((1, {1, 2}), (3, {3, 4})):
        _, counts = np.unique(filled.origin[CLASSES[filled.origin] == each], return_counts=True)
        assert set(counts.tolist()) == turns


def test_the_given_pictures_come_first_and_unchanged(filled: balance.Filled) -> None:
    assert filled.pixels.shape == (40 + len(filled.origin), 64, 48, 3)
    assert np.array_equal(filled.pixels[:40], pictures())
    assert isinstance(filled.pixels, np.memmap)
    assert not filled.pixels.flags.writeable


def test_drawn_pictures_differ_from_their_origin_and_from_each_other(filled: balance.Filled) -> None:
    drawn = filled.pixels[40:]
    assert len({picture.tobytes() for picture in drawn}) == len(drawn)
    changed = [
        not np.array_equal(picture, filled.pixels[row]) for picture, row in zip(drawn, filled.origin, strict=True)
    ]
    assert np.mean(changed) > 0.9  # by chance the library leaves one as it was


def test_the_same_seed_gives_the_same_pictures_and_another_others(filled: balance.Filled, tmp_path: Path) -> None:
    random.seed(8)
    again = fill(tmp_path / "again")
    assert np.array_equal(again.pixels, filled.pixels)
    assert np.array_equal(again.origin, filled.origin)
    other = fill(tmp_path / "other", seed=4)
    assert not np.array_equal(other.pixels[40:], filled.pixels[40:])


def test_the_process_generators_are_left_as_they_were(tmp_path: Path) -> None:
    random.seed(8)
    np.random.seed(8)  # noqa: NPY002
    told = random.random(), np.random.random()  # noqa: NPY002
    random.seed(8)
    np.random.seed(8)  # noqa: NPY002
    fill(tmp_path)
    assert (random.random(), np.random.random()) == told  # noqa: NPY002


def test_a_second_call_draws_nothing(tmp_path: Path, drawing: list[str]) -> None:
    first = fill(tmp_path)
    assert len(drawing) == len(first.origin) == 19
    second = fill(tmp_path)
    assert len(drawing) == 19
    assert np.array_equal(first.pixels, second.pixels)
    assert np.array_equal(first.origin, second.origin)


def test_what_would_change_the_pictures_makes_a_new_cache(
    tmp_path: Path, drawing: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path)
    for change in ({"seed": 4}, {"key": "other"}, {"more": 2}):
        drawing.clear()
        fill(tmp_path, **change)
        assert drawing, change
    drawing.clear()
    monkeypatch.setattr(balance, "OPERATIONS_VERSION", balance.OPERATIONS_VERSION + 1)
    fill(tmp_path)
    assert drawing


class Death(BaseException):
    """Stands for a kill: nothing in the product catches it."""


def test_a_build_that_was_killed_never_passes_as_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        count = 0

        def die(picture: np.ndarray, seed: str) -> np.ndarray:
            nonlocal count
            count += 1
            if count == 5:
                raise Death
            return picture

        patch.setattr(balance, "_drawn", die)
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # a kill cleans nothing up
        with pytest.raises(Death):
            fill(tmp_path)
    assert [item.suffix for item in tmp_path.iterdir()] == [".partial"]
    assert np.array_equal(fill(tmp_path).pixels[:40], pictures())


def test_a_cache_cut_short_is_made_again(tmp_path: Path, drawing: list[str]) -> None:
    fill(tmp_path)
    file = next(tmp_path.glob("*/pixels.npy"))
    file.write_bytes(file.read_bytes()[:-100])
    drawing.clear()
    fill(tmp_path)
    assert len(drawing) == 19


def test_so_many_more_of_every_class_may_be_asked_for_as_notebooks_do(tmp_path: Path) -> None:
    origin = fill(tmp_path, more=3).origin
    present = np.unique(CLASSES[ROWS][CLASSES[ROWS] >= 0])
    assert np.bincount(CLASSES[origin])[present].tolist() == [3] * len(present)


def test_where_nothing_is_missing_nothing_is_copied(tmp_path: Path) -> None:
    pixels = pictures()
    made = fill(tmp_path / "cache", pixels=pixels, more=0)
    assert made.pixels is pixels
    assert made.origin.tolist() == []
    assert not (tmp_path / "cache").exists()


def test_what_does_not_fit_together_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        fill(tmp_path, pixels=pictures()[:39])
    with pytest.raises(DataError):
        fill(tmp_path, more=-1)
    with pytest.raises(DataError):
        class_weights(CLASSES, np.array([40]))
    with pytest.raises(DataError):
        log_prior(CLASSES, ROWS, 3)


def test_without_the_library_the_missing_part_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise balance.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(balance.metadata, "version", absent)
    with pytest.raises(MissingExtra, match="train"):
        fill(tmp_path)


@st.composite
def labelled(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    classes = np.array(draw(st.lists(st.integers(NO_CLASS, 4), min_size=1, max_size=60)), dtype=np.int64)
    rows = draw(st.lists(st.integers(0, len(classes) - 1), unique=True))
    return classes, np.array(rows, dtype=np.int64)


@settings(deadline=None)
@given(labelled())
def test_weights_have_mean_one_and_make_classes_equal(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    classes, rows = drawn
    weights = class_weights(classes, rows)
    assert weights.dtype == np.float32
    assert weights.shape == classes.shape
    outside = np.setdiff1d(np.arange(len(classes)), rows)
    assert (weights[outside] == 1).all()
    assert (weights[rows[classes[rows] == NO_CLASS]] == 1).all()
    if len(rows):
        assert weights[rows].mean() == pytest.approx(1, rel=1e-5)
    sums = [weights[rows[classes[rows] == each]].sum() for each in np.unique(classes[rows]) if each >= 0]
    assert np.allclose(sums, sums[:1] * len(sums), rtol=1e-5)


@settings(deadline=None)
@given(labelled(), st.integers(0, 9))
def test_an_order_gives_classes_and_their_pictures_equal_turns(drawn: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    classes, rows = drawn
    order = balanced_order(rows, classes, np.random.default_rng(seed))
    assert order.dtype == np.int64
    assert len(order) == len(rows)
    assert np.isin(order, rows).all()
    assert np.array_equal(np.sort(order[classes[order] < 0]), np.sort(rows[classes[rows] < 0]))
    turns = [(classes[order] == each).sum() for each in np.unique(classes[rows]) if each >= 0]
    assert max(turns, default=0) - min(turns, default=0) <= 1
    for each in np.unique(classes[rows]):
        times = [(order == row).sum() for row in rows[classes[rows] == each]]
        assert max(times) - min(times) <= 1
    assert np.array_equal(order, balanced_order(rows, classes, np.random.default_rng(seed)))


def test_epochs_differ_and_show_a_frequent_class_in_time() -> None:
    orders = [balanced_order(ROWS, CLASSES, np.random.default_rng((0, epoch))) for epoch in range(20)]
    assert len({order.tobytes() for order in orders}) == 20
    assert np.isin(ROWS, np.concatenate(orders)).all()


def test_the_prior_counts_training_rows_and_one_more() -> None:
    prior = log_prior(CLASSES, ROWS, 5)
    assert prior.dtype == np.float32
    assert np.exp(prior) == pytest.approx(np.array([15, 7, 1, 4, 1]) / 28)


def test_a_stratum_has_turns_as_the_square_root_of_its_pictures() -> None:
    strata = np.repeat([0, 1, 2], [900, 100, 25])
    rows = np.arange(len(strata))
    order = tempered_order(rows, strata, np.random.default_rng(0))
    assert len(order) == len(rows)
    assert np.bincount(strata[order]).tolist() == [683, 228, 114]
    turns = np.bincount(order, minlength=len(rows))
    for stratum in range(3):
        assert np.ptp(turns[strata == stratum]) <= 1
    assert set(tempered_order(rows[strata != 1], strata, np.random.default_rng(0))) <= set(rows[strata != 1])


def test_likeliest_shares_divide_coarse_labels_as_the_exact_ones_stand() -> None:
    exact = np.eye(3, dtype=bool)[np.repeat([0, 1, 2], [60, 20, 20])]
    coarse = np.tile([[True, True, False]], (100, 1))
    assert likeliest_shares(np.concatenate([exact, coarse])) == pytest.approx([0.675, 0.225, 0.1], abs=1e-6)
    weights = np.repeat([1.0, 3.0, 3.0], [60, 20, 20])
    assert likeliest_shares(exact, weights) == pytest.approx([1 / 3] * 3)
