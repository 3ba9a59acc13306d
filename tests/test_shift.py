from __future__ import annotations

import json
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from dermalert.intake.shift import FEWEST, Shift, tell_apart
from dermalert.intake.statistics import STATISTICS

NAMES = ("train", "test")
EXPOSURE = STATISTICS.index("exposure")


def drawn(n: int, *, seed: int = 0) -> NDArray[np.float32]:
    """Statistics of pictures that all come from one place."""
    return np.random.default_rng(seed).normal(size=(n, len(STATISTICS))).astype(np.float32)


def alternating(n: int) -> NDArray[np.bool_]:
    return np.asarray(np.arange(n) % 3 == 0)


def told(
    statistics: NDArray[np.float32],
    second: NDArray[np.bool_],
    classes: NDArray[np.int64] | None = None,
    groups: NDArray[np.int64] | None = None,
    *,
    seed: int = 0,
) -> Shift:
    n = len(second)
    classes = np.zeros(n, np.int64) if classes is None else classes
    groups = np.arange(n) if groups is None else groups
    return tell_apart(statistics, second, classes, groups, names=NAMES, seed=seed)


def test_parts_of_one_set_cannot_be_told_apart() -> None:
    shift = told(drawn(300), alternating(300))
    assert abs(shift.auc.value - 0.5) < 0.1
    assert shift.auc.low < 0.5 < shift.auc.high
    assert (shift.first, shift.second) == NAMES


def test_a_planted_shift_is_found_and_the_statistic_that_gives_it_away_comes_first() -> None:
    statistics, second = drawn(300), alternating(300)
    statistics[second, EXPOSURE] += 2
    shift = told(statistics, second)
    assert shift.auc.low > 0.75
    assert shift.auc.low <= shift.auc.value <= shift.auc.high <= 1
    first = shift.telling[0]
    assert first.statistic == "exposure"
    assert first.auc == pytest.approx(0.92, abs=0.05)  # of two normal distributions 2 sigma apart
    assert first.first_median == pytest.approx(np.median(statistics[~second, EXPOSURE]))
    assert first.second_median == pytest.approx(np.median(statistics[second, EXPOSURE]))
    assert first.second_median - first.first_median == pytest.approx(2, abs=0.3)


def test_a_shift_to_lower_values_tells_as_much_as_one_to_higher_values() -> None:
    statistics, second = drawn(300), alternating(300)
    statistics[second, EXPOSURE] -= 2
    shift = told(statistics, second)
    assert shift.telling[0].statistic == "exposure"
    assert shift.telling[0].auc > 0.85
    assert all(0.5 <= one.auc <= 1 for one in shift.telling)


def test_every_statistic_is_listed_the_most_telling_first() -> None:
    telling = told(drawn(120), alternating(120)).telling
    assert {one.statistic for one in telling} == set(STATISTICS)
    assert [one.auc for one in telling] == sorted((one.auc for one in telling), reverse=True)


def test_another_mix_of_diagnoses_is_not_taken_for_a_shift() -> None:
    """Melanomas are darker and more frequent in the second part; within a diagnosis the parts are alike."""
    n, chance = 600, np.random.default_rng(1)
    second = alternating(n)
    classes = (chance.random(n) < np.where(second, 0.8, 0.2)).astype(np.int64)
    statistics = drawn(n)
    statistics[:, EXPOSURE] -= 3 * classes
    shift = told(statistics, second, classes)
    assert abs(shift.auc.value - 0.5) < 0.1
    assert max(one.auc for one in shift.telling) < 0.6
    assert told(statistics, second).auc.value > 0.7, "the mix alone would tell: else this test shows nothing"


def test_diagnoses_that_stand_in_one_part_only_are_left_out() -> None:
    second = alternating(300)
    classes = np.where(second & (np.arange(300) % 2 == 0), 1, 0)
    statistics = drawn(300)
    statistics[classes == 1] += 100
    assert abs(told(statistics, second, classes).auc.value - 0.5) < 0.15


def test_copies_of_one_picture_are_not_recognised_as_a_shift() -> None:
    """Each lesion stands in one part, six times: what a classifier could learn by heart tells nothing new."""
    lesions = drawn(60)
    statistics = np.repeat(lesions, 6, axis=0) + drawn(360, seed=1) * np.float32(0.01)
    second, groups = np.repeat(alternating(60), 6), np.repeat(np.arange(60), 6)
    parted = told(statistics, second, groups=groups).auc
    assert parted.low < 0.5 < parted.high
    assert told(statistics, second).auc.value > 0.95, "by heart it would tell: else this test shows nothing"


def test_the_same_seed_gives_the_same_figure() -> None:
    statistics, second = drawn(200), alternating(200)
    assert told(statistics, second, seed=2) == told(statistics, second, seed=2)
    assert told(statistics, second, seed=2).auc != told(statistics, second, seed=3).auc


@pytest.mark.parametrize(("first", "second"), [(0, 0), (100, 0), (0, 100), (FEWEST - 1, 100), (100, FEWEST - 1)])
def test_too_few_pictures_give_no_figure_and_the_reason(first: int, second: int) -> None:
    shift = told(drawn(first + second), np.arange(first + second) >= first)
    assert math.isnan(shift.auc.value)
    assert str(FEWEST) in (shift.auc.why or "")
    assert shift.telling == ()


def test_just_enough_pictures_give_a_figure() -> None:
    assert not math.isnan(told(drawn(2 * FEWEST), np.arange(2 * FEWEST) >= FEWEST).auc.value)


def test_too_few_lesions_give_no_figure() -> None:
    assert math.isnan(told(drawn(200), alternating(200), groups=np.arange(200) % 4).auc.value)


def test_no_common_diagnosis_gives_no_figure() -> None:
    second = alternating(300)
    assert math.isnan(told(drawn(300), second, second.astype(np.int64)).auc.value)


def test_the_result_is_plain_json_with_null_for_what_is_not_known() -> None:
    full = json.loads(json.dumps(told(drawn(100), alternating(100)).to_json(), allow_nan=False))
    assert (full["first"], full["second"], len(full["telling"])) == (*NAMES, len(STATISTICS))
    assert set(full["telling"][0]) == {"statistic", "auc", "first_median", "second_median"}
    empty = json.loads(json.dumps(told(drawn(0), alternating(0)).to_json(), allow_nan=False))
    assert empty["auc"]["value"] is None
    assert empty["auc"]["why"]
