"""Intervals resample lesions, repeat under a seed, and claim no certainty that the data do not have."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binomtest, norm

from dermalert.errors import DataError
from dermalert.judge import intervals
from dermalert.judge.intervals import Interval, Statistic, draw_weights, group_bootstrap, paired_difference, wilson
from dermalert.judge.metrics import Ranking
from dermalert.judge.scores import Binary

AUC_SHIFT = 1.2  # two unit normals this far apart have an AUC of 0.80
TRUE_AUC = float(norm.cdf(AUC_SHIFT / math.sqrt(2)))


def clustered(seed: int, lesions: int = 120, pictures_each: int = 3) -> Binary:
    """Several photographs of each lesion, whose scores are nearly alike; a known AUC."""
    random = np.random.default_rng(seed)
    positive = random.random(lesions) < 0.3
    of_lesion = random.normal(0, math.sqrt(0.9), lesions) + AUC_SHIFT * positive
    groups = np.repeat(np.arange(lesions), pictures_each)
    return Binary(of_lesion[groups] + random.normal(0, math.sqrt(0.1), len(groups)), positive[groups], groups)


def auc_of(binary: Binary) -> Statistic:
    ranking = Ranking(binary)
    return lambda weights: ranking.sweep(weights).auc()


def mean_of(values: NDArray[np.float64]) -> Statistic:
    return lambda weights: np.asarray(weights @ values / weights.sum(axis=-1))


def test_photographs_of_one_lesion_do_not_narrow_the_interval() -> None:
    binary = clustered(0)
    by_lesion = group_bootstrap(auc_of(binary), binary.groups, resamples=500)
    by_picture = group_bootstrap(auc_of(binary), np.arange(len(binary.groups)), resamples=500)
    assert by_lesion.value == by_picture.value
    assert by_lesion.high - by_lesion.low > 1.3 * (by_picture.high - by_picture.low)


def test_nine_in_ten_or_more_of_the_intervals_cover_a_known_auc_and_fewer_when_pictures_are_drawn() -> None:
    covered = {"lesions": 0, "pictures": 0}
    for seed in range(100):
        binary = clustered(seed)
        for name, groups in (("lesions", binary.groups), ("pictures", np.arange(len(binary.groups)))):
            interval = group_bootstrap(auc_of(binary), groups, resamples=200)
            covered[name] += interval.low <= TRUE_AUC <= interval.high
    assert covered["lesions"] >= 90
    assert covered["pictures"] < 85


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.integers(2, 40), st.integers(0, 5))
def test_an_interval_repeats_under_its_seed_and_holds_its_value(chance: int, count: int, seed: int) -> None:
    random = np.random.default_rng(chance)
    values, groups = random.exponential(size=count), random.integers(count, size=count)
    first = group_bootstrap(mean_of(values), groups, resamples=60, seed=seed)
    assert first == group_bootstrap(mean_of(values), groups, resamples=60, seed=seed) or math.isnan(first.low)
    assert math.isnan(first.low) or first.low <= first.value <= first.high


def test_the_size_of_a_block_changes_no_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = np.repeat(np.arange(7), 3)
    at_once = np.concatenate(list(draw_weights(groups, 50, 3)))
    monkeypatch.setattr(intervals, "BLOCK_VALUES", 70)
    np.testing.assert_array_equal(at_once, np.concatenate(list(draw_weights(groups, 50, 3))))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=30), st.integers(0, 1000))
def test_a_draw_takes_whole_lesions_as_many_as_there_are(groups: list[int], seed: int) -> None:
    members = np.array(groups)
    weights = np.concatenate(list(draw_weights(members, 20, seed)))
    assert weights.shape == (20, len(groups))
    _, first = np.unique(members, return_index=True)
    assert (weights[:, first].sum(axis=1) == len(first)).all()
    for lesion in set(groups):
        assert (np.ptp(weights[:, members == lesion], axis=1) == 0).all()


def test_the_same_model_twice_differs_by_nothing_and_a_better_one_by_less_than_its_own_spread() -> None:
    binary = clustered(1)
    better = Binary(binary.probability + 0.5 * binary.positive, binary.positive, binary.groups)
    difference = paired_difference(auc_of(better), auc_of(binary), binary.groups, resamples=300)
    alone = group_bootstrap(auc_of(binary), binary.groups, resamples=300)
    assert difference.value == pytest.approx(float(auc_of(better)(np.ones(360)) - alone.value))
    assert difference.low > 0
    assert difference.high - difference.low < alone.high - alone.low
    same = paired_difference(auc_of(binary), auc_of(binary), binary.groups, resamples=50)
    assert same.value == 0
    assert math.isnan(same.low)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 300), st.floats(0, 1), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_agrees_with_scipy(trials: int, share: float, level: float) -> None:
    successes = round(share * trials)
    ours = wilson(successes, trials, level=level)
    theirs = binomtest(successes, trials).proportion_ci(level, method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert ours.low <= ours.value <= ours.high


def test_a_proportion_of_one_gets_wilsons_interval_over_its_lesions() -> None:
    groups = np.repeat(np.arange(10), 4)
    (all_found,) = intervals.group_bootstrap_many(lambda w: np.ones((*w.shape[:-1], 1)), groups, lesions=[10])
    assert all_found.value == 1.0
    assert all_found.low == pytest.approx(wilson(10, 10).low)
    assert 0.6 < all_found.low < 0.8


def test_a_figure_that_no_resample_moves_gets_no_interval() -> None:
    constant = group_bootstrap(lambda w: np.full(w.shape[:-1], 0.5), np.arange(5))
    assert constant.value == 0.5
    assert math.isnan(constant.low)
    assert "same value" in str(constant.why)


def test_a_figure_that_rests_on_one_lesion_gets_no_interval() -> None:
    binary = Binary(np.linspace(0, 1, 50), np.arange(50) == 40, np.arange(50))
    alone = group_bootstrap(auc_of(binary), binary.groups)
    assert alone.value > 0.7
    assert math.isnan(alone.high)
    assert "too few lesions" in str(alone.why)


def test_what_cannot_be_computed_stays_nan_also_for_no_pictures() -> None:
    unknown = group_bootstrap(lambda w: np.full(w.shape[:-1], np.nan), np.arange(5))
    assert math.isnan(unknown.value)
    assert unknown.why
    empty = group_bootstrap(lambda w: np.full(w.shape[:-1], np.nan), np.zeros(0, dtype=np.int64))
    assert math.isnan(empty.value)
    assert empty.why == "There are no pictures."


def test_an_interval_reads_as_a_person_writes_it() -> None:
    assert str(Interval(0.831, 0.779, 0.874)) == "0.83 (0.78 to 0.87)"
    assert str(Interval(1.0, math.nan, math.nan)) == "1.00 (no interval)"
    assert str(Interval(math.nan, math.nan, math.nan)) == "not computable"


@pytest.mark.parametrize("interval", [Interval(0.5, 0.4, 0.6, 0.9), Interval(0.5, math.nan, math.nan, why="few")])
def test_an_interval_survives_json(interval: Interval) -> None:
    back = Interval.from_json(interval.to_json())
    assert repr(back) == repr(interval)


@pytest.mark.parametrize(("resamples", "level"), [(1, 0.95), (100, 0.0), (100, 1.0)])
def test_senseless_wishes_are_refused(resamples: int, level: float) -> None:
    with pytest.raises(DataError):
        group_bootstrap(mean_of(np.ones(3)), np.arange(3), resamples=resamples, level=level)
