"""What a reviewer is told beyond the headline figures: at any prevalence, and why where something is missing."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from dermalert.errors import DataError
from dermalert.judge.conformal import ConformalSets
from dermalert.judge.coverage import coverage_of
from dermalert.judge.metrics import at_threshold
from dermalert.judge.operating import OperatingPoint, at_sensitivity
from dermalert.judge.scores import Scores
from dermalert.judge.scrutiny import Scrutiny, scrutinise
from dermalert.judge.scrutiny_page import sections
from dermalert.taxonomy import MELANOMA, NAMES
from reading import read

MEL = NAMES.index(MELANOMA)
EVEN = dict.fromkeys(NAMES, 1 / len(NAMES))


def scores_of(pictures: int = 540, *, skill: float = 2.0, seed: int = 0) -> Scores:
    random = np.random.default_rng(seed)
    truth = np.arange(pictures) % len(NAMES)
    logits = random.normal(size=(pictures, len(NAMES)))
    logits[np.arange(pictures), truth] += skill
    odds = np.exp(logits)
    ids = tuple(f"{i}.jpg" for i in range(pictures))
    kinds = np.eye(len(NAMES), dtype=bool)[truth]
    return Scores(ids, NAMES, odds / odds.sum(axis=1, keepdims=True), kinds, np.arange(pictures, dtype=np.int64) // 2)


def points() -> tuple[OperatingPoint, ...]:
    binary = scores_of(seed=1).melanoma()
    return at_sensitivity(0.95, binary, name="screening"), at_sensitivity(0.5, binary, name="specific")


def scrutiny(scores: Scores, **changes: Any) -> Scrutiny:
    facts: dict[str, list[str | None]] = {
        "sex": ["male" if i % 4 < 2 else "female" for i in range(len(scores))],
        "body site": [None] * len(scores),
    }
    asked: dict[str, Any] = {
        "points": points(),
        "conformal": ConformalSets.fit(scores_of(seed=2)),
        "reference": EVEN,
        "resamples": 60,
    }
    return scrutinise(scores, facts, **{**asked, **changes})


def text_of(scrutiny: Scrutiny) -> str:
    html = "".join(f"<section><h2>{title}</h2>{part}</section>" for title, part in sections(scrutiny))
    return " ".join(
        read(f"<!doctype html><html lang=en><title>t</title><body><main><h1>t</h1>{html}</main>").text.split()
    )


def test_each_operating_point_has_the_figures_of_these_pictures_and_predictive_values_by_bayes_rule() -> None:
    scores = scores_of()
    found = scrutiny(scores)
    assert [at.point.name for at in found.points] == ["screening", "specific"]
    for at in found.points:
        counts = at_threshold(scores.melanoma(), at.point.threshold)
        assert at.point.sensitivity.value == pytest.approx(counts.sensitivity)
        assert (at.point.positives, at.point.negatives) == (60, 480)
        assert list(at.predictive_values) == [0.01, 0.02, 0.05, 0.1, 60 / 540]
        ppv, npv = at.predictive_values[60 / 540]
        assert ppv.value == pytest.approx(counts.precision)
        assert npv.value == pytest.approx(counts.npv)


def test_the_clinics_curve_acts_on_probabilities_adjusted_to_it() -> None:
    scores = scores_of()
    found = scrutiny(scores, clinic=0.03)
    assert [curve.prevalence for curve in found.decisions.values()] == [60 / 540, 0.03]
    clinic = found.decisions["a clinic"]
    stated = scores.melanoma().probability
    odds = stated / (1 - stated) * (0.03 / 0.97) / ((1 / 9) / (8 / 9))
    place = 49
    called = odds / (1 + odds) >= clinic.thresholds[place]
    positive = scores.melanoma().positive
    price = clinic.thresholds[place] / (1 - clinic.thresholds[place])
    expected = 0.03 * called[positive].mean() - 0.97 * called[~positive].mean() * price
    assert clinic.model[place].value == pytest.approx(expected)


def test_a_bundle_that_was_calibrated_without_melanomas_has_no_clinics_curve_and_says_why() -> None:
    found = scrutiny(scores_of(), reference={**EVEN, MELANOMA: 0.0})
    assert list(found.decisions) == ["these pictures"]
    assert "Not shown at a clinic's prevalence: Probabilities cannot be adjusted" in text_of(found)


def test_without_melanomas_everything_is_told_and_nothing_is_a_number_that_is_none() -> None:
    scores = scores_of()
    found = scrutiny(scores.where(~scores.truth[:, MEL]))
    told = text_of(found)
    assert "It takes pictures of melanomas and of other lesions." in told
    assert "cannot be computed" in told
    assert "nan" not in told.lower().split()
    json.dumps(found.to_json(), allow_nan=False)


def test_a_bundle_without_alerts_and_sets_is_still_asked_whom_it_serves() -> None:
    titles = [title for title, _ in sections(scrutiny(scores_of(), points=(), conformal=None))]
    assert titles == ["Is it worth acting on?", "Does it serve everybody alike?"]


def test_the_sections_can_be_read_aloud_and_a_fact_that_is_not_known_is_named() -> None:
    found = scrutiny(scores_of())
    html = "".join(f"<section><h2>{title}</h2>{part}</section>" for title, part in sections(found))
    reading = read(f"<!doctype html><html lang=en><title>t</title><body><main><h1>t</h1>{html}</main></body></html>")
    assert [problem for problem in reading.problems if "plain" not in problem] == []
    assert "Not known of any picture: body site." in " ".join(reading.text.split())
    assert html.count('<p class="plain">') == 4


def test_json_is_plain_and_whole() -> None:
    plain = json.loads(json.dumps(scrutiny(scores_of()).to_json(), allow_nan=False))
    assert list(plain) == ["prevalence", "operating_points", "decision", "subgroups", "conformal"]
    assert set(plain["subgroups"]) == {"sex", "body site"}
    assert len(plain["decision"]["a clinic"]["model"]) == len(plain["decision"]["a clinic"]["threshold"]) == 100
    assert plain["conformal"]["promised"] == 0.9


def test_a_clinics_prevalence_lies_between_0_and_1() -> None:
    with pytest.raises(DataError, match="between 0 and 1"):
        scrutiny(scores_of(), clinic=1.5)


# Coverage


def test_sets_keep_their_promise_on_pictures_like_those_they_were_fitted_on() -> None:
    fitted = ConformalSets.fit(scores_of(5400, seed=3))
    found = coverage_of(fitted, scores_of(5400, seed=4), resamples=60)
    assert [part.category for part in found] == list(fitted.categories)
    assert all(part.covered.high >= 0.9 > part.covered.low - 0.1 for part in found)


def test_coverage_counts_what_the_sets_hold() -> None:
    sets = ConformalSets(0.9, {"melanoma": ("melanoma",), "nevus": ("nevus",)}, {"melanoma": 0.3, "nevus": 0.5})
    melanoma = np.array([0.9, 0.4, 0.2, 0.8])
    truth = np.array([[1, 0], [1, 0], [1, 0], [0, 1]], dtype=bool)
    scores = Scores(tuple("abcd"), ("melanoma", "nevus"), np.stack([melanoma, 1 - melanoma], 1), truth, np.arange(4))
    first, second = coverage_of(sets, scores, resamples=40)
    assert (first.pictures, first.lesions, first.size) == (3, 3, 4 / 3)
    assert first.covered.value == pytest.approx(2 / 3)
    assert first.alone.value == pytest.approx(1 / 3)
    assert (second.pictures, second.covered.value) == (1, 0.0)


def test_a_promise_that_is_not_kept_is_told() -> None:
    assert "The promise is not kept here" in text_of(scrutiny(scores_of(skill=0.0)))
    assert not math.isnan(scrutiny(scores_of()).prevalence)
