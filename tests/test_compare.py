"""A comparison is paired, is the same from either side, finds what is there and claims nothing that chance explains."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermalert.errors import DataError
from dermalert.judge import metrics
from dermalert.judge.compare import (
    ALIKE,
    BETTER,
    FIGURES,
    UNKNOWN,
    WORSE,
    compare,
    compare_all,
    spread,
    unlike,
)
from dermalert.judge.evaluation import evaluate
from dermalert.judge.scores import Scores
from dermalert.taxonomy import MELANOMA, NAMES
from study_values import scores

OPPOSITE = {BETTER: WORSE, WORSE: BETTER, ALIKE: ALIKE, UNKNOWN: UNKNOWN}


def test_the_values_are_those_of_the_evaluation() -> None:
    model, base = scores(180, skill=1.5, seed=1), scores(180, skill=1.0, seed=2)
    ours, theirs = (evaluate(one, operating_point=None, resamples=10).figures for one in (model, base))
    for figure, one in compare(model, base, resamples=10).items():
        assert (one.value, one.baseline) == (ours[figure].value, theirs[figure].value)
        assert one.interval.value == pytest.approx(one.value - one.baseline)


def test_the_interval_is_that_of_a_bootstrap_made_by_hand() -> None:
    """Draws whole lesions by copying pictures, where the code weights them, and takes plain percentiles."""
    model, base = scores(270, skill=1.6, seed=1), scores(270, skill=1.0, seed=2)
    random, lesions = np.random.default_rng(5), np.unique(base.groups)
    rows_of = {lesion: np.flatnonzero(base.groups == lesion) for lesion in lesions}
    draws = []
    for _ in range(600):
        rows = np.concatenate([rows_of[lesion] for lesion in random.choice(lesions, len(lesions))])
        drawn = [_taken(one, rows) for one in (model, base)]
        draws.append([float(metrics.accuracy(one)) for one in drawn] + [float(_auc(one)) for one in drawn])
    by_hand = np.array(draws)
    found = compare(model, base, resamples=2000)
    for figure, column in (("accuracy", 0), ("melanoma_auc", 2)):
        low, high = np.quantile(by_hand[:, column] - by_hand[:, column + 1], [0.025, 0.975])
        width = high - low
        assert found[figure].interval.low == pytest.approx(low, abs=0.15 * width)
        assert found[figure].interval.high == pytest.approx(high, abs=0.15 * width)


def test_a_model_cannot_be_told_apart_from_itself() -> None:
    model = scores(120, skill=1.0, seed=0)
    for one in compare(model, model, resamples=100).values():
        assert one.interval.value == 0.0
        assert one.verdict == ALIKE
        assert not one.stands
        assert one.interval.why


def test_a_truly_better_model_is_found_and_a_worse_one_called_so() -> None:
    good, poor = scores(270, skill=3.0, seed=1), scores(270, skill=1.0, seed=2)
    better, worse = compare(good, poor, resamples=300), compare(poor, good, resamples=300)
    for figure in ("melanoma_auc", "balanced_accuracy", "accuracy"):
        assert (better[figure].verdict, better[figure].stands) == (BETTER, True)
        assert (worse[figure].verdict, worse[figure].stands) == (WORSE, True)
        assert better[figure].interval.low > 0 > worse[figure].interval.high


def test_for_the_calibration_error_lower_is_better() -> None:
    honest = scores(450, skill=1.5, seed=1)
    boasting = replace(honest, probabilities=np.eye(len(NAMES))[metrics.predicted(honest)])
    found = compare(boasting, honest, resamples=200)["ece"]
    assert found.interval.low > 0
    assert found.verdict == WORSE


def test_pairing_is_tighter_than_two_intervals() -> None:
    """Two models that stumble over the same pictures: their intervals overlap, their difference is sure."""
    base = scores(450, skill=1.0, seed=1)
    model = scores(450, skill=1.5, seed=1)
    alone = [evaluate(one, operating_point=None, resamples=300).figures["accuracy"] for one in (model, base)]
    paired = compare(model, base, resamples=300)["accuracy"]
    apart = math.hypot(*(one.high - one.low for one in alone))
    assert paired.interval.high - paired.interval.low < 0.7 * apart
    assert paired.verdict == BETTER


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32), st.floats(0, 3), st.floats(0, 3), st.integers(1, 90))
def test_a_comparison_is_the_same_from_either_side(seed: int, skill: float, other: float, pictures: int) -> None:
    model, base = scores(pictures, skill=skill, seed=seed), scores(pictures, skill=other, seed=seed + 1)
    there, back = compare(model, base, resamples=60), compare(base, model, resamples=60)
    for figure in FIGURES:
        one, two = there[figure], back[figure]
        assert one.interval.value == pytest.approx(-two.interval.value, nan_ok=True)
        assert one.interval.low == pytest.approx(-two.interval.high, nan_ok=True, abs=1e-12)
        assert one.interval.high == pytest.approx(-two.interval.low, nan_ok=True, abs=1e-12)
        assert two.verdict == OPPOSITE[one.verdict]
        assert two.stands == one.stands


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32), st.integers(1, 4))
def test_what_stands_beside_others_also_stands_alone(seed: int, arms: int) -> None:
    base = scores(90, skill=1.0, seed=seed)
    models = {f"arm {i}": scores(90, skill=1.0 + 0.4 * i, seed=seed + i + 1) for i in range(arms)}
    together = compare_all(models, base, resamples=80)
    for name, model in models.items():
        alone = compare(model, base, resamples=80)
        for figure in FIGURES:
            assert together[name][figure].interval == alone[figure].interval or math.isnan(alone[figure].interval.low)
            assert together[name][figure].verdict == alone[figure].verdict
            if together[name][figure].stands:
                assert alone[figure].stands
                assert alone[figure].verdict in (BETTER, WORSE)


def test_of_many_models_that_are_all_alike_hardly_one_study_in_twenty_finds_a_difference_that_stands() -> None:
    """The family-wise error; single verdicts fall for chance in far more of the studies, as they must."""
    alone = together = 0
    for study in range(40):
        base = scores(180, skill=1.0, seed=1000 * study, difficulty=study)
        models = {str(i): scores(180, skill=1.0, seed=1000 * study + i, difficulty=study) for i in range(1, 7)}
        found = [one for row in compare_all(models, base, resamples=200).values() for one in row.values()]
        alone += any(one.verdict != ALIKE for one in found)
        together += any(one.stands for one in found)
    assert together <= 6  # 2 expected; more than 6 by chance in one of 300 test runs, were it exact
    assert alone > 15


def test_a_model_that_is_right_where_the_other_is_always_wrong_is_better_though_no_draw_moves_that() -> None:
    truth = np.eye(len(NAMES), dtype=bool)[np.arange(90) % len(NAMES)]
    right = Scores(tuple(map(str, range(90))), NAMES, truth.astype(np.float64), truth, np.arange(90))
    wrong = replace(right, probabilities=np.roll(right.probabilities, 1, axis=1))
    found = compare(right, wrong, resamples=50)["accuracy"]
    assert (found.interval.value, found.verdict, found.stands) == (1.0, BETTER, True)
    few = np.arange(3)
    assert compare(_taken(right, few), _taken(wrong, few), resamples=50)["accuracy"].verdict == ALIKE


def test_without_a_melanoma_its_figures_cannot_be_compared_and_say_so() -> None:
    model, base = scores(90, skill=2.0, seed=1), scores(90, skill=1.0, seed=2)
    kept = ~model.truth[:, NAMES.index(MELANOMA)]
    found = compare(model.where(kept), base.where(kept), resamples=50)
    assert found["melanoma_auc"].verdict == UNKNOWN
    assert math.isnan(found["melanoma_auc"].interval.value)
    assert found["melanoma_auc"].interval.why
    assert found["accuracy"].verdict == BETTER


def test_scores_that_cannot_be_paired_are_refused() -> None:
    base = scores(90, skill=1.0, seed=1)
    turned = base.where(np.ones(90, dtype=bool))
    turned = Scores(base.image_ids[::-1], NAMES, base.probabilities[::-1], base.truth[::-1], base.groups[::-1])
    refused = {
        "not judged on the same pictures": base.where(np.arange(90) > 0),
        "in another order": turned,
        "their labels differ": replace(base, truth=np.roll(base.truth, 1, axis=1)),
        "grouped into other lesions": replace(base, groups=base.groups + 1),
        "do not name the same diagnoses": replace(base, classes=NAMES[::-1]),
    }
    for why, other in refused.items():
        assert why in str(unlike(other, base))
        with pytest.raises(DataError, match=why):
            compare(other, base)
    with pytest.raises(DataError, match="no labelled picture"):
        compare(base.where(np.zeros(90, dtype=bool)), base.where(np.zeros(90, dtype=bool)))
    with pytest.raises(DataError, match="2 resamples"):
        compare(base, base, resamples=1)
    assert compare_all({}, base) == {}


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_a_spread_is_numpys(values: list[float]) -> None:
    found = spread(values)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.deviation == pytest.approx(np.std(values, ddof=1), abs=1e-9)
    assert found.n == len(values)


def test_a_spread_over_one_training_or_with_an_unknown_figure_says_why() -> None:
    assert spread([0.8]).mean == 0.8
    for values, why in (([], "no repeat"), ([0.8], "no spread"), ([0.8, math.nan], "1 of 2")):
        found = spread(values)
        assert math.isnan(found.deviation)
        assert why in str(found.why)
        assert found.to_json()["deviation"] is None


def _taken(whole: Scores, rows: np.ndarray) -> Scores:
    ids = tuple(whole.image_ids[i] for i in rows)
    return Scores(ids, whole.classes, whole.probabilities[rows], whole.truth[rows], whole.groups[rows])


def _auc(one: Scores) -> float:
    return float(metrics.roc_auc(one.melanoma()))
